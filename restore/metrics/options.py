"""Floor 3. The scoring part of `val`: a named protocol, or BasicSR's metrics section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from restore.catalog import Catalog
from restore.metrics.protocols import PROTOCOLS, ScoringRule
from restore.section import Natural, OneOf, Section, no_effect

Protocol = Literal[
    "sr-y",
    "sr-y-rounded",
    "vdsr-y",
    "grl-y",
    "rgb",
    "denoise-rgb",
    "grl-rgb",
    "gopro-rgb",
    "gopro-unrounded",
    "sidd-val",
    "mirnet-rgb3d",
    "sots-rgb",
    "dpdd-rgb",
    "realblur-rgb",
]
"""The names in `restore.metrics.protocols`, written out for the options' schema."""
Protocols = Annotated[
    Annotated[Literal[Protocol, "all"], Tag("one")]
    | Annotated[tuple[Protocol, ...], Field(min_length=1), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]
"""A protocol, several of them, or all that fit the images."""


def named(protocols: str | tuple[str, ...]) -> tuple[ScoringRule, ...]:
    """The rules that a value of `Protocols` names, each once."""
    if protocols == "all":
        return tuple(PROTOCOLS.values())
    names = (protocols,) if isinstance(protocols, str) else dict.fromkeys(protocols)
    return tuple(PROTOCOLS[name] for name in names)


class MetricOptions(Section):
    """One entry of BasicSR's `val.metrics`; translated to a protocol by its two flags."""

    type: Literal["calculate_psnr", "calculate_ssim"]
    crop_border: Natural
    test_y_channel: bool = False
    input_order: str | None = no_effect("images are HWC here, always")
    better: str | None = no_effect("known for each metric")


class MetricsOptions(Section):
    """BasicSR's `val.metrics`. PSNR and SSIM are both computed whichever is listed."""

    psnr: MetricOptions | None = None
    ssim: MetricOptions | None = None

    def entries(self) -> list[MetricOptions]:
        """The entries that were given."""
        return [entry for entry in (self.psnr, self.ssim) if entry is not None]

    def rule(self) -> tuple[ScoringRule, int]:
        """The protocol and border that the entries ask for."""
        first = self.entries()[0]
        return PROTOCOLS["sr-y" if first.test_y_channel else "rgb"], first.crop_border


METRICS: Catalog[type[Section]] = Catalog("metric", {})
"""Figures beside PSNR and SSIM, all from outside so far: `type: package.module:NAME`.

Such a Section has `score(self, restored, target) -> float`, for two uint8 or uint16 images
`(H, W[, 3])` of one shape, the protocol's border taken off.
"""
METRIC = OneOf(METRICS, lambda section: section)


def scores_of(metrics: Mapping[str, Section]) -> dict[str, Any]:
    """Name -> function of (restored, target), in the file's order."""
    return {name: getattr(options, "score") for name, options in metrics.items()}  # noqa: B009
