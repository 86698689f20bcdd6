"""Floor 3. A store's folder: a header with the checksums of its small files, written as one act.

Everything is written beside the folder's place and synced; the folder then gets its name. A killed
writer leaves nothing under that name.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from restore.errors import DataError

NAMES = "names.txt"  # ended by NUL each: names may have line breaks


@contextmanager
def sealed_folder(folder: Path) -> Generator[Path, None, None]:
    """A folder to write into, which becomes `folder` (not there yet) in the end, or vanishes if
    the block fails."""
    aside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    os.rename(aside, folder)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def synced(file: IO[bytes]) -> None:
    """Have what was written on disk."""
    file.flush()
    os.fsync(file.fileno())


def seal(
    folder: Path, header: str, facts: Mapping[str, object], names: Sequence[str],
    files: Mapping[str, bytes],
) -> None:  # fmt: skip
    """Write the names, the small files, and a header of `facts` and their checksums."""
    text = "".join(f"{name}\0" for name in names).encode("utf-8", "surrogateescape")
    held = {NAMES: text, **files}
    sums = {f"{name} crc32": zlib.crc32(body) for name, body in held.items()}
    held[header] = (json.dumps({**facts, **sums}, indent=2) + "\n").encode()
    for name, body in held.items():
        with open(folder / name, "wb") as file:
            file.write(body)
            synced(file)


class Sealed:
    """The small files of a store, compared with its header; `fetch` gives the bytes of a file of
    that name and raises FileNotFoundError. Raises DataError DAT02, DAT09, DAT10."""

    def __init__(
        self, root: str, kind: str, header: str, version: int, fetch: Callable[[str], bytes]
    ) -> None:
        self._root, self._kind, self._fetch = root, kind, fetch
        try:
            self.facts = json.loads(fetch(header))
            found = self.facts["version"]
        except FileNotFoundError:
            raise DataError.of(
                "DAT02",
                f"no {kind} here",
                root,
                f"no {header}",
                f"what restore prepare {kind} made",
                "correct the path, or make it",
            ) from None
        except OSError as error:
            raise self.unopened(header, error) from None
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise self.damaged(f"{header}: {error}") from None
        if found != version:
            raise DataError.of(
                "DAT09",
                f"a {kind} of another format",
                root,
                f"version {found}",
                f"version {version}",
                "update restore, or make it again",
            )

    def read(self, name: str) -> bytes:
        """The bytes of a small file, as they were written."""
        try:
            held = self._fetch(name)
        except OSError as error:
            raise self.unopened(name, error) from None
        if zlib.crc32(held) != self.facts.get(f"{name} crc32"):
            raise self.damaged(f"other bytes in {name} than were written")
        return held

    def names(self) -> list[str]:
        """The images' names."""
        names = self.read(NAMES).decode("utf-8", "surrogateescape").split("\0")[:-1]
        if not names:
            raise self.damaged("no image in it")
        return names

    def unopened(self, name: str, error: OSError) -> DataError:
        """The DataError of a file of the store that cannot be opened."""
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            return self.damaged(f"{name}: {error}")
        return DataError.of(
            "DAT04",
            f"the {self._kind} cannot be opened",
            self._root,
            f"{name}: {error.strerror}",
            "a descriptor for it",
            "allow more open files (ulimit -n 65536) or use fewer data sets at once",
        )

    def damaged(self, got: str) -> DataError:
        """The DataError of a store that is not whole."""
        return DataError.of(
            "DAT10",
            f"the {self._kind} is damaged",
            self._root,
            got,
            "all that was written",
            "make it again",
        )
