"""Floor 3. What an option file can say about MaIR's two networks (no torch here)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from restore.archs.options import demand_image_skip
from restore.section import Count, Section, mistake, no_effect

Rate = Annotated[float, Field(ge=0, lt=1)]
Ratio = Annotated[float, Field(ge=0.5, le=64)]
Width = Annotated[int, Field(ge=4, le=65536)]
Size = int | tuple[int, int]

ANY_SIZE = "scan tables are made for whatever size comes in"
ANY_BATCH = "scan tables do not depend on the batch"


class _Common(Section):
    """What both networks take."""

    ssm_ratio: Ratio = 1.5
    """Inner width of the scans over the width of their stage, rounded down."""
    scan_len: Count = 8
    """Width of the scan's stripes in pixels. NOT visible in the weights: a wrong value loads
    without complaint and gives other images, so keep it with them."""
    checkpoint: bool | None = None
    """Recompute each block in the backward pass: less memory, more time, the same numbers."""
    use_checkpoint: bool | None = None
    """The official spelling of `checkpoint`."""
    img_size: Size | None = no_effect(ANY_SIZE)
    batch_size: int | None = no_effect(ANY_BATCH)
    dynamic_ids: bool | None = no_effect(ANY_SIZE)

    @property
    def recomputes(self) -> bool:
        """Whether blocks are recomputed in the backward pass, under either spelling."""
        return bool(self.checkpoint or self.use_checkpoint)

    @field_validator("use_checkpoint")
    @classmethod
    def _same_as_checkpoint(cls, used: bool | None, info: ValidationInfo) -> object:
        own = info.data.get("checkpoint")
        if None not in (own, used) and own != used:
            raise mistake(
                "OPT35",
                f"use_checkpoint is another spelling of checkpoint, which is {str(own).lower()}",
                "one of them",
                "remove use_checkpoint",
            )
        return used


class MairOptions(_Common):
    """MaIR (CVPR 2025, arXiv 2412.20066): super-resolution and denoising at one resolution; names
    as in the official constructor."""

    type: Literal["MaIR"] = "MaIR"
    in_chans: Count = 3
    """Channels of input and output; with 3 the mean colour of DIV2K is subtracted."""
    embed_dim: Width = 60
    """Width of all features."""
    depths: Annotated[tuple[Count, ...], Field(min_length=1)] = (6, 6, 6, 6)
    """Blocks in each residual group; every second block of a group scans shifted stripes."""
    d_state: Count = 16
    """States of a scan for each of its channels."""
    mlp_ratio: Ratio = 2.0
    """Hidden width of the MLPs over embed_dim, rounded down."""
    drop_rate: Rate = 0.0
    """Dropout after the patch embedding, in training."""
    drop_path_rate: Rate = 0.1
    """Stochastic depth of the last block's scan branch, in training; it grows from 0 linearly."""
    patch_norm: bool = True
    """LayerNorm before the first group."""
    upscale: Count = 2
    """Output size over input size; without an upsampler the output is as large as the input."""
    img_range: Annotated[float, Field(gt=0)] = 1.0
    """Factor applied to the mean-free input, and taken back at the end."""
    upsampler: Literal["pixelshuffle", "pixelshuffledirect", ""] | None = "pixelshuffledirect"
    """`pixelshuffle` (classic), `pixelshuffledirect` (light), or none: the input is added."""
    resi_connection: Literal["1conv", "3conv"] = "1conv"
    """Convolutions at the end of each group and of the body."""
    patch_size: int | None = no_effect("tokens are always single pixels, as published")

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self.upscale if self.upsampler else 1

    @field_validator("upsampler")
    @classmethod
    def _has_stages(cls, upsampler: str | None, info: ValidationInfo) -> object:
        scale = info.data.get("upscale", 2)
        if upsampler == "pixelshuffle" and scale != 3 and scale & (scale - 1):
            raise mistake(
                "OPT25",
                f"pixelshuffle has no stages for upscale {scale}",
                "upscale 3 or a power of 2",
                "use pixelshuffledirect, which takes any scale",
            )
        return upsampler


class MairUnetOptions(_Common):
    """MaIRUNet (CVPR 2025, arXiv 2412.20066): real denoising, motion deblurring and dehazing on
    four levels; names as in the official constructor. No block scans shifted stripes."""

    type: Literal["MaIRUNet"] = "MaIRUNet"
    inp_channels: Count = 3
    dual_pixel_task: bool = False
    """For 6 input channels (left view, then right view) and 3 output channels: the first feature
    is added at the end instead of the input. No weights are published for it."""
    out_channels: Count = 3
    dim: Width = 48
    """Width at full resolution, an even number; it doubles with each of the three halvings."""
    num_blocks: tuple[Count, Count, Count, Count] = (4, 6, 6, 8)
    """Blocks of levels 1 to 4; the decoders have as many as their encoders."""
    num_refinement_blocks: Count = 4
    """Further blocks at full resolution."""
    drop_path_rate: Rate = 0.0
    """Stochastic depth of every block's scan branch, in training."""
    bias: bool = False
    """Biases in the 1×1 convolutions and the last one; never in the others."""
    flp_ratio: Ratio = 2.0
    """Hidden width of the MLPs over their stage's width in the first encoder level only."""
    mlp_ratio: Ratio = 2.0
    """The same everywhere else."""

    @field_validator("dim")
    @classmethod
    def _can_be_halved(cls, dim: int) -> int:
        if dim % 2:
            raise mistake("OPT25", "dim is odd", "an even number", f"use {dim - 1} or {dim + 1}")
        return dim

    @field_validator("out_channels")
    @classmethod
    def _image_skip_fits(cls, channels: int, info: ValidationInfo) -> object:
        if not info.data.get("dual_pixel_task"):
            demand_image_skip(channels, info, "dual_pixel_task: true")
        return channels
