"""Floor 3. A pack: decoded images in one file, of which a crop reads only what it covers.

    pack.json    version, layout, counts, checksums of the other two
    names.txt    the images' names, ended by NUL, sorted
    index.bin    one INDEX record an image
    pixels.bin   the pixels, HWC RGB or HW gray, uint8 or little-endian uint16

`rows`: images row by row, used through a memory map; the faster one while the pack fits in memory.
`tiles`: images as tiles of 128 × 128 (fewer at the right and bottom), row of tiles by row of tiles,
so that a crop is one read a row of tiles; the faster one from a cold disk.

The header's checksums are looked at when a pack is opened, an image's by `check`.
"""

from __future__ import annotations

import mmap
import os
import zlib
from pathlib import Path

import numpy as np

from restore import images
from restore.data.pair import Box
from restore.data.stores.sealed import Sealed
from restore.data.stores.store import Held, Store
from restore.errors import DataError
from restore.image_headers import flaw

VERSION = 1
TILE = 128
HEADER, RECORDS, PIXELS = "pack.json", "index.bin", "pixels.bin"
INDEX = np.dtype(
    [("offset", "<u8"), ("height", "<u4"), ("width", "<u4"), ("channels", "u1"), ("depth", "u1"),
     ("crc32", "<u4")]
)  # fmt: skip
Shape = tuple[int, int, int, int]
"""height, width, channels, bytes of a value"""


