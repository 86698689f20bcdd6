"""Floor 3. LMDB folders in BasicSR's layout, read as BasicSR reads them and written with care.

    x.lmdb/data.mdb         key: an image's name without suffix; value: the bytes of its file
    x.lmdb/meta_info.txt    a line an image: `0001_s001.png (480,480,3) 1`

BasicSR's writer guesses the size from the first image and leaves a folder that looks whole when it
fails. Ours grows the map when it is full, and names the folder when all of it is on disk.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import lmdb

from restore import images
from restore.data.stores.sealed import sealed_folder, synced
from restore.data.stores.store import FileStore
from restore.errors import DataError

DATA, META = "data.mdb", "meta_info.txt"
COMMIT_EVERY = 256  # images
FIRST_MAP = 1 << 24  # bytes; doubled when full, so nothing depends on it
_LINE = re.compile(r"(.+?)(?: \([\d,]+\)(?: \d+)?)?")  # name, shape, compression level


class LmdbFolder(FileStore):
    """The images of a BasicSR LMDB folder. Raises DataError when it is not whole."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root)
        self.names = _names(self.root)
        self._base = _opened(self.root)
        entries = self._base.environment.stat()["entries"]
        if entries < len(self.names):
            got = f"{entries} images, but {len(self.names)} lines in {META}"
            raise _damaged(self.root, got)

    def __reduce__(self) -> tuple[type[LmdbFolder], tuple[str]]:
        return LmdbFolder, (self.root,)  # a worker process opens it itself

    def encoded(self, index: int) -> bytes:
        """The bytes of the file that image `index` was. Raises DataError DAT08, DAT10."""
        key = key_of(self.names[index])
        try:
            with self._base.environment.begin() as reading:
                data = reading.get(key)
        except lmdb.Error as error:
            raise _damaged(self.root, str(error)) from None
        if data is None:
            raise DataError.of(
                "DAT08",
                "an image of the LMDB is missing",
                self.where(index),
                "no such key",
                f"the key {key.decode('utf-8', 'replace')}",
                "make the LMDB again",
            )
        return data

    def verify(self, index: int) -> None:
        """Decode image `index`. Raises DataError."""
        images.decode(self.encoded(index), self.where(index))


def key_of(name: str) -> bytes:
    """The key of an image: its name without suffix."""
    return PurePosixPath(name).with_suffix("").as_posix().encode("utf-8", "surrogateescape")


class _Environment:
    """An open LMDB; a process may open each only once."""

    def __init__(self, root: str) -> None:
        self.environment = lmdb.open(
            root, readonly=True, lock=False, readahead=False, meminit=False, max_spare_txns=8
        )


_open: weakref.WeakValueDictionary[str, _Environment] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def _opened(root: str) -> _Environment:
    place = os.path.realpath(root)
    with _lock:
        found = _open.get(place)
        if found is None:
            try:
                found = _open[place] = _Environment(place)
            except lmdb.VersionMismatchError as error:
                raise DataError.of(
                    "DAT09",
                    "an LMDB of another format",
                    root,
                    str(error),
                    "the format of this lmdb package",
                    "make the LMDB again, or update lmdb",
                ) from None
            except (lmdb.Error, OSError) as error:
                raise _damaged(root, str(error)) from None
    return found


def _names(root: str) -> Sequence[str]:
    try:
        text = Path(root, META).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError.of(
            "DAT02",
            "no LMDB of BasicSR's layout here",
            root,
            str(error),
            f"a folder with {DATA} and {META}",
            "correct the path, or make it with restore prepare lmdb",
        ) from None
    lines = [_LINE.fullmatch(line.rstrip()) for line in text.split("\n") if line.strip()]
    names = sorted(line.group(1) for line in lines if line is not None)
    if not names:
        raise _damaged(root, f"no line in {META}")
    for name in names:
        if not PurePosixPath(name).name:
            raise _damaged(root, f"{name!r} in {META}")
    return names


def _damaged(root: str, got: str) -> DataError:
    return DataError.of(
        "DAT10", "the LMDB is damaged", root, got, "a whole LMDB", "make the LMDB again"
    )


def write_lmdb(folder: Path, names: Sequence[str], read: Callable[[int], bytes]) -> int:
    """Make the LMDB `folder`, which must not exist, of the files `read(i)` called `names[i]`.

    Every file is decoded once, so that none that is broken goes in. Returns the bytes of all files.
    Raises DataError; nothing is left of it then.
    """
    size, lines = 0, []
    with sealed_folder(folder) as aside:
        with lmdb.open(str(aside), map_size=FIRST_MAP, meminit=False) as environment:
            for first in range(0, len(names), COMMIT_EVERY):
                part = range(first, min(first + COMMIT_EVERY, len(names)))
                held = {names[index]: read(index) for index in part}
                lines += [_line(name, data) for name, data in held.items()]
                _put(environment, held)
                size += sum(map(len, held.values()))
            environment.sync(True)
        text = "".join(f"{line}\n" for line in lines)
        with open(aside / META, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
            synced(file)
    return size


def _line(name: str, data: bytes) -> str:
    shape = images.decode(data, name).shape
    return f"{name} ({shape[0]},{shape[1]},{shape[2] if len(shape) == 3 else 1}) 1"


def _put(environment: lmdb.Environment, held: dict[str, bytes]) -> None:
    """Store and commit; in a larger map when this one is full."""
    while True:
        try:
            with environment.begin(write=True) as writing:
                for name, data in held.items():
                    writing.put(key_of(name), data)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(environment.info()["map_size"] * 2)
        except lmdb.BadValsizeError:
            longest = max(held, key=len)
            raise DataError.of(
                "DAT33",
                "a name is too long for an LMDB key",
                longest,
                f"{len(key_of(longest))} bytes",
                f"at most {environment.max_key_size()}",
                "shorten it, or use a pack",
            ) from None
