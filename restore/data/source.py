"""Floor 3. What every source of image pairs can do, and one that keeps pairs in memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import numpy as np

from restore.data.augment import Draw
from restore.data.pair import Box, ImagePair
from restore.errors import DataError


class Source(Protocol):
    """A sequence of image pairs.

    `files(i)` are the files that pair `i` comes from. `check(i)` raises DataError when pair `i`
    cannot be used, decoding as little as possible, and gives the (height, width) of its GT, or of
    LQ where there is no GT.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> ImagePair: ...
    def files(self, index: int) -> tuple[Path, ...]: ...
    def name(self, index: int) -> str: ...
    def check(self, index: int) -> tuple[int, int]: ...

    def sample(self, index: int, rng: np.random.Generator) -> ImagePair:
        """Pair `index` for training: what a source draws, it draws from `rng`. `self[index]` is
        the same pair at every call."""
        return self[index]

    def part(self, index: int, draw: Draw) -> ImagePair:
        """The patch that `draw` chooses of `sample(index, draw.rng())`. A source that draws nothing
        and can read a part of an image reads no more."""
        return draw.cut(self.sample(index, draw.rng()))


class Partial(Source, Protocol):
    """A source that draws nothing and can read a part of a pair."""

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of the LQ of pair `index`, from its header. Raises DataError."""
        ...

    def region(self, index: int, box: Box) -> ImagePair:
        """What lies inside `box`, in LQ's pixels, of pair `index`. Raises DataError."""
        ...


class Over(Source):
    """A source over another: the same pairs, unless a subclass says otherwise."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        return self._source.name(index)

    def files(self, index: int) -> tuple[Path, ...]:
        return self._source.files(index)

    def check(self, index: int) -> tuple[int, int]:
        return self._source.check(index)

    def __getitem__(self, index: int) -> ImagePair:
        return self._source[index]

    def sample(self, index: int, rng: np.random.Generator) -> ImagePair:
        return self._source.sample(index, rng)


class Extended(Over):
    """A source whose images smaller than the patch get black below and to the right of them."""

    def part(self, index: int, draw: Draw) -> ImagePair:
        try:
            return self._source.part(index, draw)
        except DataError as error:
            if error.problems[0].code != "DAT07":
                raise
        return draw.cut(self._source.sample(index, draw.rng()).extended(draw.gt_size))


class Cached(Over):
    """A source whose decoded pairs are kept in memory up to a limit; the rest is read again.

    For sources that draw nothing: one that draws takes its images from a Cached instead.
    """

    def __init__(self, source: Source, limit: int) -> None:
        super().__init__(source)
        self._limit = self._free = limit
        self._kept: dict[int, ImagePair] = {}
        self._full = False  # a pair did not fit
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Cached], tuple[Source, int]]:
        return Cached, (self._source, self._limit)  # every process has a cache of its own

    def __getitem__(self, index: int) -> ImagePair:
        pair = self._kept.get(index)
        if pair is None:
            pair = self._source[index]
            with self._lock:
                if pair.nbytes > self._free:
                    self._full = True
                elif index not in self._kept:
                    self._kept[index] = pair
                    self._free -= pair.nbytes
        return pair

    def sample(self, index: int, rng: np.random.Generator) -> ImagePair:
        return self[index]

    def part(self, index: int, draw: Draw) -> ImagePair:
        """From memory, read whole while there is room to keep it, else the part alone."""
        if self._full and index not in self._kept:
            return self._source.part(index, draw)
        return draw.cut(self[index])
