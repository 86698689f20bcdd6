"""Floor 3. The tiles of a pack: how an image is cut into them, packed, and put together again.

Tiles of 128 × 128 (fewer at the right and bottom) stand row of tiles by row of tiles, so that a
part of an image is one read a row of tiles. `raw`: the values. Else each is packed by itself, after
red and blue have been replaced by their differences from green, and every value by its difference
from its left neighbour: about half the bytes, at the price of unpacking whole tiles.
"""

from __future__ import annotations

import importlib
import math
import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from restore import images
from restore.data.pair import Box
from restore.data.stores.store import Held
from restore.errors import BackendError, DataError

TILE = 128
CODECS = ("raw", "zlib", "zstd")
Shape = tuple[int, int, int, int]
"""height, width, channels, bytes of a value"""
Unpack = Callable[[bytes, int], bytes]
"""(packed, size) -> `size` bytes. Raises whatever the codec raises, and ValueError for another
size, of which no more than that is unpacked: a kB could hold a GB."""


class Packing(NamedTuple):
    """Packing and unpacking bytes."""

    pack: Callable[[bytes], bytes]
    unpack: Unpack


def packing(codec: str) -> Packing | None:
    """The functions of a codec, None for `raw`. Raises BackendError when its package is missing."""
    if codec == "raw":
        return None
    if codec == "zlib":
        return Packing(lambda data: zlib.compress(data, 1), _inflated)
    for name, unpack in (("compression.zstd", _pythons_zstd), ("zstandard", _packages_zstd)):
        try:
            module: Any = importlib.import_module(name)
        except ImportError:
            continue
        return Packing(partial(_zstd, module.compress), partial(unpack, module))
    raise BackendError.of(
        "DAT36",
        "no zstd for this pack",
        "the Python packages",
        "neither compression.zstd nor zstandard",
        "one of them",
        "pip install zstandard, or make the pack with --codec zlib",
    )


def _zstd(compress: Callable[[bytes, int], bytes], data: bytes) -> bytes:
    return compress(data, 3)


def _inflated(data: bytes, size: int) -> bytes:
    inflate = zlib.decompressobj()
    flat = inflate.decompress(data, size + 1)
    _check_end(inflate.eof and not inflate.unused_data, flat, size)
    return flat


def _pythons_zstd(module: Any, data: bytes, size: int) -> bytes:
    """By Python's own module, from 3.14 on."""
    inflate = module.ZstdDecompressor()
    flat = inflate.decompress(data, size + 1)
    _check_end(inflate.eof and not inflate.unused_data, flat, size)
    return flat


def _packages_zstd(module: Any, data: bytes, size: int) -> bytes:
    """By the package, whose `decompress` takes whatever size a frame claims."""
    if module.get_frame_parameters(data).content_size != size:
        raise ValueError(f"a frame that is not of {size} bytes")
    return module.ZstdDecompressor().decompress(data, size, allow_extra_data=False)


def _check_end(ended: bool, flat: bytes, size: int) -> None:
    """Raises ValueError unless `size` bytes and nothing else were packed."""
    if len(flat) != size:
        raise ValueError(f"{len(flat)} bytes{' or more' * (len(flat) > size)}, not {size}")
    if not ended:
        raise ValueError("bytes that do not end where they should")


class OpenFile:
    """A file open for reading while anyone holds this. Raises OSError."""

    __slots__ = ("number",)

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def read(self, count: int, offset: int) -> bytes:
        """Exactly `count` bytes; a pack's size was checked when it was opened."""
        read = os.pread(self.number, count, offset)
        while len(read) < count:  # one call gives at most 2 GiB
            more = os.pread(self.number, count - len(read), offset + len(read))
            if not more:
                raise OSError(f"a pack was cut short while in use, at byte {offset + len(read)}")
            read += more
        return read


