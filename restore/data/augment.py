"""Floor 3. Random crops and flips: all chance of a sample is a function of (seed, epoch, index).

Crops and flips need few numbers of many samples, so they come from a hash that is computed for a
whole batch at once (SplitMix64, Steele et al., OOPSLA 2014), which costs a tenth of a generator
for each sample. A degradation needs many numbers of one sample: it gets a generator of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from restore.data.pair import Box, ImagePair
from restore.errors import DataError

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the step of SplitMix64
WORDS = 3  # 64-bit numbers a sample: row, column, flips
ROWS, COLUMNS = 0, 1  # what OpenCV turns round


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one sample's degradation: a pure function of (seed, epoch, index)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, index))))


def sample_words(seed: int, epochs: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """`(n, WORDS)` uint64, uniform, each row a pure function of (seed, epoch, index)."""
    with np.errstate(over="ignore"):
        state = _mixed(np.uint64(seed & 0xFFFFFFFFFFFFFFFF) + GOLDEN)
        for key in (epochs, indices):
            state = _mixed((state ^ key.astype(np.uint64)) + GOLDEN)
        steps = np.arange(1, WORDS + 1, dtype=np.uint64) * GOLDEN
        return _mixed(state[:, None] + steps)


def _mixed(z: np.ndarray | np.uint64) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))  # pyright: ignore[reportReturnType]


class Turn(NamedTuple):
    """Flips, then a transposition: together the eight orientations of a square."""

    hflip: bool
    vflip: bool
    transposed: bool

    def of(self, image: np.ndarray, out: np.ndarray) -> None:
        """Write the turned square `image`, (S, S[, C]), into `out` of its shape and type."""
        hflip, vflip, transposed = self
        # Rows are copied before anything else: to turn a part of a large image where it lies is
        # two to three times slower, as every row of it is another page. Their order costs nothing.
        rows = image[::-1] if vflip else image
        if transposed:
            cv2.transpose(np.ascontiguousarray(rows), out)
        else:
            np.copyto(out, rows)
        if hflip:
            cv2.flip(out, ROWS if transposed else COLUMNS, out)

    def turned(self, image: np.ndarray) -> np.ndarray:
        """The turned square as a new array."""
        out = np.empty_like(image, order="C")
        self.of(image, out)
        return out

    def undone(self) -> Turn:
        """The turn that leads back."""
        hflip, vflip, transposed = self
        return Turn(vflip, hflip, True) if transposed else self


class Draw(NamedTuple):
    """What chance decides of one sample: where GT is cut to `gt_size`, how it is turned, and a
    generator for whatever else its source draws.

    `hflip` allows horizontal flips, `rot` vertical ones and quarter turns. What is drawn does not
    depend on either: an option changes no other draw.
    """

    key: tuple[int, int, int]
    words: Sequence[int]
    gt_size: int
    hflip: bool = True
    rot: bool = True

    def rng(self) -> np.random.Generator:
        """A generator for the sample's degradation."""
        return sample_rng(*self.key)

    def box(self, name: str, height: int, width: int, scale: int) -> Box:
        """The patch of an LQ of `height` × `width`, in its pixels. Raises DataError DAT07."""
        side = self.gt_size // scale
        if height < side or width < side:
            raise DataError.of(
                "DAT07",
                "image smaller than the training patch",
                name,
                f"GT {width * scale}×{height * scale}",
                f"sides of at least {self.gt_size}",
                "use a smaller gt_size, set pad_small, or leave the image out",
            )
        row, column, _ = self.words  # the upper 32 bits as a fraction of the places there are
        top = (row >> 32) * (height - side + 1) >> 32
        return Box(top, (column >> 32) * (width - side + 1) >> 32, side, side)

    def cut(self, pair: ImagePair) -> ImagePair:
        """The patch of a pair that lies in memory. Raises DataError DAT07."""
        height, width = pair.lq.shape[:2]
        return pair.part(self.box(pair.name, height, width, pair.scale))

    def turn(self) -> Turn:
        """How the patch is turned."""
        bits, rot = self.words[2] >> 61, self.rot
        return Turn(self.hflip and bool(bits & 1), rot and bool(bits & 2), rot and bool(bits & 4))
