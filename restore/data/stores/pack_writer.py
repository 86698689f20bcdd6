"""Floor 3. Writing a pack: aside, synced, renamed; see `pack` for the format."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from restore.data.stores.pack import (
    HEADER,
    INDEX,
    NAMES,
    PIXELS,
    RECORDS,
    VERSION,
    tiled,
)


def write_pack(
    folder: Path, names: Sequence[str], read: Callable[[int], np.ndarray], *, tiles: bool
) -> int:
    """Make the pack `folder`, which must not exist, of the images `read(i)` called `names[i]`.

    Returns the bytes of its pixels. Raises what `read` raises; nothing is left of it then.
    """
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        records = np.zeros(len(names), INDEX)
        with open(aside / PIXELS, "wb") as file:
            for index in range(len(names)):
                records[index] = _put(file, read(index), tiles)
            size = file.tell()
            _sync(file)
        held = {
            NAMES: "".join(f"{name}\0" for name in names).encode("utf-8", "surrogateescape"),
            RECORDS: records.tobytes(),
        }
        header = {"version": VERSION, "layout": "tiles" if tiles else "rows", "images": len(names)}
        header |= {f"{name} crc32": zlib.crc32(body) for name, body in held.items()}
        held[HEADER] = (json.dumps(header, indent=2) + "\n").encode()
        for name, body in held.items():
            with open(aside / name, "wb") as file:
                file.write(body)
                _sync(file)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    publish(aside, folder)
    return size


def publish(aside: Path, folder: Path) -> None:
    """Give a finished folder its name, on disk before this returns."""
    os.rename(aside, folder)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _put(file: BinaryIO, image: np.ndarray, tiles: bool) -> tuple[int, ...]:
    """Append an image; its INDEX record."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    stored = image.astype(image.dtype.newbyteorder("<"), copy=False)
    flat = tiled(stored) if tiles else np.ascontiguousarray(stored)
    offset, body = file.tell(), flat.data.cast("B")
    file.write(body)
    height, width = image.shape[:2]
    return offset, height, width, channels, image.dtype.itemsize, zlib.crc32(body)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
