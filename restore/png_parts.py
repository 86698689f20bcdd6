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

from restore.png import GRAY, RGB, assembled, inflated

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
    if colour not in (GRAY, RGB) or depth not in (8, 16) or interlaced:
        return None
    pixel = depth // 8 * (3 if colour == RGB else 1)
    stride = 1 + whole_width * pixel
    bottom, right = top + height, left + width
    assert bottom <= whole_height and right <= whole_width
    filtered = inflated(data, bottom * stride)
    if filtered is None:
        return None
    rows = np.frombuffer(filtered, np.uint8).reshape(bottom, stride)
    free = np.flatnonzero(rows[: top + 1, 0] <= ALONE)
    first = int(free[-1]) if free.size else 0
    kept = rows[first:, : 1 + right * pixel].tobytes()
    return assembled(right, bottom - first, depth, colour, zlib.compress(kept, 0)), top - first
