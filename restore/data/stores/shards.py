"""Floor 3. Shards: image files in plain tar archives with an index, for sets beyond one disk.

    00000.tar 00001.tar …   the files as they were; any tar program and WebDataset open them
    index.npy               one RECORD an image: shard, offset, length, crc32 (numpy opens it)
    names.txt, shards.json  see `sealed`

The index makes of the archives what a folder is: any image is one read, here or by HTTP, so the
stream of samples, its shuffling, its shares for ranks and its exact resume are those of a folder.
Every image is compared with its checksum when it is read, which finds what no JPEG decoder does.
"""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from restore import images
from restore.data.stores.ranges import ranges_of
from restore.data.stores.sealed import Sealed, seal, sealed_folder, synced
from restore.data.stores.store import FileStore
from restore.errors import DataError

VERSION = 1
HEADER, RECORDS = "shards.json", "index.npy"
SHARD_BYTES = 512 << 20  # a shard is closed when it has as many
ATTEMPTS, TIMEOUT = 6, 30.0
RECORD = np.dtype([("shard", "<u4"), ("offset", "<u8"), ("length", "<u8"), ("crc32", "<u4")])


class Shards(FileStore):
    """The images of shards in a folder or below an http(s) address. Raises DataError."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        attempts: int = ATTEMPTS,
        timeout: float = TIMEOUT,
    ) -> None:
        self.root = os.fspath(root).rstrip("/")
        self._reopened = partial(Shards, self.root, attempts=attempts, timeout=timeout)
        self._ranges = ranges_of(self.root, attempts=attempts, timeout=timeout)
        sealed = Sealed(self.root, "shards", HEADER, VERSION, self._ranges.whole)
        self.names = sealed.names()
        index = io.BytesIO(sealed.read(RECORDS))
        try:
            held = np.lib.format.read_array(index, allow_pickle=False)
        except Exception as error:  # numpy raises whatever the bytes make it raise
            raise sealed.damaged(f"{RECORDS}: {error}") from None
        if held.dtype != RECORD or held.shape != (len(self.names),):
            raise sealed.damaged(f"{held.dtype} of shape {held.shape} in {RECORDS}")
        self._records = held

    def __reduce__(self) -> tuple[Callable[[], Shards], tuple[()]]:
        return self._reopened, ()  # a worker process opens its own connections

    def where(self, index: int) -> str:
        return f"{self.root}/{_shard(int(self._records['shard'][index]))}/{self.names[index]}"

    def encoded(self, index: int) -> bytes:
        """The bytes of the file that image `index` was. Raises DataError DAT10, DAT34."""
        shard, offset, length, crc = self._records[index].tolist()
        data = self._ranges.part(_shard(shard), offset, length)
        if zlib.crc32(data) != crc:
            raise DataError.of(
                "DAT10",
                "an image of the shards is damaged",
                f"{self.where(index)}, byte {offset}",
                "other bytes than were written",
                f"crc32 {crc:08x}",
                "copy or make the shard again",
            )
        return data

    def verify(self, index: int) -> None:
        """Compare image `index` with its checksum. Raises DataError."""
        self.encoded(index)


def _shard(number: int) -> str:
    return f"{number:05d}.tar"


def write_shards(
    folder: Path,
    names: Sequence[str],
    read: Callable[[int], bytes],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Make the shards `folder`, which must not exist, of the files `read(i)` called `names[i]`.

    Every file is decoded once, so that none that is broken goes in. Returns the bytes of all files.
    Raises DataError; nothing is left of it then.
    """
    records = np.zeros(len(names), RECORD)
    shard, index = 0, 0
    with sealed_folder(folder) as aside:
        while index < len(names):
            with open(aside / _shard(shard), "wb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
                    while index < len(names) and tar.offset < shard_bytes:
                        data = read(index)
                        images.decode(data, names[index])
                        records[index] = (shard, _add(tar, names[index], data), len(data), 0)
                        records["crc32"][index] = zlib.crc32(data)
                        index += 1
                synced(file)
            shard += 1
        index_file = io.BytesIO()
        np.save(index_file, records)
        facts = {"version": VERSION, "images": len(names), "shards": shard}
        seal(aside, HEADER, facts, names, {RECORDS: index_file.getvalue()})
    return int(records["length"].sum())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a member, the same bytes at any time; the offset of its data."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    header = member.tobuf(tar.format or tarfile.GNU_FORMAT, tar.encoding or "utf-8", tar.errors)
    offset = tar.offset + len(header)
    tar.addfile(member, io.BytesIO(data))
    return offset
