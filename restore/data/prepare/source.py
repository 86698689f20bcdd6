"""Floor 3. What a user downloaded, folders, files and archives, as one list of members.

Nothing is ever unpacked: a member is read whole, and where it goes is decided elsewhere. Archives
come from strangers, so one with an absolute path, a `..`, a link or a device is refused as a whole,
and so is one whose members are improbably large for the bytes they are packed in.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, Self

from restore.errors import DataError

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVES = (".zip", *TARS)
FOREIGN = (".rar", ".7z")
MEMBER_LIMIT = 1 << 30  # bytes; the largest file of any set here, SIDD's blocks, has a quarter
MEMBERS_LIMIT = 2_000_000  # the largest set here, OTS with its parts, has a third of a million
RATIO_LIMIT, RATIO_FREE = 200, 1 << 20  # unpacked / packed, beyond the first MiB
LONG_NAME = 1 << 20  # bytes of a tar's header for a long name, read whole by tarfile
AGAIN = "download it again, or unpack it yourself and give the folder"


@dataclass(frozen=True)
class Member:
    """A file of the source. `path`: POSIX, begins with the name of the folder or archive that was
    given. `holder` and `number`: which of them, and the place in it."""

    path: str
    size: int
    holder: int
    number: int


class _Holder(Protocol):
    """A folder or an archive: (inner path, size) of its files in their order, and their bytes."""

    where: Path

    def listed(self) -> Iterator[tuple[str, int]]: ...
    def read(self, number: int) -> bytes: ...
    def file(self, number: int) -> Path | None: ...
    def close(self) -> None: ...


class Source:
    """All members of the given folders and archives, and of the archives inside those folders.

    `foreign`: archives that cannot be read here. Raises DataError.
    """

    def __init__(self, places: Sequence[str | Path]) -> None:
        self._holders: list[_Holder] = []
        self.foreign: list[Path] = []
        found: list[Member] = []
        try:
            for place in map(Path, places):
                for root, holder in self._open(place):
                    self._holders.append(holder)
                    found += _members(root, holder, len(self._holders) - 1)
        except BaseException:
            self.close()
            raise
        self.members = tuple(found)

    def read(self, member: Member) -> bytes:
        """The member's bytes. Raises DataError DAT20 when the archive or the disk fails."""
        holder = self._holders[member.holder]
        try:
            data = holder.read(member.number)
        except Exception as error:  # every packer has its own kinds
            raise _broken(holder.where, f"{member.path}: {error}") from None
        if len(data) != member.size:
            got = f"{member.path}: {len(data)} bytes, not the {member.size} it lists"
            raise _broken(holder.where, got)
        return data

    def file(self, member: Member) -> Path | None:
        """Where the member lies on disk; None inside an archive."""
        return self._holders[member.holder].file(member.number)

    def _open(self, place: Path) -> Iterator[tuple[str, _Holder]]:
        """(name, holder) of a place, and of the archives inside it."""
        if place.is_dir():
            folder = _Folder(place)
            yield place.resolve().name, folder
            for file in folder.archives:
                yield _bare(file.name), _archive(file)
            self.foreign += folder.foreign
        elif _ends(place.name, ARCHIVES) and place.is_file():
            yield _bare(place.name), _archive(place)
        elif place.is_file() and not _ends(place.name, FOREIGN):
            yield place.resolve().parent.name, _File(place)
        else:
            raise DataError.of(
                "DAT02",
                "no such source",
                str(place),
                "an archive of another kind" if place.exists() else "nothing there",
                "a folder, a file, or an archive: " + " ".join(ARCHIVES),
                "unpack it and give the folder" if place.exists() else "correct --source",
            )

    def close(self) -> None:
        for holder in self._holders:
            holder.close()


def _members(root: str, holder: _Holder, index: int) -> Iterator[Member]:
    try:
        for number, (inner, size) in enumerate(holder.listed()):
            if number >= MEMBERS_LIMIT:
                raise _bomb(holder.where, f"over {MEMBERS_LIMIT} files", f"at most {MEMBERS_LIMIT}")
            if not _is_junk(inner):
                yield Member(f"{root}/{inner}", size, index, number)
    except DataError:
        raise
    except Exception as error:  # every packer has its own kinds
        raise _broken(holder.where, str(error)) from None


class _Folder:
    """Files under a folder; hidden ones are skipped, links to folders are not followed."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self._files: list[tuple[str, int]] = []
        self.archives: list[Path] = []
        self.foreign: list[Path] = []
        for inner, size in sorted(self._walk("")):
            if _ends(inner, ARCHIVES):
                self.archives.append(where / inner)
            elif _ends(inner, FOREIGN):
                self.foreign.append(where / inner)
            else:
                self._files.append((inner, size))

    def _walk(self, prefix: str) -> Iterator[tuple[str, int]]:
        with os.scandir(self.where / prefix) as entries:
            for entry in entries:
                inner = prefix + entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(inner + "/")
                elif entry.is_file():
                    yield inner, entry.stat().st_size

    def listed(self) -> Iterator[tuple[str, int]]:
        yield from self._files

    def file(self, number: int) -> Path:
        return self.where / self._files[number][0]

    def read(self, number: int) -> bytes:
        return self.file(number).read_bytes()

    def close(self) -> None:
        """Nothing is held open."""


class _File:
    """A single file, as it is."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def listed(self) -> Iterator[tuple[str, int]]:
        yield self.where.name, self.where.stat().st_size

    def file(self, number: int) -> Path:
        return self.where

    def read(self, number: int) -> bytes:
        return self.where.read_bytes()

    def close(self) -> None:
        """Nothing is held open."""


