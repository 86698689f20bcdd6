"""The pictures behind `data.Rectangles`, as a `Source`."""

from pathlib import Path

import numpy as np

from restore.data.degradations.build import build_degradation
from restore.data.pair import ImagePair
from restore.data.pairs import DegradedImages
from restore.data.source import Source
from scratches.data import Rectangles


class Pictures(Source):
    """Clean pictures `first`, `first` + 1, …; a picture's number alone decides what is on it."""

    def __init__(self, first: int, count: int, side: int) -> None:
        self._first, self._count, self._side = first, count, side

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f"rectangles_{self._first + index:06d}"

    def files(self, index: int) -> tuple[Path, ...]:
        return (Path(self.name(index)),)

    def check(self, index: int) -> tuple[int, int]:
        return self._side, self._side

    def __getitem__(self, index: int) -> ImagePair:
        rng = np.random.default_rng(self._first + index)
        image = np.empty((self._side, self._side, 3), np.uint8)
        image[:] = rng.integers(0, 200, 3)
        for _ in range(12):
            top, left = rng.integers(0, self._side, 2)
            height, width = rng.integers(8, self._side // 2, 2)
            image[top : top + height, left : left + width] = rng.integers(0, 200, 3)
        return ImagePair(self.name(index), image, None, 1)


def rectangles(options: Rectangles, scale: int) -> Source:
    """Pairs of the options' pictures; LQ by their degradation, anew at every use in training."""
    pictures = Pictures(options.first, options.count, options.side)
    return DegradedImages(pictures, build_degradation(options.degradation, scale), scale)
