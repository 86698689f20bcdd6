"""Floor 3. Weights and networks: matched strictly, reported exactly; safetensors out."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from restore.archs.detect import PREFIXES, Differences, nearest_variant
from restore.archs.table import architecture_of
from restore.archs.weights_file import read_weights
from restore.errors import WeightsError
from restore.section import Section

CONTAINERS = ("params_ema", "params", "state_dict", "model", "net_g")
SHOWN = 10


@dataclass(frozen=True)
class LoadReport:
    """What a load did: the container used, prefixes taken off, and how the keys matched."""

    source: str
    container: str
    prefix: str
    loaded: int
    ignored: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]


def load_weights(
    network: nn.Module,
    weights: str | os.PathLike[str] | Mapping[str, Any],
    strict: bool = True,
    *,
    key: str | None = None,
) -> LoadReport:
    """Put the weights of a file, or of a state dict, into `network`.

    Accepts safetensors and `.pth` files, a bare state dict or one under `params_ema` (preferred),
    `params`, `state_dict`, `model` or `net_g`, with `module.`-like prefixes. `key` names the
    container instead. What official files hold beyond the network's own keys is ignored: SPAN's
    `eval_conv`, GRL's tables, a trainer's other networks under other prefixes. With `strict`, any
    other difference is a WeightsError that lists it; without, what fits is loaded and the report
    tells the rest. Values that are not finite are refused.
    """
    source = "state dict" if isinstance(weights, Mapping) else os.fspath(weights)
    content = weights if isinstance(weights, Mapping) else read_weights(weights)
    state, container = _pick(content, key, source)
    own = network.state_dict()
    state, prefix, beside = _without_prefix(state, own)
    shapes = _shapes(state)
    differ = Differences.between(shapes, _shapes(own), _ignored_keys(network))
    if strict and differ:
        raise _mismatch(source, differ, nearest_variant(shapes))
    unexpected = set(differ.unexpected)
    ignored = tuple(k for k in state if k not in own and k not in unexpected)
    fitting = {k: state[k] for k in own if k in state and state[k].shape == own[k].shape}
    for name, value in fitting.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError.of(
                "WGT10",
                "weights are not finite",
                source,
                f"NaN or Inf in {name}",
                "finite numbers",
                "use an earlier checkpoint",
            )
    network.load_state_dict(fitting, strict=False)
    return LoadReport(
        source,
        container,
        prefix,
        len(fitting),
        beside + ignored,
        differ.missing,
        differ.unexpected,
        differ.mismatched,
    )


def _pick(
    content: Mapping[str, Any], key: str | None, source: str
) -> tuple[dict[str, Tensor], str]:
    """The state dict inside `content`, and the container's name ('' for a bare one)."""
    held = [name for name in CONTAINERS if isinstance(content.get(name), Mapping)]
    if key is not None and not isinstance(content.get(key), Mapping):
        # as BasicSR does, `params` stands in for a missing `params_ema`; nothing else is guessed
        if not (key == "params_ema" and "params" in held):
            has = ", ".join(held) or "a bare state dict"
            raise WeightsError.of(
                "WGT11",
                f"no '{key}' in the weights file",
                source,
                has,
                f"'{key}'",
                "set path.param_key_g to what the file holds",
            )
        key = "params"
    name = key or (held[0] if held else "")
    state = content[name] if name else content
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        raise WeightsError.of(
            "WGT03",
            "weights file holds no state dict",
            source,
            ", ".join(str(name)[:40] for name in list(content)[:SHOWN]) or "nothing",
            "a dict of tensors",
            "save network.state_dict()",
        )
    return tensors, name


def _without_prefix(
    state: dict[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """`state` without the prefix that `own` does not have, the prefix, and the keys left out.

    A trainer's file may hold more than the network (its discriminator, its scores): a prefix that
    most of the network's keys carry is taken for its own, and keys without it stay out.
    """
    taken, beside = "", []
    while not any(k in own for k in state):
        prefix = next((p for p in PREFIXES if _leads(p, state, own)), None)
        if prefix is None:
            break
        beside += [taken + k for k in state if not k.startswith(prefix)]
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        taken += prefix
    return state, taken, tuple(beside)


def _leads(prefix: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    everywhere = all(key.startswith(prefix) for key in state)
    return everywhere or 2 * sum(prefix + key in state for key in own) > len(own)


def _ignored_keys(network: nn.Module) -> str:
    options = getattr(network, "options", None)
    return architecture_of(options).ignored_keys if hasattr(options, "type") else ""


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _mismatch(source: str, differ: Differences, variant: str) -> WeightsError:
    def listed(what: str, keys: tuple[str, ...]) -> str:
        more = f", … ({len(keys) - SHOWN} more)" if len(keys) > SHOWN else ""
        return f"{len(keys)} {what}: {', '.join(keys[:SHOWN])}{more}"

    found = [
        listed(what, keys)
        for what, keys in (
            ("missing", differ.missing),
            ("unexpected", differ.unexpected),
            ("of another shape (file ≠ network)", differ.mismatched),
        )
        if keys
    ]
    return WeightsError.of(
        "WGT09",
        "weights do not fit the network",
        source,
        "; ".join(found),
        "exactly the network's keys and shapes",
        (f"the file is of {variant}: " if variant else "")
        + "check type, width and scale of network_g, or set path.strict_load_g: false",
    )


def write_safetensors(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write `state` with `about` (JSON) in the header; the same input gives the same bytes.

    Raises OSError where the file cannot be written whole.
    """
    tensors = {key: value.detach().contiguous().cpu() for key, value in state.items()}
    text = json.dumps(about, sort_keys=True)
    try:
        safetensors.torch.save_file(tensors, path, metadata={"restore": text})
    except safetensors.SafetensorError as error:  # says "I/O error: … (os error 28)"
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number), os.fspath(path)) from error


def about_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_safetensors` put into the header; empty for files of other tools."""
    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("restore", "{}"))
    except (safetensors.SafetensorError, OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def describe(
    options: Section,
    scale: int,
    *,
    license: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The header that makes a weights file self-describing: its network, and where it is from."""
    about = {"network_g": options.model_dump(), "scale": scale}
    more = {"license": license, "provenance": None if provenance is None else dict(provenance)}
    return about | {key: value for key, value in more.items() if value is not None}


def tensors_of(
    path: str | os.PathLike[str], key: str | None = None
) -> tuple[dict[str, Tensor], str]:
    """The state dict that a weights file holds (or holds under `key`), and its container's name."""
    return _pick(read_weights(path), key, os.fspath(path))


def shapes_in(path: str | os.PathLike[str], key: str | None = None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a weights file."""
    return _shapes(tensors_of(path, key)[0])


def official_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict that the official code loads strictly (SPAN: `eval_conv` filled in)."""
    complete: Callable[[], dict[str, Tensor]] | None = getattr(network, "official_state", None)
    return dict(network.state_dict()) if complete is None else complete()


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """sha256 of names, shapes, dtypes and bytes: the weights' identity, whatever the container."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
