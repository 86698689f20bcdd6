"""Floor 3. A pack: decoded images in one file, of which a crop reads only what it covers.

    pack.json    version, layout, counts, checksums of the small files
    names.txt    the images' names, ended by NUL, sorted
    index.bin    one INDEX record an image
    pixels.bin   the pixels, HWC RGB or HW gray, uint8 or little-endian uint16
    tiles.bin    of packed tiles only: 0, and where each tile ends in pixels.bin, as <u8

`rows`: images row by row, used through a memory map; the faster one while the pack fits in memory.
`tiles`: images as tiles of 128 × 128 (fewer at the right and bottom), row of tiles by row of tiles,
so that a crop is one read a row of tiles; the faster one from a cold disk. Tiles may be packed by a
codec (see `pack_tiles`), where the disk is small.

The header's checksums are looked at when a pack is opened, an image's by `check`.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import threading
import zlib
from itertools import accumulate, starmap
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from restore import images
from restore.data.pair import Box
from restore.data.stores.pack_tiles import CODECS, OpenFile, Shape, Tiles, count_of, packing
from restore.data.stores.sealed import Sealed
from restore.data.stores.store import Held, Store
from restore.errors import DataError
from restore.image_flaws import flaw

VERSION = 1
HEADER, RECORDS, PIXELS, ENDS = "pack.json", "index.bin", "pixels.bin", "tiles.bin"
INDEX = np.dtype(
    [("offset", "<u8"), ("height", "<u4"), ("width", "<u4"), ("channels", "u1"), ("depth", "u1"),
     ("crc32", "<u4")]
)  # fmt: skip
RECORD = struct.Struct("<QIIBBI")  # one of them, without numpy: much the faster for a single one


class Pack(Store):
    """The images of a pack. Raises DataError when it is not whole."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root)
        sealed = Sealed(self.root, "pack", HEADER, VERSION, lambda n: Path(root, n).read_bytes())
        self.names = sealed.names()
        layout = sealed.facts.get("layout")
        if layout not in ("rows", "tiles"):
            raise sealed.damaged(f"layout {layout}")
        self.tiled = layout == "tiles"
        records = _records(sealed, len(self.names))
        self._records = records.tobytes()
        sides = (records[key].tolist() for key in ("height", "width", "channels", "depth"))
        shapes: list[Shape] = list(zip(*sides, strict=True))
        codec = str(sealed.facts.get("codec", "raw"))
        if codec not in CODECS or not self.tiled and codec != "raw":
            raise sealed.damaged(f"codec {codec} of {layout}")
        self._packing = packing(codec)
        self._first_tile = [0, *accumulate(map(count_of, shapes))]
        self._ends = _ends(sealed, self._first_tile[-1]) if self._packing else None
        try:
            file = OpenFile(os.path.join(self.root, PIXELS))
            lengths = starmap(self._length, enumerate(shapes))
            *begins, size = accumulate(lengths, initial=0)
            if records["offset"].tolist() != begins:
                raise sealed.damaged(f"images in {RECORDS} that do not follow each other")
            found = os.fstat(file.number).st_size
            if found != size:
                raise sealed.damaged(f"{PIXELS} of {found} bytes instead of {size}")
            # a map has a descriptor of its own: no pack keeps more than one
            self._pixels = file if self.tiled else _mapped(file)
        except OSError as error:
            raise sealed.unopened(PIXELS, error) from None

    def __reduce__(self) -> tuple[object, ...]:
        return open_pack, (self.root,)  # a worker process opens it itself

    def _record(self, index: int) -> tuple[int, Shape, int]:
        """Offset, shape and crc32 of image `index`. They stay packed: as lists of numbers those of
        a large set fill ten times the memory, and a sample waits for each to come from there."""
        found = RECORD.unpack_from(self._records, index * RECORD.size)
        offset, height, width, channels, depth, crc32 = found
        return offset, (height, width, channels, depth), crc32

    def held(self, index: int, channels: int | None) -> Held:
        offset, shape, _ = self._record(index)
        if channels == 1 and shape[2] == 3:
            raise flaw(
                "IMG05", self.where(index), "an RGB image", "a gray one",
                "convert it, or set channels to 3",
            )  # fmt: skip
        replicate = channels == 3 and shape[2] == 1
        if isinstance(self._pixels, mmap.mmap):
            return _Rows(self._pixels, offset, shape, replicate)
        return Tiles(
            self._pixels,
            offset,
            shape,
            self._ends_of(index),
            self._packing.unpack if self._packing else None,
            replicate,
            self.where(index),
        )

    def _ends_of(self, index: int) -> np.ndarray | None:
        if self._ends is None:
            return None
        return self._ends[self._first_tile[index] : self._first_tile[index + 1] + 1]

    def _length(self, index: int, shape: Shape) -> int:
        """Bytes that image `index` takes in the file."""
        ends = self._ends_of(index)
        return math.prod(shape) if ends is None else int(ends[-1]) - int(ends[0])

    def check(self, index: int, channels: int | None) -> tuple[int, int]:
        size = self.held(index, channels).size
        self.verify(index)
        return size

    def verify(self, index: int) -> None:
        """Compare image `index` with its checksum. Raises DataError DAT10."""
        offset, shape, crc32 = self._record(index)
        count = self._length(index, shape)
        if isinstance(self._pixels, mmap.mmap):
            stored = memoryview(self._pixels)[offset : offset + count]
        else:
            stored = self._pixels.read(count, offset)
        if zlib.crc32(stored) != crc32:
            raise DataError.of(
                "DAT10",
                "an image of the pack is damaged",
                self.where(index),
                "other bytes than were written",
                f"crc32 {crc32:08x}",
                "make the pack again",
            )


