"""Floor 4. How whole images are restored: tiles, self-ensemble, precision (no torch here)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from restore.section import Count, Natural, Section, mistake

Ensemble = Literal[1, 4, 8]
Precision = Literal["fp32", "bf16", "fp16"]
Tiling = Literal["blend", "mair", "grl"]
GibiBytes = Annotated[float, Field(gt=0)]


class PredictorOptions(Section):
    """How a network is applied to whole images."""

    ensemble: Ensemble = 1
    """Self-ensemble: the mean over 4 flips, or over 8 flips and quarter turns."""
    precision: Precision = "fp32"
    """Of matrix products and convolutions, by autocast; weights stay float32."""
    tiling: Tiling = "blend"
    """How tiles lie and meet: `blend` ours, `mair` and `grl` as those papers were evaluated."""
    tile: Literal["none", "auto"] | Count = "auto"
    """Side of a tile in LQ pixels, its overlap included; `none` restores images whole, `auto` cuts
    only what does not fit into memory. Tiling `mair` has sizes of its own."""
    tile_overlap: Natural | None = None
    """LQ pixels that neighbours share; when left out, what makes tiles exact where the network's
    reach is known, else 32."""
    tile_memory: GibiBytes | None = None
    """GiB that `auto` lets one forward pass take; what the device has free when left out."""
    tile_difference: bool = False
    """Restore every tiled image whole as well, and note the largest difference."""

    @field_validator("tile")
    @classmethod
    def _suits_the_tiling(cls, tile: object, info: ValidationInfo) -> object:
        if info.data.get("tiling") == "grl" and not isinstance(tile, int):
            raise mistake(
                "OPT25",
                "tiling grl needs a tile size",
                "a number of LQ pixels",
                "as published: 640 for super-resolution, 256 for denoising, 480 for deblurring",
            )
        if info.data.get("tiling") == "mair" and isinstance(tile, int):
            raise mistake(
                "OPT25",
                "sections of tiling mair have their published size",
                "no tile",
                "remove tile, or use tiling blend",
            )
        return tile

    @field_validator("tile_overlap")
    @classmethod
    def _fits_the_tile(cls, overlap: int | None, info: ValidationInfo) -> object:
        tile, tiling = info.data.get("tile"), info.data.get("tiling")
        if overlap is not None and tiling == "mair":
            raise mistake(
                "OPT25",
                "sections of tiling mair overlap by a tenth of their side",
                "no tile_overlap",
                "remove tile_overlap",
            )
        if tiling == "grl" and overlap is None:
            raise mistake(
                "OPT25",
                "tiling grl needs an overlap",
                "a number of LQ pixels",
                "as published: 32 beside tile 640 or 256, 48 beside 480",
            )
        if overlap is not None and isinstance(tile, int) and overlap >= tile:
            raise mistake(
                "OPT25",
                "the overlap leaves nothing of the tile",
                f"less than tile = {tile}",
                "make tile_overlap smaller or tile larger",
            )
        return overlap
