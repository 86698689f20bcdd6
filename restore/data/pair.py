"""Floor 3. One image pair, checked once: GT is LQ times the scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from restore.errors import DataError

Fit = Literal["exact", "corner", "centre"]
MARGIN = 10  # pixels that `centre` may cut off each side


class Box(NamedTuple):
    """A rectangle of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        top, left, height, width = self
        return slice(top, top + height), slice(left, left + width)

    def times(self, scale: int) -> Box:
        """The same place of an image `scale` times larger."""
        return Box(self.top * scale, self.left * scale, self.height * scale, self.width * scale)

    def moved(self, down: int, right: int) -> Box:
        """The same size at another place."""
        return Box(self.top + down, self.left + right, self.height, self.width)


class ImagePair(NamedTuple):
    """`lq: (h, w[, C])` and `gt: (h·scale, w·scale[, C])`, uint8 or uint16; `gt` may be absent."""

    name: str
    lq: np.ndarray
    gt: np.ndarray | None
    scale: int

    @property
    def view(self) -> np.ndarray:
        """LQ as an image to look at: itself, or the mean of the two views of a dual-pixel pair."""
        if self.lq.ndim == 2 or self.lq.shape[2] <= 3:
            return self.lq
        left, right = self.lq[..., :3], self.lq[..., 3:]
        return ((left.astype(np.uint32) + right) // 2).astype(self.lq.dtype)

    def part(self, box: Box) -> ImagePair:
        """What lies inside `box`, in LQ's pixels, of both images."""
        gt = self.gt[box.times(self.scale).slices] if self.gt is not None else None
        return ImagePair(self.name, self.lq[box.slices], gt, self.scale)

    def extended(self, side: int) -> ImagePair:
        """Black below and to the right of both images, up to a GT of at least `side`."""
        gt = _extended(self.gt, side) if self.gt is not None else None
        return ImagePair(self.name, _extended(self.lq, -(-side // self.scale)), gt, self.scale)

    @property
    def nbytes(self) -> int:
        """Bytes of both images."""
        return self.lq.nbytes + (self.gt.nbytes if self.gt is not None else 0)


def _extended(image: np.ndarray, side: int) -> np.ndarray:
    missing = [(0, max(side - length, 0)) for length in image.shape[:2]]
    return np.pad(image, [*missing, (0, 0)][: image.ndim])


def paired(
    name: str, lq: np.ndarray, gt: np.ndarray, scale: int, where: str, *, fit: Fit
) -> ImagePair:
    """The pair, or DataError DAT06 when the sizes do not fit the scale (see `gt_origin`)."""
    top, left = gt_origin(lq.shape[:2], gt.shape[:2], scale, where, fit=fit)
    height, width = (side * scale for side in lq.shape[:2])
    return ImagePair(name, lq, gt[top : top + height, left : left + width], scale)


def gt_origin(
    lq: Sequence[int], gt: Sequence[int], scale: int, where: str, *, fit: Fit
) -> tuple[int, int]:
    """Where in GT the image begins whose size is LQ times the scale: (top, left).

    `fit`: `exact` takes a GT of that very size; `corner` one up to `scale - 1` pixels larger, to be
    cut at the bottom and right, as for benchmark sets whose HR was not cut to a multiple; `centre`
    one up to MARGIN pixels larger on every side, the same on opposite sides, as RESIDE's indoor
    set needs (hazy 620×460, clear 640×480). Raises DataError DAT06.
    """
    spare = [big - small * scale for small, big in zip(lq, gt, strict=True)]
    allowed = {"exact": 0, "corner": scale - 1, "centre": 2 * MARGIN}[fit]
    even = fit != "centre" or not any(extra % 2 for extra in spare)
    if even and all(0 <= extra <= allowed for extra in spare):
        return (spare[0] // 2, spare[1] // 2) if fit == "centre" else (0, 0)
    raise DataError.of(
        "DAT06",
        "LQ and GT sizes do not fit the scale",
        where,
        f"LQ {lq[1]}×{lq[0]} and GT {gt[1]}×{gt[0]}",
        f"GT {lq[1] * scale}×{lq[0] * scale} (scale {scale})",
        "check scale, dataroot_lq and filename_tmpl",
    )
