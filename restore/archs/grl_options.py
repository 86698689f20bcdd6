"""Floor 3. What an option file can say about GRL, and its published variants (no torch here)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from restore.section import Count, Natural, Section, mistake, no_effect

Rate = Annotated[float, Field(ge=0, lt=1)]
PerAxis = tuple[Count | None, Count | None]

CAB_REDUCTION = 18
"""By how much the channel attention of the local branch narrows its channels."""


class GrlOptions(Section):
    """GRL (CVPR 2023, arXiv 2303.00748); names as in the official constructor.

    Window, stripe and down factor leave no trace in a weights file: they belong to the variant, and
    a wrong value gives wrong images without a word.
    """

    type: Literal["GRL"] = "GRL"
    in_channels: Count = 3
    """Channels of the input; 6 for dual-pixel deblurring: left view, then right view."""
    out_channels: Count | None = None
    """Channels of the output; those of the input when left out."""
    embed_dim: Annotated[int, Field(ge=4, le=65536)] = 96
    """Width of all features; even: half for the windows, half for the stripes."""
    img_range: Annotated[float, Field(gt=0)] = 1.0
    """Factor applied to the mean-free input."""
    upsampler: Literal["", "pixelshuffle", "pixelshuffledirect", "nearest+conv"] = ""
    """How the output is enlarged; empty for outputs as large as the input."""
    upscale: Count = 1
    """The output's scale; above 1 exactly where there is an upsampler."""
    depths: Annotated[tuple[Count, ...], Field(min_length=1)] = (6, 6, 6, 6, 6, 6)
    """Blocks of each stage."""
    num_heads_window: tuple[Count, ...] = (3, 3, 3, 3, 3, 3)
    """Heads of the window attention, stage by stage."""
    num_heads_stripe: tuple[Count, ...] = (3, 3, 3, 3, 3, 3)
    """Heads of the anchored stripe attention, stage by stage."""
    window_size: Annotated[int, Field(ge=2)] = 8
    """Side of the square windows."""
    anchor_window_down_factor: Count = 1
    """How many pixels of each axis share an anchor."""
    stripe_groups: PerAxis = (None, None)
    """Per axis, into how many stripes the image is cut; goes before stripe_size."""
    stripe_size: PerAxis = (8, 8)
    """(height, width) of the horizontal stripes; the vertical ones have both exchanged."""
    stripe_shift: bool = False
    """Shift the stripes by half their size in every second pair of blocks."""
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    """Hidden width of the blocks' perceptrons / embed_dim."""
    qkv_bias: bool = True
    qkv_proj_type: Literal["linear"] = "linear"
    anchor_proj_type: Literal["avgpool", "maxpool", "conv2d", "patchmerging"] = "avgpool"
    """How anchors summarise the features."""
    anchor_one_stage: bool = True
    """Reduce to the anchors at once; else by halves, one after the other."""
    out_proj_type: Literal["linear"] = "linear"
    local_connection: bool = False
    """Add the branch of convolutions and channel attention to every block."""
    drop_rate: Rate = 0.0
    attn_drop_rate: Rate = 0.0
    drop_path_rate: Rate = 0.1
    """How often the last block's branches are left out in training; linear from 0 at the first."""
    pretrained_window_size: tuple[Natural, Natural] = (0, 0)
    """The window that positions are measured by; (0, 0) is the window itself."""
    pretrained_stripe_size: tuple[Natural, Natural] = (0, 0)
    """The stripe that positions are measured by; (0, 0) is the stripe itself."""
    conv_type: Literal["1conv", "3conv", "1conv1x1", "linear"] = "1conv"
    """What closes each stage and the body."""
    init_method: Annotated[str, Field(pattern=r"^(n|r|w|l|t\d{1,3})$")] = "n"
    """First weights; `r` also scales all residuals of the blocks by 0.1, for ever."""
    euclidean_dist: Literal[False] = False
    use_checkpoint: bool = False
    """Keep only the blocks' inputs while training and compute the rest again: less memory."""
    img_size: int | tuple[int, int] | None = no_effect("tables follow the image at hand")
    fairscale_checkpoint: bool | None = no_effect("use_checkpoint saves activations here")
    offload_to_cpu: bool | None = no_effect("use_checkpoint saves activations here")
    name: str | None = no_effect("the official constructor does not read it either")
    double_window: bool | None = no_effect("the official constructor does not read it either")
    stripe_square: bool | None = no_effect("the official constructor does not read it either")
    separable_conv_act: bool | None = no_effect("the official constructor does not read it either")
    use_buffer: bool | None = no_effect("tables are never part of the weights here")
    use_efficient_buffer: bool | None = no_effect("tables are never part of the weights here")

    @property
    def outputs(self) -> int:
        """Channels of the output."""
        return self.in_channels if self.out_channels is None else self.out_channels

    @property
    def multiple(self) -> int:
        """What both sides of the image are padded to a multiple of, inside the network.

        The official rule is the largest of these numbers; wherever that works, this is the same.
        """
        down = self.anchor_window_down_factor
        axes = zip(self.stripe_size, self.stripe_groups, strict=True)
        stripes = [down * groups if groups else size or 1 for size, groups in axes]
        return math.lcm(self.window_size, down, *stripes)

    def padded(self, side: int) -> int:
        """The side that an image of `side` pixels has inside the network."""
        side = max(side, 2 * max(groups or 1 for groups in self.stripe_groups))
        return -(-side // self.multiple) * self.multiple

    @field_validator("out_channels")
    @classmethod
    def _mean_fits(cls, channels: int | None, info: ValidationInfo) -> object:
        if info.data.get("in_channels") == 3 and channels not in (None, 3):
            raise mistake(
                "OPT25",
                "the mean of RGB inputs is added to the output, which needs 3 channels",
                "out_channels 3 for in_channels 3",
                "leave out_channels out",
            )
        return channels

    @field_validator("embed_dim")
    @classmethod
    def _two_halves(cls, width: int) -> object:
        if width % 2:
            raise mistake(
                "OPT25",
                f"embed_dim {width} has no two equal halves for windows and stripes",
                "an even number",
                f"use {width + 1}",
            )
        return width

    @field_validator("upscale")
    @classmethod
    def _upsampler_fits(cls, scale: int, info: ValidationInfo) -> object:
        upsampler = info.data.get("upsampler")
        if upsampler is None:  # refused itself
            return scale
        power = scale & (scale - 1) == 0
        fits, expected = {
            "": (scale == 1, "upscale 1 without an upsampler"),
            "pixelshuffle": (scale == 3 or (power and scale > 1), "3 or a power of two above 1"),
            "pixelshuffledirect": (scale > 1, "2 or more with an upsampler"),
            "nearest+conv": (scale == 4, "4, which is built in"),
        }[upsampler]
        if not fits:
            raise mistake(
                "OPT25",
                f"upscale {scale} does not go with upsampler '{upsampler}'",
                expected,
                "choose another upsampler" if upsampler else "name an upsampler",
            )
        return scale

    @field_validator("num_heads_window", "num_heads_stripe")
    @classmethod
    def _heads_fit(cls, heads: tuple[int, ...], info: ValidationInfo) -> object:
        depths, width = info.data.get("depths"), info.data.get("embed_dim")
        if depths is not None and len(heads) != len(depths):
            raise mistake(
                "OPT25",
                f"{len(heads)} numbers of heads for {len(depths)} stages",
                f"{len(depths)} numbers",
                "give one number per entry of depths",
            )
        if width is not None and any(width // 2 % number for number in heads):
            raise mistake(
                "OPT25",
                f"heads do not divide the {width // 2} channels of their half",
                f"divisors of embed_dim / 2 = {width // 2}",
                f"use {math.gcd(width // 2, *heads)}",
            )
        return heads

    @field_validator("stripe_size")
    @classmethod
    def _stripes_fit(cls, sizes: PerAxis, info: ValidationInfo) -> object:
        down = info.data.get("anchor_window_down_factor")
        groups = info.data.get("stripe_groups")
        if down is None or groups is None:  # refused themselves
            return sizes
        for size, number in zip(sizes, groups, strict=True):
            if number is None and (size is None or size % down or size < 2):
                raise mistake(
                    "OPT25",
                    f"no stripes of size {size} with anchor_window_down_factor {down}",
                    f"a multiple of {down}, ≥ 2, or a number in stripe_groups",
                    f"use {max(-(-(size or 8) // down) * down, 2)}",
                )
        return sizes

    @field_validator("anchor_one_stage")
    @classmethod
    def _anchors_fit(cls, one_stage: bool, info: ValidationInfo) -> object:
        kind = info.data.get("anchor_proj_type")
        down = info.data.get("anchor_window_down_factor")
        if kind is None or down is None:  # refused themselves
            return one_stage
        if kind in ("avgpool", "maxpool"):
            fits, expected = one_stage, "anchor_one_stage true for pooled anchors"
        elif not one_stage:
            halvings = down >= 2 and down & (down - 1) == 0
            fits, expected = halvings, "a down factor that is a power of two above 1"
        elif kind == "conv2d":
            fits, expected = down % 2 == 0, "an even down factor in one stage"
        else:
            fits, expected = down == 2, "a down factor of 2 in one stage"
        if not fits:
            raise mistake(
                "OPT25",
                f"{kind} anchors cannot be reduced by {down} this way",
                expected,
                "change anchor_one_stage or anchor_window_down_factor, or use avgpool",
            )
        return one_stage

    @field_validator("local_connection")
    @classmethod
    def _wide_enough(cls, local: bool, info: ValidationInfo) -> object:
        width = info.data.get("embed_dim", CAB_REDUCTION)
        if local and width < CAB_REDUCTION:
            raise mistake(
                "OPT25",
                f"the channel attention of local_connection narrows {width} channels to none",
                f"embed_dim ≥ {CAB_REDUCTION}",
                "widen the network or set local_connection: false",
            )
        return local


_TINY: dict[str, Any] = {
    "embed_dim": 64,
    "depths": (4,) * 4,
    "num_heads_window": (2,) * 4,
    "num_heads_stripe": (2,) * 4,
}
_SIZES: dict[str, dict[str, Any]] = {
    "tiny": _TINY,
    "small": _TINY | {"embed_dim": 128},
    "base": {
        "embed_dim": 180,
        "depths": (4, 4, 8, 8, 8, 4, 4),
        "num_heads_window": (3,) * 7,
        "num_heads_stripe": (3,) * 7,
        "local_connection": True,
    },
}


def _variant(size: str, window: int, stripe: tuple[int, int], down: int, **more: Any) -> GrlOptions:
    return GrlOptions(
        mlp_ratio=2,
        window_size=window,
        stripe_size=stripe,
        stripe_shift=True,
        anchor_window_down_factor=down,
        **_SIZES[size],
        **more,
    )


def _super_resolution(size: str, scale: int) -> GrlOptions:
    upsampler = "pixelshuffledirect" if size == "tiny" else "pixelshuffle"
    down = 2 if size == "base" else 4
    return _variant(size, 32, (64, 64), down, upsampler=upsampler, upscale=scale)


def _denoising(size: str, channels: int) -> GrlOptions:
    window, down = (32, 2) if size == "base" else (16, 4)
    return _variant(size, window, (64, 128), down, in_channels=channels)


_ENLARGED = {"upsampler": "nearest+conv", "upscale": 4}

GRL_PRESETS: dict[str, Section] = {
    **{
        f"sr_grl_{size}_c3x{scale}": _super_resolution(size, scale)
        for size in _SIZES
        for scale in (2, 3, 4)
    },
    **{
        f"dn_grl_{size}_c{channels}": _denoising(size, channels)
        for size in _SIZES
        for channels in (1, 3)
    },
    **{
        f"jpeg_grl_small_c{channels}": _variant("small", 36, (72, 144), 4, in_channels=channels)
        for channels in (1, 3)
    },
    "dm_grl_small": _variant("small", 8, (32, 32), 4),
    "db_motion_grl_base": _variant("base", 12, (48, 96), 4),
    "db_defocus_single_pixel_grl_base": _variant("base", 16, (48, 96), 4),
    "db_defocus_dual_pixel_grl_base": _variant(
        "base", 16, (48, 96), 4, in_channels=6, out_channels=3
    ),
    "bsr_grl_base": _variant("base", 16, (32, 64), 4, **_ENLARGED),
    "bsr_psnr_grl_base": _variant("base", 16, (64, 64), 4, **_ENLARGED),
}
"""Published variants by the names of their files, without noise level or quality."""
