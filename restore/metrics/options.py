"""Floor 3. The scoring part of `val`: a named protocol, or BasicSR's metrics section."""

from __future__ import annotations

from typing import Literal

from restore.metrics.protocols import PROTOCOLS, ScoringRule
from restore.section import Natural, Section, no_effect

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
