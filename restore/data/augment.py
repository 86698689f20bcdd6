"""Floor 3. Random crops and flips: all chance of a sample comes from one generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore.data.pair import ImagePair
from restore.errors import DataError


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample: a pure function of (seed, epoch, index)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, index))))


@dataclass(frozen=True)
class CropFlip:
    """A square crop at one place of both images, then flips and a quarter turn, each with ½."""

    gt_size: int
    hflip: bool
    rot: bool
    pad: bool = False
    """Black below and to the right of images that are smaller than the crop."""

    def __call__(self, pair: ImagePair, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """`(lq, gt)` crops, contiguous, `(g/s, g/s, C)` and `(g, g, C)`. Raises DataError DAT07."""
        assert pair.gt is not None, "training needs ground truth"
        scale, side = pair.scale, self.gt_size // pair.scale
        lq, gt = pair.lq, pair.gt
        if self.pad:
            lq, gt = _extended(lq, side), _extended(gt, self.gt_size)
        height, width = lq.shape[:2]
        if height < side or width < side:
            raise DataError.of(
                "DAT07",
                "image smaller than the training patch",
                pair.name,
                f"GT {width * scale}×{height * scale}",
                f"sides of at least {self.gt_size}",
                "use a smaller gt_size, set pad_small, or leave the image out",
            )
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        flips = rng.random(3) < 0.5  # drawn whether used or not: an option changes no other draw
        lq = lq[top : top + side, left : left + side]
        gt = gt[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        return self._turn(lq, flips), self._turn(gt, flips)

    def _turn(self, image: np.ndarray, flips: np.ndarray) -> np.ndarray:
        if self.hflip and flips[0]:
            image = image[:, ::-1]
        if self.rot and flips[1]:
            image = image[::-1]
        if self.rot and flips[2]:
            image = image.swapaxes(0, 1)
        return np.ascontiguousarray(image)


def _extended(image: np.ndarray, side: int) -> np.ndarray:
    """The image with black below and to the right up to `side`; itself where it is large enough."""
    missing = [max(side - length, 0) for length in image.shape[:2]]
    if not any(missing):
        return image
    return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)][: image.ndim])