class Tiles(Held):
    """An image in tiles. `ends`: where each of its packed tiles ends in the file, the first entry
    being where the first one begins; None for raw tiles, whose places follow from the shape."""

    __slots__ = ("_ends", "_file", "_offset", "_replicate", "_shape", "_unpack", "_where")

    def __init__(
        self, file: OpenFile, offset: int, shape: Shape, ends: np.ndarray | None,
        unpack: Unpack | None, replicate: bool, where: str,
    ) -> None:  # fmt: skip
        self._file, self._offset, self._shape = file, offset, shape
        self._ends, self._unpack = ends, unpack
        self._replicate, self._where = replicate, where

    @property
    def size(self) -> tuple[int, int]:
        return self._shape[:2]

    def part(self, box: Box) -> np.ndarray:
        top, left, height, width = box
        down, _, channels, depth = self._shape
        out = np.empty((height, width, channels), np.uint8 if depth == 1 else np.dtype("<u2"))
        begin, end = left // TILE, -(-(left + width) // TILE)
        for first in range(top - top % TILE, top + height, TILE):
            tall = min(TILE, down - first)
            rows = slice(max(top, first) - first, min(top + height, first + tall) - first)
            into = out[first + rows.start - top : first + rows.stop - top]
            for number, tile in enumerate(self._row(first, tall, begin, end, out.dtype), begin):
                start = number * TILE
                low, high = max(left, start), min(left + width, start + tile.shape[1])
                into[:, low - left : high - left] = tile[rows, low - start : high - start]
        image = out if channels == 3 else out[..., 0]
        return images.as_rgb(image) if self._replicate else image

    def _row(
        self, first: int, tall: int, begin: int, end: int, kind: np.dtype
    ) -> Iterator[np.ndarray]:
        """Tiles `begin` to `end` of the row of tiles whose top row is `first`."""
        _, across, channels, depth = self._shape
        wide = [min(TILE, across - number * TILE) for number in range(begin, end)]
        if self._ends is None or self._unpack is None:
            pixel = channels * depth
            at = self._offset + (first * across + tall * begin * TILE) * pixel
            row = np.frombuffer(self._file.read(tall * sum(wide) * pixel, at), kind)
            ends = np.cumsum([tall * columns * channels for columns in wide])
            for columns, stop in zip(wide, ends.tolist(), strict=True):
                yield row[stop - tall * columns * channels : stop].reshape(tall, columns, channels)
            return
        number = first // TILE * -(-across // TILE)
        ends = self._ends[number + begin : number + end + 1].tolist()
        row = self._file.read(ends[-1] - ends[0], ends[0])
        for columns, start, stop in zip(wide, ends[:-1], ends[1:], strict=True):
            packed = row[start - ends[0] : stop - ends[0]]
            yield self._unpacked(packed, (tall, columns, channels), kind)

    def _unpacked(self, packed: bytes, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
        assert self._unpack is not None
        try:
            flat = self._unpack(packed, math.prod(shape) * kind.itemsize)
            return undone(np.frombuffer(flat, kind).reshape(shape))
        except Exception as error:  # each codec has its own kind
            raise DataError.of(
                "DAT10",
                "an image of the pack is damaged",
                self._where,
                f"{type(error).__name__}: {error}",
                "tiles that can be unpacked",
                "make the pack again",
            ) from None


def tiles_of(image: np.ndarray) -> Iterator[np.ndarray]:
    """The tiles of (H, W[, C]), contiguous, in a pack's order."""
    height, width = image.shape[:2]
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            yield np.ascontiguousarray(image[top : top + TILE, left : left + TILE])


def done(tile: np.ndarray) -> np.ndarray:
    """Differences from green, then from the left neighbour; all modulo the type."""
    out = tile.copy()
    if out.ndim == 3 and out.shape[2] == 3:
        out[..., ::2] -= tile[..., 1:2]
    out[:, 1:] -= out[:, :-1].copy()
    return out


def undone(packed: np.ndarray) -> np.ndarray:
    """(H, W, C) from what `done` made of it."""
    out = np.cumsum(packed, axis=1, dtype=packed.dtype)
    if out.shape[2] == 3:
        out[..., ::2] += out[..., 1:2]
    return out


def count_of(shape: Shape) -> int:
    """How many tiles an image has."""
    return -(-shape[0] // TILE) * -(-shape[1] // TILE)
