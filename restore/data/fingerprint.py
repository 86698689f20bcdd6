"""Floor 3. What an evaluation saw, as one hash: the bytes of its files, in its order.

A set that is exchanged, re-encoded or re-ordered under the same path is another set; one that is
moved is the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from restore.data.source import Source
from restore.reports.records import replace_text
from restore.section import Section

_ELSEWHERE = ("dataroot", "name", "io_backend", "ram_cache", "meta_info", "num_worker")
"""Beginnings of the options that say where a set lies, not what it is."""


class FileHashes:
    """sha256 of files, remembered in `store` by path, size and time of change."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._known: dict[str, list[object]] = {}
        self._changed = False
        try:
            known = json.loads(store.read_text(encoding="utf-8"))
            self._known = known if isinstance(known, dict) else {}
        except (OSError, ValueError, RecursionError):  # none yet, or not one of ours: hashed anew
            pass

    def of(self, file: Path) -> str:
        """The sha256 of a file's bytes. Raises OSError."""
        path, about = str(file.resolve()), file.stat()
        stamp = [about.st_size, about.st_mtime_ns]
        known = self._known.get(path)
        if isinstance(known, list) and len(known) == 3 and known[:2] == stamp:
            return str(known[2])
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self._known[path] = [*stamp, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Keep what has been learned for the next run."""
        if self._changed:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            replace_text(self._store, json.dumps(self._known) + "\n")
            self._changed = False


def fingerprint(source: Source, options: Section, hashes: FileHashes) -> str:
    """The hash of an evaluation set: its images in their order, and how LQ is made from them.

    Images that are no files of their own (in a pack or a database) are decoded and their pixels
    hashed. Raises DataError or OSError for an image that cannot be read.
    """
    whole = hashlib.sha256()
    described = {
        key: value for key, value in options.model_dump().items() if not key.startswith(_ELSEWHERE)
    }
    whole.update(json.dumps(described, sort_keys=True, default=str).encode())
    for index in range(len(source)):
        files = source.files(index)
        if all(file.is_file() for file in files):
            parts = [hashes.of(file) for file in files]
        else:
            pair = source[index]
            arrays = [pair.lq] if pair.gt is None else [pair.lq, pair.gt]
            parts = [f"{a.shape}{a.dtype}{hashlib.sha256(a.tobytes()).hexdigest()}" for a in arrays]
        whole.update(json.dumps([source.name(index), parts]).encode())
    return whole.hexdigest()
