"""Floor 2. A rectangle of a PNG without decoding the rest of it.

Three quarters of the time that a PNG takes is inflating it, and nearly all else is undoing its
filters. A rectangle needs no row below it: inflating stops there. A row's filter looks at the row
above and at the pixel to the left, so no pixel right of the rectangle is needed either, and none
above the last row whose filter looks at its own row alone. What is left, still filtered, becomes a
smaller PNG, stored instead of compressed, which any decoder reads at little cost.

PNG specification, third edition (W3C), sections 7 and 9.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
ALONE = 1  # filters up to this one (None, Sub) do not look at the row above


def png_part(data: bytes, top: int, left: int, height: int, width: int) -> tuple[bytes, int] | None:
    """A PNG that holds the rectangle at its bottom right corner, and the row it begins at there.

    `data` is a whole PNG whose structure has been checked, with no transparency declared. None when
    it is neither RGB nor gray of 8 or 16 bits without interlacing, or when its pixels are broken:
    then decode it whole.
    """
    whole_width, whole_height, depth, colour, _, _, interlaced = struct.unpack_from(
        ">IIBBBBB", data, 16
    )
    if colour not in (0, 2) or depth not in (8, 16) or interlaced:
        return None
    pixel = depth // 8 * (3 if colour else 1)
    stride = 1 + whole_width * pixel
    bottom, right = top + height, left + width
    assert bottom <= whole_height and right <= whole_width
    filtered = _inflated(data, bottom * stride)
    if filtered is None:
        return None
    rows = np.frombuffer(filtered, np.uint8).reshape(bottom, stride)
    free = np.flatnonzero(rows[: top + 1, 0] <= ALONE)
    first = int(free[-1]) if free.size else 0
    kept = rows[first:, : 1 + right * pixel].tobytes()
    header = struct.pack(">IIBBBBB", right, bottom - first, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(kept, 0)), (b"IEND", b""))
    return SIGNATURE + b"".join(chunk(name, body) for name, body in chunks), top - first


def _inflated(data: bytes, count: int) -> bytes | None:
    """The first `count` filtered bytes; None when there are fewer or the stream is broken."""
    view, at, inflate = memoryview(data), 8, zlib.decompressobj()
    parts, missing = [], count
    while missing and at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":
            try:
                part = inflate.decompress(view[at + 8 : at + 8 + length], missing)
            except zlib.error:
                return None
            parts.append(part)
            missing -= len(part)
        at += length + 12
    return b"".join(parts) if not missing else None


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG: length, name, body, checksum."""
    crc = zlib.crc32(body, zlib.crc32(name))
    return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", crc)
