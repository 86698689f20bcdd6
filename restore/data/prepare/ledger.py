"""Floor 3. What of a set is already done: its MANIFEST.json, and the journal of a run under way.

    MANIFEST.json           the set's name, the variant, and size, sha256 and making of every file
    .prepare/journal.jsonl  while a run is under way or was cut off: one line a finished step
    .prepare/*.tmp          a file being written; renamed to its place when whole

A step counts as done when it is in one of the two and its files have the sizes written there, so
whatever a kill leaves behind, the next run finishes the rest and writes nothing twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from restore.errors import DataError

MANIFEST = "MANIFEST.json"
WORK = ".prepare"
SCHEMA = 1
Entry = dict[str, Any]  # size, sha256 and, for what was made, the label of its making


class Ledger:
    """The finished steps of the set in `folder`. Opened for writing, it makes the folder and locks
    it; `close` leaves the journal for the next run, `finish` turns it into the manifest."""

    def __init__(self, folder: Path, name: str, variant: str) -> None:
        self.folder = folder
        self.head = {"set": name, "variant": variant, "schema": SCHEMA}
        self.entries: dict[str, Entry] = {}
        self._journal: IO[str] | None = None
        held = read_manifest(folder)
        if held is not None:
            self._agrees(held)
            self.entries |= held["files"]
        self._read_journal()
        self._by_making: dict[str, list[str]] = {}
        for path, entry in self.entries.items():
            self._index(path, entry)

    def _agrees(self, held: Mapping[str, Any]) -> None:
        theirs = {key: held.get(key) for key in self.head}
        if theirs != self.head:
            raise DataError.of(
                "DAT16",
                "the folder holds something else",
                str(self.folder),
                " ".join(f"{value}" for value in theirs.values() if value),
                " ".join(f"{value}" for value in self.head.values() if value),
                "choose another --out",
            )

    def _read_journal(self) -> None:
        """Finished steps of a run that was cut off."""
        file = self.folder / WORK / "journal.jsonl"
        for number, (_, said) in enumerate(_whole_lines(file) if file.is_file() else []):
            if number == 0:
                self._agrees(said)
            else:
                self.entries |= said

    def _index(self, path: str, entry: Entry) -> None:
        if "made" in entry:
            self._by_making.setdefault(entry["made"], []).append(path)

    def has(self, path: str) -> bool:
        """Whether the file is ours, whatever became of it."""
        return path in self.entries

    def copied(self, path: str, size: int) -> bool:
        """Whether a copy of `size` bytes is there."""
        entry = self.entries.get(path)
        return entry is not None and entry["size"] == size and self._whole(path)

    def made(self, label: str) -> bool:
        """Whether everything made under this label is there."""
        paths = self._by_making.get(label, [])
        return bool(paths) and all(map(self._whole, paths))

    @property
    def finished(self) -> bool:
        """Whether there is a manifest and no run was cut off since."""
        return (self.folder / MANIFEST).is_file() and not (self.folder / WORK).exists()

    def labels(self) -> list[str]:
        """The labels of all makings."""
        return list(self._by_making)

    def forget(self, label: str) -> bool:
        """Drop what was made under a label and is gone; False when some of it is still there."""
        paths = self._by_making[label]
        if any(os.path.lexists(self.folder / path) for path in paths):
            return False
        for path in self._by_making.pop(label):
            del self.entries[path]
        return True

    def _whole(self, path: str) -> bool:
        try:
            return os.stat(self.folder / path).st_size == self.entries[path]["size"]
        except OSError:
            return False

    def open(self) -> None:
        """Lock the folder, making it, and begin the journal. Raises DataError DAT25 when another
        process is at it."""
        work = self.folder / WORK
        work.mkdir(parents=True, exist_ok=True)
        file = work / "journal.jsonl"
        journal = open(file, "a", encoding="utf-8")
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            journal.close()
            raise DataError.of(
                "DAT25",
                "the set is being prepared by another process",
                str(self.folder),
                "a locked journal",
                "one process at a time",
                "wait for it, or stop it",
            ) from None
        for left in work.glob("*.tmp"):
            left.unlink()
        self._journal = journal
        whole = b"".join(line for line, _ in _whole_lines(file))
        journal.truncate(len(whole))
        if not whole:
            self._say(self.head)

    def _say(self, line: Mapping[str, Any]) -> None:
        assert self._journal is not None
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()

    def write(self, path: str, data: bytes, making: str, slot: int) -> tuple[str, Entry]:
        """Put a file in its place, whole or not at all, and give its line for `record`.

        A file already there that nobody recorded stays as it is when it has the same bytes (it was
        renamed just before a kill, or lay in its place from the start), and is refused otherwise
        (DataError DAT16). `slot` keeps the temporary files of threads apart.
        """
        entry: Entry = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if making:
            entry["made"] = making
        target = self.folder / path
        if os.path.lexists(target) and not self.has(path):
            if not target.is_file() or target.read_bytes() != data:
                raise DataError.of(
                    "DAT16",
                    "the folder holds something else",
                    str(target),
                    "a file that differs and is not of ours",
                    "an empty or new folder, or this very set",
                    "choose another --out, or move the file away",
                )
            return path, entry
        temporary = self.folder / WORK / f"{slot}.tmp"
        temporary.write_bytes(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, target)
        return path, entry

    def record(self, entries: Mapping[str, Entry]) -> None:
        """Write down a finished step."""
        self._say(entries)
        self.entries |= entries
        for path, entry in entries.items():
            self._index(path, entry)

    def finish(self) -> None:
        """The manifest in place of the journal; files that somebody removed are left out."""
        files = {path: self.entries[path] for path in sorted(self.entries) if self._whole(path)}
        text = json.dumps({**self.head, "files": files}, indent=1) + "\n"
        temporary = self.folder / WORK / "manifest.tmp"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.folder / MANIFEST)
        self.close()
        shutil.rmtree(self.folder / WORK)

    def close(self) -> None:
        """Let go of the folder."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _whole_lines(file: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """A journal's lines with what they say: its head, then the entries of one step each.

    Ends before the first that a kill cut short or that is damaged: from there on the next run does
    the steps again, and finds their files in place.
    """
    found: list[tuple[bytes, dict[str, Any]]] = []
    for line in file.read_bytes().splitlines(keepends=True):
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(said, dict) or not line.endswith(b"\n"):
            break
        if not (all(map(_is_entry, said.values())) if found else "set" in said):
            break
        found.append((line, said))
    return found


def _is_entry(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("size"), int) and isinstance(value.get("sha256"), str)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a prepared set; None without one. Raises DataError DAT16."""
    file = folder / MANIFEST
    if not file.is_file():
        return None
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        if "set" in held and "variant" in held and all(map(_is_entry, held["files"].values())):
            return held
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # answered below
    raise DataError.of(
        "DAT16",
        "the folder holds something else",
        str(file),
        "no manifest of ours",
        "a manifest that restore prepare wrote",
        "choose another --out, or remove the file",
    )