class Pack(Store):
    """The images of a pack. Raises DataError when it is not whole."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root)
        sealed = Sealed(self.root, "pack", HEADER, VERSION, lambda n: Path(root, n).read_bytes())
        self.names = sealed.names()
        self.tiled = sealed.facts.get("layout") == "tiles"
        records = np.frombuffer(sealed.read(RECORDS), INDEX)
        sides = (records[key].tolist() for key in ("height", "width", "channels", "depth"))
        self._shapes: list[Shape] = list(zip(*sides, strict=True))
        self._offsets: list[int] = records["offset"].tolist()
        self._crcs: list[int] = records["crc32"].tolist()
        try:
            self._file = os.open(os.path.join(self.root, PIXELS), os.O_RDONLY)
        except OSError as error:
            raise sealed.damaged(f"{PIXELS}: {error}") from None
        found, size = os.fstat(self._file).st_size, sum(map(_bytes_of, self._shapes))
        if found != size:
            raise sealed.damaged(f"{PIXELS} of {found} bytes instead of {size}")
        self._map = None if self.tiled else mmap.mmap(self._file, 0, access=mmap.ACCESS_READ)

    def __reduce__(self) -> tuple[type[Pack], tuple[str]]:
        return Pack, (self.root,)  # a worker process opens it itself

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def held(self, index: int, channels: int | None) -> Held:
        shape = self._shapes[index]
        if channels == 1 and shape[2] == 3:
            raise flaw(
                "IMG05", self.where(index), "an RGB image", "a gray one",
                "convert it, or set channels to 3",
            )  # fmt: skip
        replicate = channels == 3 and shape[2] == 1
        if self._map is not None:
            return _Rows(self._map, self._offsets[index], shape, replicate)
        return _Tiles(self._file, self._offsets[index], shape, replicate, self.where(index))

    def check(self, index: int, channels: int | None) -> tuple[int, int]:
        size = self.held(index, channels).size
        self.verify(index)
        return size

    def verify(self, index: int) -> None:
        """Compare image `index` with its checksum. Raises DataError DAT10."""
        stored = _pread(self._file, _bytes_of(self._shapes[index]), self._offsets[index])
        if zlib.crc32(stored) != self._crcs[index]:
            raise DataError.of(
                "DAT10",
                "an image of the pack is damaged",
                self.where(index),
                "other bytes than were written",
                f"crc32 {self._crcs[index]:08x}",
                "make the pack again",
            )


class _Rows(Held):
    """An image in the memory map: its parts are views, read when they are looked at."""

    __slots__ = ("_map", "_offset", "_replicate", "_shape")

    def __init__(self, mapped: mmap.mmap, offset: int, shape: Shape, replicate: bool) -> None:
        self._map, self._offset, self._shape = mapped, offset, shape
        self._replicate = replicate

    @property
    def size(self) -> tuple[int, int]:
        return self._shape[:2]

    def whole(self) -> np.ndarray:
        return self.part(Box(0, 0, *self._shape[:2]))

    def part(self, box: Box) -> np.ndarray:
        top, left, height, width = box
        _, across, channels, depth = self._shape
        pixel = channels * depth
        begin = self._offset + (top * across + left) * pixel
        kind = np.uint8 if depth == 1 else np.dtype("<u2")
        if channels == 3:
            strides = (across * pixel, pixel, depth)
            return np.ndarray((height, width, 3), kind, self._map, begin, strides)
        gray = np.ndarray((height, width), kind, self._map, begin, (across * pixel, depth))
        return images.as_rgb(np.ascontiguousarray(gray)) if self._replicate else gray


class _Tiles(Held):
    """An image in tiles: a part is one read for each row of tiles it touches."""

    __slots__ = ("_file", "_offset", "_replicate", "_shape", "_where")

    def __init__(self, file: int, offset: int, shape: Shape, replicate: bool, where: str) -> None:
        self._file, self._offset, self._shape = file, offset, shape
        self._replicate, self._where = replicate, where

    @property
    def size(self) -> tuple[int, int]:
        return self._shape[:2]

    def whole(self) -> np.ndarray:
        return self.part(Box(0, 0, *self._shape[:2]))

    def part(self, box: Box) -> np.ndarray:
        top, left, height, width = box
        down, across, channels, depth = self._shape
        kind = np.uint8 if depth == 1 else np.dtype("<u2")
        out = np.empty((height, width, channels), kind)
        begin = left - left % TILE
        end = min(across, -(-(left + width) // TILE) * TILE)
        for first in range(top - top % TILE, top + height, TILE):
            tall = min(TILE, down - first)
            at = (first * across + tall * begin) * channels * depth
            count = tall * (end - begin) * channels * depth
            row = np.frombuffer(_pread(self._file, count, self._offset + at), kind)
            rows = slice(max(top, first) - first, min(top + height, first + tall) - first)
            into = out[first + rows.start - top : first + rows.stop - top]
            _untile(row, tall, begin, end, channels, rows, left, into)
        image = out if channels == 3 else out[..., 0]
        return images.as_rgb(image) if self._replicate else image


def _untile(
    row: np.ndarray, tall: int, begin: int, end: int, channels: int,
    rows: slice, left: int, into: np.ndarray,
) -> None:  # fmt: skip
    """Copy `rows` of a row of tiles that covers columns `begin` to `end` of the image to `into`,
    whose first column is `left`."""
    right, at = left + into.shape[1], 0
    for column in range(begin, end, TILE):
        wide = min(TILE, end - column)
        size = tall * wide * channels
        tile = row[at : at + size].reshape(tall, wide, channels)
        low, high = max(left, column), min(right, column + wide)
        into[:, low - left : high - left] = tile[rows, low - column : high - column]
        at += size


def tiled(image: np.ndarray) -> np.ndarray:
    """The values of `image`, (H, W[, C]), in the order of a tiled pack, flat."""
    height, width = image.shape[:2]
    return np.concatenate(
        [
            image[top : top + TILE, left : left + TILE].reshape(-1)
            for top in range(0, height, TILE)
            for left in range(0, width, TILE)
        ]
    )


def _bytes_of(shape: Shape) -> int:
    height, width, channels, depth = shape
    return height * width * channels * depth


def _pread(file: int, count: int, offset: int) -> bytes:
    """Exactly `count` bytes; a pack's size was checked when it was opened."""
    read = os.pread(file, count, offset)
    while len(read) < count:  # one call gives at most 2 GiB
        more = os.pread(file, count - len(read), offset + len(read))
        if not more:
            raise OSError(f"a pack was cut short while in use, at byte {offset + len(read)}")
        read += more
    return read
