"""Floor 3. Which network a weights file is of: family, options and published variants.

Names and shapes tell most of it. What they cannot tell (MaIR's `scan_len`; GRL's window, stripe and
down factor) is named, with the published variants that fit, and never filled in by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from restore.archs.build import build_network, network_options
from restore.archs.reading import FAMILIES, Family, Shapes
from restore.archs.table import ARCHS, PRESETS
from restore.errors import OptionError, WeightsError
from restore.section import Section

PREFIXES = ("module.", "model_g.", "model.", "net_g.", "network.", "net.", "generator.")
_PREFIX = re.compile("(" + "|".join(map(re.escape, PREFIXES)) + ")*")


@dataclass(frozen=True)
class Differences:
    """How keys and shapes of a file differ from a network's."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    """`key (file's shape) ≠ (network's shape)`."""

    @classmethod
    def between(cls, file: Shapes, network: Shapes, ignored_keys: str) -> Differences:
        """The differences, without those that official files have beyond the network's keys."""
        ignored = re.compile(ignored_keys)
        return cls(
            tuple(k for k in network if k not in file),
            tuple(k for k in file if k not in network and not ignored.fullmatch(k)),
            tuple(
                f"{k} {file[k]} ≠ {network[k]}"
                for k in network
                if k in file and file[k] != network[k]
            ),
        )

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched)

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.mismatched)


@dataclass(frozen=True)
class Detected:
    """What the names and shapes of a weights file say."""

    prefix: str
    """What stands before each of the network's keys in the file."""
    options: Section
    """The network, with defaults for what the weights do not tell."""
    told: Mapping[str, Any]
    """The options that the weights do tell."""
    differences: Differences
    """Of the file from that network; none for a whole file of a known form."""
    presets: tuple[str, ...]
    """Published variants that the file fits to the last key and shape."""
    nearest: str
    """The published variant that the file is most like; '' where none is published."""

    @property
    def architecture(self) -> str:
        """The name under which `network_g.type` knows the network."""
        return self.told["type"]

    @property
    def family(self) -> Family:
        """How its weights are read."""
        return _family(self.architecture)

    def differing(self, preset: str) -> dict[str, tuple[Any, Any]]:
        """Option -> (the file's, the preset's) where they differ, ratios by more than rounding."""
        other = ARCHS[self.architecture].presets[preset]
        pairs = {key: (value, getattr(other, key)) for key, value in self._plain().items()}
        return {key: pair for key, pair in pairs.items() if not _alike(key, *pair)}

    def _plain(self) -> dict[str, Any]:
        return {k: v for k, v in self.told.items() if k != "type"}

    def __str__(self) -> str:
        if self.presets:
            return f"{self.architecture}, " + " or ".join(self.presets)
        if not self.nearest:
            return self.architecture
        differing = self.differing(self.nearest).items()
        changes = ", ".join(f"{key} {own} for {other}" for key, (own, other) in differing)
        return f"{self.architecture}, nearest to {self.nearest}" + (
            f" with {changes}" if changes else ""
        )


def detect(shapes: Shapes) -> Detected | None:
    """What the tensors called and shaped so are weights of; None for no network known here."""
    for name, family in FAMILIES.items():
        for key in shapes:
            prefix = key.removesuffix(family.mark)
            if not key.endswith(family.mark) or not _PREFIX.fullmatch(prefix):
                continue
            own = {k.removeprefix(prefix): s for k, s in shapes.items() if k.startswith(prefix)}
            try:
                told = {"type": name} | family.read(own)
                options = network_options(told)
            except (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError, OptionError):
                break
            return _matched(prefix, own, options, told)
    return None


def _matched(prefix: str, own: Shapes, options: Section, told: dict[str, Any]) -> Detected:
    architecture = ARCHS[told["type"]]
    differences = Differences.between(own, shapes_of(options), architecture.ignored_keys)
    found = Detected(prefix, options, told, differences, presets=(), nearest="")
    distances = {preset: len(found.differing(preset)) for preset in architecture.presets}
    fitting = [
        preset
        for preset, distance in distances.items()
        if not distance
        and not Differences.between(
            own, shapes_of(architecture.presets[preset]), architecture.ignored_keys
        )
    ]
    nearest = min(distances, key=lambda preset: distances[preset], default="")
    return replace(found, presets=tuple(fitting), nearest=nearest)


def _alike(key: str, own: Any, other: Any) -> bool:
    """Ratios stand for widths, which decide; an output as wide as the input may go unsaid."""
    if key.endswith("_ratio") or key == "chan_factor":
        return abs(own - other) < 0.06
    return own == other or (key == "upsampler" and not own and not other)


def _family(name: str) -> Family:
    return FAMILIES["MIMOUNet" if name == "MIMOUNetPlus" else name]


def shapes_of(options: Section) -> Shapes:
    """Names and shapes of the state dict of the network that `options` describe."""
    hashable: Any = options  # frozen
    return _shapes_of(hashable)


@lru_cache(maxsize=256)
def _shapes_of(options: Any) -> Shapes:
    network = build_network(options, meta=True)
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def options_for(shapes: Shapes, source: str, preset: str | None = None) -> Section:
    """The options of the network that a file's tensors are for; `preset` names a variant.

    Raises WeightsError WGT14 where the network is not known, WGT01 where the weights are not of
    `preset`, and WGT15 where there are options that only a preset can tell.
    """
    found = detect(shapes)
    if found is None:
        raise WeightsError.of(
            "WGT14",
            "the weights are of no network known here",
            source,
            ", ".join(list(shapes)[:3]) + ", …",
            "weights of one of " + ", ".join(ARCHS),
            "name the network with --opt FILE.yml or --arch NAME",
        )
    if preset is not None:
        return _as_preset(found, source, preset)
    if found.family.asks:
        fitting = "; ".join(f"{name}: {asked(found, name)}" for name in found.presets)
        by_hand = f"name them in --opt FILE.yml, or by --arch {found.architecture} and --set"
        raise WeightsError.of(
            "WGT15",
            f"the weights are of {found}, and do not tell everything",
            source,
            "nothing of " + ", ".join(found.family.asks),
            f"the variant ({fitting})" if fitting else "these options",
            f"add --arch with the variant that is right, or {by_hand}" if fitting else by_hand,
        )
    return found.options


def asked(found: Detected, preset: str) -> str:
    """What the weights do not tell, as `preset` has it."""
    options = ARCHS[found.architecture].presets[preset]
    return ", ".join(f"{key} {getattr(options, key)}" for key in found.family.asks)


def preset_options(name: str, source: str = "--arch") -> Section:
    """The published variant called `name`. Raises OptionError OPT24."""
    if name not in PRESETS:
        known = "one of " + ", ".join(PRESETS)
        raise OptionError.of("OPT24", "unknown variant", source, name, known, "choose one of them")
    return PRESETS[name]


def _as_preset(found: Detected, source: str, preset: str) -> Section:
    options = preset_options(preset)
    if preset not in found.presets:
        raise WeightsError.of(
            "WGT01",
            f"the weights are not of {preset}",
            source,
            str(found),
            preset,
            "choose " + " or ".join(found.presets)
            if found.presets
            else f"name it in --opt FILE.yml, or by --arch {found.architecture} and --set",
        )
    return options


def nearest_variant(shapes: Shapes) -> str:
    """One phrase for a report of keys that do not fit; '' where nothing is known."""
    found = detect(shapes)
    return "" if found is None else str(found)
