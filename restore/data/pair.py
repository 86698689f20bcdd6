"""Floor 3. One image pair, checked once: GT is LQ times the scale."""

from __future__ import annotations

from collections.abc import Sequence
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
    """The pair, or DataError DAT06 when the sizes do not fit the scale (see `check_scale`)."""
    check_scale(lq.shape[:2], gt.shape[:2], scale, where, crop_gt=crop_gt)
    return ImagePair(name, lq, gt[: lq.shape[0] * scale, : lq.shape[1] * scale], scale)


def check_scale(
    lq: Sequence[int], gt: Sequence[int], scale: int, where: str, *, crop_gt: bool
) -> None:
    """DataError DAT06 unless `gt` (height, width) is `lq` times the scale.

    With `crop_gt` a GT may be up to `scale - 1` pixels larger, to be cut at the bottom and right,
    as for benchmark sets whose HR was not cut to a multiple.
    """
    spare = scale - 1 if crop_gt else 0
    if all(0 <= big - small * scale <= spare for small, big in zip(lq, gt, strict=True)):
        return
    raise DataError.of(
        "DAT06",
        "LQ and GT sizes do not fit the scale",
        where,
        f"LQ {lq[1]}×{lq[0]} and GT {gt[1]}×{gt[0]}",
        f"GT {lq[1] * scale}×{lq[0] * scale} (scale {scale})",
        "check scale, dataroot_lq and filename_tmpl",
    )
