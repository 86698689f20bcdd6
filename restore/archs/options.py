"""Floor 3. What an option file can say about each network (no torch here)."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from restore.section import Count, Section, mistake, no_effect


def demand_image_skip(channels: int, info: ValidationInfo, other: str) -> None:
    """Refuse `out_channels` to which an input of `inp_channels` cannot be added.

    `other`: the setting with which it is not added.
    """
    inputs = info.data.get("inp_channels", channels)
    if channels != inputs and 1 not in (channels, inputs):
        raise mistake(
            "OPT25",
            f"out_channels {channels} cannot be added to the input of {inputs}",
            f"inp_channels = out_channels = {inputs}",
            f"make both the same, or set {other}",
        )


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


class MirnetV2Options(Section):
    """MIRNet-v2 (TPAMI 2022, arXiv 2205.01649, section 3); names as in the official constructor.

    Four groups, three streams and two fusions per block are built in, and the output is as large
    as the input: super-resolution here means inputs that already have the output's size.
    """

    type: Literal["MIRNet_v2"] = "MIRNet_v2"
    task: Literal["defocus_deblurring"] | None = None
    """The dual-pixel form: the long skip adds features, not the input image."""
    inp_channels: Count = 3
    """Channels of the input; 6 for dual-pixel deblurring: left view, then right view."""
    out_channels: Count = 3
    chan_factor: Annotated[float, Field(gt=0, le=16)] = 1.5
    """How much wider each stream is than the one of twice its resolution."""
    n_feat: Annotated[int, Field(ge=1, le=65536)] = 80
    """Width of the full-resolution stream; a multiple of 16 for chan_factor 1.5."""
    n_MRB: Count = 2
    """Multi-scale blocks in each of the four groups."""
    bias: bool = False
    """Biases in the 3×3, the context and the blocks' last convolutions; never in the others."""
    n_RRG: int | None = no_effect("the network always has 4 groups, as published")
    height: int | None = no_effect("the network always has 3 streams, as published")
    width: int | None = no_effect("streams always meet twice per block, as published")
    scale: int | None = no_effect("the output is always as large as the input, as published")

    @property
    def widths(self) -> tuple[int, int, int]:
        """Channels of the full, half and quarter resolution stream."""
        return _mirnet_widths(self.n_feat, self.chan_factor)

    @field_validator("out_channels")
    @classmethod
    def _image_skip_fits(cls, channels: int, info: ValidationInfo) -> object:
        if info.data.get("task") is None:
            demand_image_skip(channels, info, "task: defocus_deblurring")
        return channels

    @field_validator("n_feat")
    @classmethod
    def _widths_fit(cls, top: int, info: ValidationInfo) -> object:
        factor = info.data.get("chan_factor")
        if factor is None:  # refused itself
            return top
        if not _mirnet_fits(top, factor):
            near = range(max(top - 64, 4), top + 65)
            fitting = [n for n in near if _mirnet_fits(n, factor)]
            below = [n for n in fitting if n < top][-1:]
            usable = [*below, *[n for n in fitting if n > top][:1]]
            raise mistake(
                "OPT25",
                f"streams of {', '.join(map(str, _mirnet_widths(top, factor)))} channels",
                f"widths n, n·{factor:g} and n·{factor * factor:g} that are multiples of 4",
                "use " + " or ".join(map(str, usable)) if usable else "use chan_factor 1.5",
            )
        return top


def _mirnet_widths(top: int, factor: float) -> tuple[int, int, int]:
    return top, int(factor * top), int(factor**2 * top)


def _mirnet_fits(top: int, factor: float) -> bool:
    """Whether the streams divide into up to 4 groups, and the way up ends where the way down began.

    The published code computes the widths of neighbours anew, each from the other.
    """
    _, mid, bot = _mirnet_widths(top, factor)
    chained = (int(factor * mid), int(bot // factor), int(mid // factor)) == (bot, mid, top)
    return chained and min(mid, bot) > 0 and not (top % 4 or mid % 4 or bot % 4)


class MimoUnetOptions(Section):
    """MIMO-UNet (ICCV 2021); its widths 32, 64, 128 and its 3 channels are built in."""

    type: Literal["MIMOUNet"] = "MIMOUNet"
    num_res: Count = 8
    """Residual blocks in each of the three encoder and three decoder stages."""


class MimoUnetPlusOptions(Section):
    """MIMO-UNet+ (ICCV 2021): MIMO-UNet, deeper, with dropout on the fused skips in training."""

    type: Literal["MIMOUNetPlus"] = "MIMOUNetPlus"
    num_res: Count = 20
    """Residual blocks in each of the three encoder and three decoder stages."""


class MimoUnetPlusCfaOptions(Section):
    """A multi-scale U with cross-scale aggregation and recalibrated skips; not the published one.

    Not the MIMO-UNet+ of ICCV 2021 (that is MIMOUNetPlus): no published weights fit it.
    """

    type: Literal["MIMOUNetPlusCFA"] = "MIMOUNetPlusCFA"
    widths: tuple[Count, Count, Count] = (32, 64, 128)
    """Channels at full, half and quarter size."""
    num_res: Count = 8
    """Residual blocks in each of the three encoder and three decoder stages."""
    norm: Literal["none", "batch"] = "none"
    """Batch normalisation in the residual blocks; restoration trains better without it."""
    reduction: Count = 8
    """By how much the recalibration of a skip narrows its channels; divides every width."""
    fuse_outputs: bool = False
    """Make the finest output a learnt weighted sum of all three, weights adding up to 1."""

    @field_validator("reduction")
    @classmethod
    def _divides_the_widths(cls, reduction: int, info: ValidationInfo) -> object:
        widths = info.data.get("widths", ())
        if any(width % reduction for width in widths):
            raise mistake(
                "OPT25",
                f"reduction {reduction} does not divide the widths {', '.join(map(str, widths))}",
                "a divisor of every width",
                f"use reduction {math.gcd(reduction, *widths)}, or other widths",
            )
        return reduction