class _Zip:
    """A zip file, not encrypted."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self._zip = zipfile.ZipFile(where)
        self._infos = [info for info in self._zip.infolist() if not info.is_dir()]

    def listed(self) -> Iterator[tuple[str, int]]:
        packed, unpacked = self.where.stat().st_size, 0
        for info in self._infos:
            name = _inside(info.filename, self.where)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _leaves(self.where, f"{name}, a link")
            if info.flag_bits & 1:
                raise _broken(self.where, f"{name} is encrypted")
            unpacked += info.file_size
            _bounded(name, info.file_size, info.file_size, info.compress_size, self.where)
            _bounded(name, info.file_size, unpacked, packed, self.where)  # bytes listed twice
            yield name, info.file_size

    def file(self, number: int) -> None:
        return None

    def read(self, number: int) -> bytes:
        info = self._infos[number]
        with self._zip.open(info) as stream:  # checks the CRC when read to the end
            data = stream.read(info.file_size)
            return data + stream.read(1)  # no more than it lists

    def close(self) -> None:
        self._zip.close()


class _Header(tarfile.TarInfo):
    """A header in a tar file. A long name stands in one of its own, as long as that says."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.size > LONG_NAME and not info.isreg() and not info.isdir():
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


class _Tar:
    """A tar file, packed or not; read in its own order, so that nothing is unpacked twice."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self._tar = tarfile.open(where, "r:*", tarinfo=_Header)
        self._infos: list[tarfile.TarInfo] = []

    def listed(self) -> Iterator[tuple[str, int]]:
        packed, unpacked = self.where.stat().st_size, 0
        for info in self._tar:
            name = _inside(info.name, self.where)
            if info.isdir():
                continue
            if not info.isreg():
                kind = "a link" if info.issym() or info.islnk() else "a device"
                raise _leaves(self.where, f"{name}, {kind}")
            unpacked += info.size
            _bounded(name, info.size, unpacked, packed, self.where)
            self._infos.append(info)
            yield name, info.size

    def file(self, number: int) -> None:
        return None

    def read(self, number: int) -> bytes:
        stream = self._tar.extractfile(self._infos[number])
        assert stream is not None  # a regular file
        return stream.read()

    def close(self) -> None:
        self._tar.close()


def _archive(file: Path) -> _Holder:
    try:
        return _Zip(file) if file.name.lower().endswith(".zip") else _Tar(file)
    except Exception as error:  # every packer has its own kinds
        raise _broken(file, str(error)) from None


def _inside(name: str, where: Path) -> str:
    """`name` with forward slashes. Raises DataError DAT21 when it leads out of the archive."""
    name = name.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name) or "\0" in name:
        raise _leaves(where, name)
    return "/".join(parts)


def _bounded(name: str, size: int, unpacked: int, packed: int, where: Path) -> None:
    if size > MEMBER_LIMIT:
        raise _bomb(where, f"{name}: {size} bytes", f"at most {MEMBER_LIMIT} bytes a file")
    if unpacked > RATIO_FREE + RATIO_LIMIT * packed:
        got = f"{name}: {unpacked} bytes out of {packed}"
        raise _bomb(where, got, f"at most {RATIO_LIMIT} times what is packed")


def _is_junk(inner: str) -> bool:
    """What systems leave in archives: hidden files and macOS's and Windows' own."""
    parts = inner.split("/")
    return (
        any(part.startswith(".") for part in parts)
        or "__MACOSX" in parts
        or parts[-1] in ("Thumbs.db", "desktop.ini")
    )


def _ends(name: str, suffixes: Sequence[str]) -> bool:
    return name.lower().endswith(tuple(suffixes))


def _bare(name: str) -> str:
    """An archive's name without its suffix."""
    return name[: -max(len(s) for s in ARCHIVES if _ends(name, (s,)))]


def _broken(where: Path, got: str) -> DataError:
    return DataError.of(
        "DAT20", "the source cannot be read", str(where), got, "whole and readable files", AGAIN
    )


def _leaves(where: Path, got: str) -> DataError:
    return DataError.of(
        "DAT21",
        "a path in the archive leads out of it",
        str(where),
        got,
        "plain files below the archive's root",
        "do not use this archive: get it from the set's own page",
    )


def _bomb(where: Path, got: str, expected: str) -> DataError:
    what = "the archive is improbably large"
    return DataError.of("DAT22", what, str(where), got, expected, AGAIN)
