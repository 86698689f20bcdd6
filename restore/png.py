"""Floor 2. PNG written and read at a fraction of the usual cost.

Three quarters of the time that a PNG takes is deflate. ISA-L's is three to four times as fast as
zlib's, at a like size, and inflates twice as fast. Rows are written with the filter Up, which a
processor does and undoes many bytes at a time.

A rectangle needs no row below it: inflating stops there. A row's filter looks at the row above and
at the pixel to the left, so no pixel right of the rectangle is needed either, and none above the
last row whose filter looks at its own row alone.

PNG specification, third edition (W3C), sections 5, 7, 9 and 10.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from isal import isal_zlib

from restore.image_kernels import compiled

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">IIBBBBB")  # width, height, depth, colour, three methods
GRAY, RGB = 0, 2  # colour types
ALONE, UP = 1, 2  # filters up to 1 (None, Sub) do not look at the row above
LARGEST_SIDE = 1_000_000  # what libpng, and so nearly every program, reads
STRIP = 64  # rows filtered at a time, so that they stay in the cache
LEVEL = 1


class Encoder:
    """A PNG row by row: its bytes are `head`, what `rows` gives from the top on, and `end`.

    uint8 or uint16, 3 channels (RGB) or 1 (gray); neither side over LARGEST_SIDE.
    """

    def __init__(self, height: int, width: int, channels: int, bits: int) -> None:
        colour = RGB if channels == 3 else GRAY
        self.head = SIGNATURE + _chunk(b"IHDR", HEADER.pack(width, height, bits, colour, 0, 0, 0))
        self._deflate = isal_zlib.compressobj(LEVEL)
        self._above = np.zeros(width * channels * bits // 8, np.uint8)

    def rows(self, image: np.ndarray) -> bytes:
        """The next rows, (h, W[, 3])."""
        return b"".join(
            self._strip(image[top : top + STRIP]) for top in range(0, len(image), STRIP)
        )

    def _strip(self, image: np.ndarray) -> bytes:
        rows = np.ascontiguousarray(image, image.dtype.newbyteorder(">")).view(np.uint8)
        rows = rows.reshape(len(image), -1)
        filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        filtered[:, 0] = UP
        np.subtract(rows[0], self._above, out=filtered[0, 1:])
        np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
        self._above = rows[-1].copy()
        packed = self._deflate.compress(filtered)
        return _chunk(b"IDAT", packed) if packed else b""

    def end(self) -> bytes:
        """What follows the last row."""
        return _chunk(b"IDAT", self._deflate.flush()) + _chunk(b"IEND", b"")


def encode(image: np.ndarray) -> bytes | None:
    """A PNG of uint8 or uint16 `(H, W, 3)` RGB or `(H, W)`; None when a side is too long."""
    height, width = image.shape[:2]
    if max(height, width) > LARGEST_SIDE:
        return None
    encoder = Encoder(height, width, 3 if image.ndim == 3 else 1, 8 * image.itemsize)
    return b"".join([encoder.head, encoder.rows(image), encoder.end()])


@dataclass(frozen=True, eq=False)
class Rows:
    """Filtered rows of RGB, not yet pixels."""

    values: np.ndarray
    """uint8 (H, 1 + W · pixel), rows may be apart: each one's filter, then its bytes."""
    pixel: int
    """Bytes: 3, or 6, which are three numbers of 16 bits."""

    def image(self) -> np.ndarray | None:
        """uint8 or uint16 (H, W, 3); None for an unknown filter and where there is no compiler."""
        library = compiled()
        if library is None:
            return None
        height, count = len(self.values), self.values.shape[1] - 1
        image = np.empty((height, count // self.pixel, 3), f">u{self.pixel // 3}")
        done = library.png_unfilter(
            self.values.ctypes.data,
            self.values.strides[0],
            height,
            count,
            self.pixel,
            image.ctypes.data,
        )
        return image.astype(image.dtype.newbyteorder("="), copy=False) if done else None

    def stored(self) -> bytes:
        """A PNG of them, stored instead of compressed, which any decoder reads at little cost."""
        height, count = len(self.values), self.values.shape[1] - 1
        header = HEADER.pack(count // self.pixel, height, 8 * self.pixel // 3, RGB, 0, 0, 0)
        body = zlib.compress(self.values.tobytes(), 0)
        return SIGNATURE + b"".join(
            _chunk(*c) for c in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
        )


def rows_of(data: bytes, count: int | None = None) -> Rows | None:
    """The first `count` rows, by default all, of a whole PNG whose structure has been checked.

    None for any but RGB of 8 or 16 bits without interlacing, and where its pixels are broken. What
    follows the rows, the stream's own checksum too, is not looked at: chunks have theirs.
    """
    width, height, depth, colour, *methods = HEADER.unpack_from(data, 16)
    if colour != RGB or depth not in (8, 16) or any(methods) or max(width, height) > LARGEST_SIDE:
        return None
    pixel, wanted = 3 * depth // 8, height if count is None else count
    assert wanted <= height
    inflate, parts, missing = isal_zlib.decompressobj(), [], wanted * (1 + width * pixel)
    try:
        for piece in _pixel_chunks(data):
            parts.append(inflate.decompress(piece, missing))
            missing -= len(parts[-1])
            if not missing:
                values = np.frombuffer(b"".join(parts), np.uint8)
                return Rows(values.reshape(wanted, -1), pixel)
    except isal_zlib.error:  # pyright: ignore  (its stub takes it for an instance)
        pass
    return None


def part_of(data: bytes, top: int, left: int, height: int, width: int) -> tuple[Rows, int] | None:
    """Rows with a rectangle of a PNG at their bottom right corner, and the row it begins at there.

    None as in `rows_of`; the file below the rectangle is not looked at.
    """
    found = rows_of(data, top + height)
    if found is None:
        return None
    free = np.flatnonzero(found.values[: top + 1, 0] <= ALONE)
    first = int(free[-1]) if free.size else 0
    kept = found.values[first:, : 1 + (left + width) * found.pixel]
    return Rows(kept, found.pixel), top - first


def _chunk(name: bytes, body: bytes) -> bytes:
    crc = isal_zlib.crc32(body, isal_zlib.crc32(name))
    return b"".join([struct.pack(">I4s", len(body), name), body, struct.pack(">I", crc)])


def _pixel_chunks(data: bytes) -> Iterator[memoryview]:
    view, at = memoryview(data), len(SIGNATURE)
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":
            yield view[at + 8 : at + 8 + length]
        at += length + 12