_opened: WeakValueDictionary[tuple[str, int, int, int], Pack] = WeakValueDictionary()
_opening = threading.Lock()


def open_pack(root: str | os.PathLike[str]) -> Pack:
    """The pack at `root`; while it is in use in this process, the one already open. Raises
    DataError."""
    try:
        header = os.stat(os.path.join(root, HEADER))  # names all else by checksum
    except OSError:
        return Pack(root)  # says what is wrong
    key = os.fspath(root), header.st_dev, header.st_ino, header.st_mtime_ns
    with _opening:
        pack = _opened.get(key)
        if pack is None:
            pack = _opened[key] = Pack(root)
        return pack


def _mapped(file: OpenFile) -> mmap.mmap:
    return mmap.mmap(file.number, 0, access=mmap.ACCESS_READ)


class _Rows(Held):
    """An image in the memory map: its parts are views, read when they are looked at."""

    __slots__ = ("_map", "_offset", "_replicate", "_shape")

    def __init__(self, mapped: mmap.mmap, offset: int, shape: Shape, replicate: bool) -> None:
        self._map, self._offset, self._shape = mapped, offset, shape
        self._replicate = replicate

    @property
    def size(self) -> tuple[int, int]:
        return self._shape[:2]

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


def _records(sealed: Sealed, count: int) -> np.ndarray:
    """The INDEX records of `count` images. Raises DataError when they cannot be those of images."""
    body = sealed.read(RECORDS)
    if len(body) != count * INDEX.itemsize:
        raise sealed.damaged(f"{len(body)} bytes in {RECORDS} for {count} images")
    records = np.frombuffer(body, INDEX)
    for key, known in (("channels", (1, 3)), ("depth", (1, 2))):
        if not np.isin(records[key], known).all():
            raise sealed.damaged(f"{key} in {RECORDS} other than {known}")
    if not (records["height"].all() and records["width"].all()):
        raise sealed.damaged(f"an image without pixels in {RECORDS}")
    return records


def _ends(sealed: Sealed, tiles: int) -> np.ndarray:
    """0 and where each of `tiles` packed tiles ends. Raises DataError when that cannot be."""
    body = sealed.read(ENDS)
    ends = np.frombuffer(body, "<u8", len(body) // 8)
    if len(body) != 8 * (tiles + 1) or ends[0] or (ends[1:] < ends[:-1]).any():
        raise sealed.damaged(f"ends of other tiles than those of the images in {ENDS}")
    return ends
