"""Floor 3. One image pair, checked once: GT is LQ times the scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore.errors import DataError


@dataclass(frozen=True)
class ImagePair:
    """`lq: (h, w[, C])` and `gt: (h·scale, w·scale[, C])`, uint8 or uint16; `gt` may be absent."""

    name: str
    lq: np.ndarray
    gt: np.ndarray | None
    scale: int

    @property
    def nbytes(self) -> int:
        """Bytes of both images."""
        return self.lq.nbytes + (self.gt.nbytes if self.gt is not None else 0)


def paired(
    name: str, lq: np.ndarray, gt: np.ndarray, scale: int, where: str, *, crop_gt: bool
) -> ImagePair:
    """The pair, or DataError DAT06 when the sizes do not fit the scale.

    With `crop_gt` a GT that is up to `scale - 1` pixels larger is cut at the bottom and right, as
    for benchmark sets whose HR was not cut to a multiple.
    """
    height, width = lq.shape[0] * scale, lq.shape[1] * scale
    over = (gt.shape[0] - height, gt.shape[1] - width)
    spare = scale - 1 if crop_gt else 0
    if not (0 <= over[0] <= spare and 0 <= over[1] <= spare):
        sizes = f"LQ {lq.shape[1]}×{lq.shape[0]} and GT {gt.shape[1]}×{gt.shape[0]}"
        raise DataError.of(
            "DAT06",
            "LQ and GT sizes do not fit the scale",
            where,
            sizes,
            f"GT {width}×{height} (scale {scale})",
            "check scale, dataroot_lq and filename_tmpl",
        )
    return ImagePair(name, lq, gt[:height, :width], scale)
