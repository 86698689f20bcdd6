"""Floor 3. What an option file can say about each network (no torch here)."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator
from pydantic_core.core_schema import ValidationInfo

from restore.section import Count, Section, mistake, no_effect


class SpanOptions(Section):
    """SPAN (arXiv 2311.12770, section 3); names as in the official constructor."""

    type: Literal["SPAN"] = "SPAN"
    num_in_ch: Count = 3
    num_out_ch: Count = 3
    feature_channels: Count = 48
    """Width of all features: 48 is the paper's SPAN-S, 52 its SPAN."""
    upscale: Count = 4
    bias: bool | None = no_effect("every convolution of SPAN keeps its bias, as published")
    img_range: float = 255.0
    """Factor applied to the mean-free input."""
    rgb_mean: tuple[float, ...] = (0.4488, 0.4371, 0.4040)

    @field_validator("rgb_mean")
    @classmethod
    def _one_mean_per_channel(cls, mean: tuple[float, ...], info: ValidationInfo) -> object:
        channels = info.data.get("num_in_ch", len(mean))
        if len(mean) != channels:
            raise mistake(
                "OPT25",
                f"rgb_mean has {len(mean)} values for num_in_ch {channels}",
                f"{channels} values",
                "give one mean per input channel",
            )
        return mean
