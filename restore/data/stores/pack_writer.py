"""Floor 3. Writing a pack; see `pack` for the format."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from restore.data.stores.pack import ENDS, HEADER, INDEX, PIXELS, RECORDS, VERSION
from restore.data.stores.pack_tiles import done, packing, tiles_of
from restore.data.stores.sealed import seal, sealed_folder, synced


def write_pack(
    folder: Path,
    names: Sequence[str],
    read: Callable[[int], np.ndarray],
    *,
    tiles: bool,
    codec: str = "raw",
) -> int:
    """Make the pack `folder`, which must not exist, of the images `read(i)` called `names[i]`.

    `codec`: one of `pack_tiles.CODECS`, other than raw for tiles only. Returns the bytes of its
    pixels. Raises what `read` raises; nothing is left of it then.
    """
    assert tiles or codec == "raw"
    records, how, ends = np.zeros(len(names), INDEX), packing(codec), [0]
    with sealed_folder(folder) as aside:
        with open(aside / PIXELS, "wb") as file:
            for index in range(len(names)):
                image = read(index)
                crc, offset = 0, file.tell()
                for part in _parts(image, tiles):
                    body = how.pack(done(part).tobytes()) if how else part.data.cast("B")
                    file.write(body)
                    crc = zlib.crc32(body, crc)
                    ends.append(ends[-1] + len(body))
                channels = 1 if image.ndim == 2 else image.shape[2]
                shape = (*image.shape[:2], channels, image.dtype.itemsize)
                records[index] = (offset, *shape, crc)
            size = file.tell()
            synced(file)
        layout = "tiles" if tiles else "rows"
        facts = {"version": VERSION, "layout": layout, "codec": codec, "images": len(names)}
        files = {RECORDS: records.tobytes()}
        if how:
            files[ENDS] = np.array(ends, "<u8").tobytes()
        seal(aside, HEADER, facts, names, files)
    return size


def _parts(image: np.ndarray, tiles: bool) -> Iterator[np.ndarray]:
    """What is written of an image, one after the other: tiles, or all of it; contiguous."""
    stored = image.astype(image.dtype.newbyteorder("<"), copy=False)
    return tiles_of(stored) if tiles else iter([np.ascontiguousarray(stored)])
