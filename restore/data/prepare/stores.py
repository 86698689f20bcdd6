"""Floor 3. Folders of images into a store that a training run reads faster.

    OUT/gt.pack     OUT/lq.pack     decoded: see data/stores/pack
    OUT/gt.lmdb     OUT/lq.lmdb     the files themselves, in BasicSR's layout
    OUT/gt.shards   OUT/lq.shards   the files themselves, in tar archives with an index

Each side is made aside and renamed when it is whole, so a killed run leaves nothing that could be
taken for a store; a store that is there already is checked and kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from restore import images
from restore.data.prepare.space import require_room
from restore.data.stores.lmdb_store import LmdbFolder, write_lmdb
from restore.data.stores.pack import Pack
from restore.data.stores.pack_writer import write_pack
from restore.data.stores.shards import Shards, write_shards
from restore.data.stores.store import Folder, Store
from restore.errors import DataError


def prepare(
    kind: str,
    sides: Mapping[str, Path],
    out: Path,
    *,
    layout: str = "auto",
    codec: str = "raw",
    recursive: bool = False,
) -> str:
    """Make a store of `kind` for each of `sides` (`gt`, `lq` -> folder); returns lines to print.

    `layout` of a pack: `rows`, `tiles`, or `auto`: rows when all sides together take less than half
    of this machine's memory. `codec` packs its tiles: `raw`, `zlib` or `zstd`. Raises DataError, or
    BackendError when there is no zstd.
    """
    folders = {side: Folder(folder, recursive=recursive) for side, folder in sides.items()}
    done = []
    tiles = layout == "tiles" or codec != "raw"
    if layout == "auto" and kind == "pack" and not tiles:
        tiles = sum(map(decoded_bytes, folders.values())) > memory() // 2
    make: dict[str, Callable[[Folder, Path], str]] = {
        "pack": lambda folder, target: make_pack(folder, target, tiles, codec),
        "lmdb": make_of_files(write_lmdb, LmdbFolder),
        "shards": make_of_files(write_shards, Shards),
    }
    for side, folder in folders.items():
        done.append(make[kind](folder, out / f"{side}.{kind}"))
    return "\n".join(done)


def make_pack(folder: Folder, target: Path, tiles: bool, codec: str) -> str:
    """The pack `target` of a folder's images."""
    if target.exists():
        return _kept(folder, target, pack := Pack(target), pack.verify)
    require_room(decoded_bytes(folder), target)
    target.parent.mkdir(parents=True, exist_ok=True)
    size = write_pack(
        target,
        folder.names,
        lambda index: images.read(folder.where(index)),
        tiles=tiles,
        codec=codec,
    )
    layout = f"{codec} tiles" if tiles else "rows"
    return f"{target}: {len(folder.names)} images, {size / 1e6:.1f} MB in {layout}"


def make_of_files(
    write: Callable[[Path, Sequence[str], Callable[[int], bytes]], int],
    open_it: Callable[[Path], LmdbFolder | Shards],
) -> Callable[[Folder, Path], str]:
    """What makes a store of the files themselves."""

    def make(folder: Folder, target: Path) -> str:
        if target.exists():
            return _kept(folder, target, store := open_it(target), store.verify)
        require_room(file_bytes(folder), target)
        target.parent.mkdir(parents=True, exist_ok=True)
        size = write(target, folder.names, lambda index: images.load(folder.where(index)))
        return f"{target}: {len(folder.names)} images, {size / 1e6:.1f} MB"

    return make


def _kept(folder: Folder, target: Path, store: Store, verify: Callable[[int], None]) -> str:
    """What to print of a store that is there already. Raises DataError unless it is whole and of
    the same names."""
    missing = sorted(set(folder.names) ^ set(store.names))
    if missing:
        raise DataError.of(
            "DAT16",
            "the store is of other images",
            str(target),
            f"{len(missing)} names that only one of them has, first {missing[0]}",
            f"the {len(folder.names)} images of {folder.root}",
            "remove it, or choose another --out",
        )
    for index in range(len(store.names)):
        verify(index)
    return f"{target}: already there, {len(store.names)} images, all whole"


def decoded_bytes(folder: Folder) -> int:
    """Bytes of all pixels as 8-bit RGB, from the files' headers. Raises DataError."""
    sizes = (images.read_size(folder.where(index)) for index in range(len(folder.names)))
    return sum(height * width * 3 for height, width in sizes)


def file_bytes(folder: Folder) -> int:
    """Bytes of all files."""
    return sum(os.stat(folder.where(index)).st_size for index in range(len(folder.names)))


def memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
