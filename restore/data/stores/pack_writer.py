"""Floor 3. Writing a pack; see `pack` for the format."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from restore.data.stores.pack import HEADER, INDEX, PIXELS, RECORDS, VERSION, tiled
from restore.data.stores.sealed import seal, sealed_folder, synced


def write_pack(
    folder: Path, names: Sequence[str], read: Callable[[int], np.ndarray], *, tiles: bool
) -> int:
    """Make the pack `folder`, which must not exist, of the images `read(i)` called `names[i]`.

    Returns the bytes of its pixels. Raises what `read` raises; nothing is left of it then.
    """
    records = np.zeros(len(names), INDEX)
    with sealed_folder(folder) as aside:
        with open(aside / PIXELS, "wb") as file:
            for index in range(len(names)):
                records[index] = _put(file, read(index), tiles)
            size = file.tell()
            synced(file)
        facts = {"version": VERSION, "layout": "tiles" if tiles else "rows", "images": len(names)}
        seal(aside, HEADER, facts, names, {RECORDS: records.tobytes()})
    return size


def _put(file: BinaryIO, image: np.ndarray, tiles: bool) -> tuple[int, ...]:
    """Append an image; its INDEX record."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    stored = image.astype(image.dtype.newbyteorder("<"), copy=False)
    flat = tiled(stored) if tiles else np.ascontiguousarray(stored)
    offset, body = file.tell(), flat.data.cast("B")
    file.write(body)
    height, width = image.shape[:2]
    return offset, height, width, channels, image.dtype.itemsize, zlib.crc32(body)
