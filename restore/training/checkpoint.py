"""Floor 5. Checkpoints that are whole or not there: written aside, hashed, renamed, verified.

    checkpoints/step_00000020/{model,ema,optim}.safetensors  state.json  MANIFEST.json
    checkpoints/latest.json  checkpoints/best.json

The manifest (size and sha256 of every file) is written last; neither safetensors nor torch's zip
notices a flipped bit. A directory without a matching manifest does not count.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from restore.archs.weights import about_weights, write_safetensors
from restore.errors import CheckpointError, RunError, SaveError
from restore.reports.records import read_object, replace_text

SCHEMA = 1
OWNER = ".owner"
ALWAYS = ("state.json", "model.safetensors")
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)  # of odd JSON
log = logging.getLogger("restore")


@dataclass(frozen=True)
class Saved:
    """One checkpoint read back."""

    folder: Path
    tensors: dict[str, dict[str, Tensor]]
    numbers: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in `folder`; keeps the `keep` newest and the best."""

    def __init__(self, folder: Path, keep: int, about: Mapping[str, Any]) -> None:
        self.folder, self._keep, self._about = folder, keep, dict(about)
        self._token: str | None = None

    def claim(self) -> None:
        """Be the one that writes here; an earlier process of this run no longer is."""
        self._token = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_text(self.folder / OWNER, self._token + "\n")

    def _check_owner(self, unfinished: Path) -> None:
        """Raises RunError RUN04 when another process has claimed the folder since."""
        if self._token is None:
            return
        owner = (self.folder / OWNER).read_text().strip()
        if owner != self._token:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise RunError.of(
                "RUN04",
                "another process has taken this run over",
                str(self.folder),
                owner,
                self._token,
                "nothing: this one ends, the other one goes on",
            )

    def clear_leftovers(self) -> None:
        """Remove what a killed writer left half done."""
        for pattern in (".tmp-*", ".trash-*"):
            for leftover in self.folder.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)

    def save(
        self, tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any], *, best: bool
    ) -> Path:
        """Write the checkpoint of `numbers["step"]`, whole or not at all, and prune older ones.

        Raises SaveError CKP04 when the disk is full or cannot be written; older ones stay intact.
        """
        step = int(numbers["step"])
        final = self.folder / f"step_{step:08d}"
        temporary = self.folder / f".tmp-step_{step:08d}-{os.getpid()}"
        try:
            if not final.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._check_space(tensors)
                self._write(temporary, tensors, numbers)
                self._check_owner(temporary)
                os.rename(temporary, final)
                _sync(self.folder)
            replace_text(self.folder / "latest.json", json.dumps({"step": step}) + "\n")
            if best:
                note = {"step": step, **numbers["best"]}
                replace_text(self.folder / "best.json", json.dumps(note) + "\n")
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise SaveError.of(
                "CKP04",
                "checkpoint could not be saved",
                str(final),
                error.strerror or str(error),
                "room to write",
                "free some space or point path.experiments_root elsewhere",
            ) from error
        self._prune()
        return final

    def _check_space(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        need = sum(t.numel() * t.element_size() for file in tensors.values() for t in file.values())
        need = int(1.1 * need)
        have = shutil.disk_usage(self.folder).free
        if have < need:
            raise OSError(None, f"need {need >> 20} MiB, have {have >> 20} MiB free")

    def _write(
        self, folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for stem, values in tensors.items():
            write_safetensors(folder / f"{stem}.safetensors", values, self._about)
        text = json.dumps({"schema": SCHEMA, **numbers}, indent=2, sort_keys=True)
        (folder / "state.json").write_text(text + "\n")
        files = sorted(folder.iterdir())
        manifest = {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in files}
        (folder / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")
        for file in (*files, folder / "MANIFEST.json", folder):
            _sync(file)

    def _prune(self) -> None:
        best = self._best_step()
        steps = self.steps()
        for step in steps[: -self._keep]:
            if step == best:
                continue
            folder = self.folder / f"step_{step:08d}"
            trash = self.folder / f".trash-{folder.name}-{os.getpid()}"
            os.rename(folder, trash)
            shutil.rmtree(trash, ignore_errors=True)

    def _best_step(self) -> int | None:
        try:
            return read_object(self.folder / "best.json").get("step")
        except OSError:
            return None

    def steps(self) -> list[int]:
        """The steps of which a directory is there, ascending."""
        names = (folder.name.removeprefix("step_") for folder in self.folder.glob("step_*"))
        return sorted(int(name) for name in names if name.isdigit())

    def differences(self, saved: Saved) -> list[tuple[str, Any, Any]]:
        """(option, saved value, this run's) of the network's options that differ."""
        theirs = about_weights(saved.folder / "model.safetensors").get("network_g")
        theirs = theirs if isinstance(theirs, dict) else {}
        ours = json.loads(json.dumps(self._about.get("network_g", {})))
        return [(k, theirs[k], ours[k]) for k in ours if k in theirs and theirs[k] != ours[k]]

    def load_newest(self) -> Saved | None:
        """The newest checkpoint that verifies; those passed over are named in the log."""
        for step in reversed(self.steps()):
            folder = self.folder / f"step_{step:08d}"
            fault = fault_of(folder)
            if fault is None:
                return load(folder)
            log.warning("checkpoint %s is not used: %s; trying the one before", folder, fault)
        return None


def load(folder: Path) -> Saved:
    """A checkpoint that verifies. Raises CheckpointError CKP05 for one that does not, or whose
    files are what no save writes, and CKP02 for one of a newer version."""
    fault = fault_of(folder)
    if fault is not None:
        raise _damaged(folder, fault)
    numbers = _numbers(folder)
    if numbers["schema"] > SCHEMA:
        raise CheckpointError.of(
            "CKP02",
            "checkpoint of a newer version",
            str(folder),
            f"schema {numbers['schema']}",
            f"at most {SCHEMA}",
            "upgrade restore",
        )
    tensors = {}
    for name in sorted(_manifest(folder)):
        if name.endswith(".safetensors"):
            try:
                tensors[name.removesuffix(".safetensors")] = safetensors.torch.load_file(
                    folder / name
                )
            except (safetensors.SafetensorError, OSError, ValueError) as error:
                raise _damaged(folder, f"{name}: {error}") from None
    return Saved(folder, tensors, numbers)


def fault_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None when every file is as its manifest says."""
    try:
        manifest = _manifest(folder)
        for name, entry in manifest.items():
            file = folder / name
            if file.stat().st_size != entry["bytes"]:
                return f"{name} has {file.stat().st_size} bytes, not {entry['bytes']}"
            if sha256(file) != entry["sha256"]:
                return f"{name} does not match its sha256"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except (OSError, *_UNREADABLE) as error:
        return f"MANIFEST.json cannot be read ({error})"
    unlisted = [name for name in ALWAYS if name not in manifest]
    return f"{unlisted[0]} is not in MANIFEST.json" if unlisted else None


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each file by its name. Raises OSError or one of _UNREADABLE."""
    manifest: dict[str, dict[str, Any]] = json.loads((folder / "MANIFEST.json").read_text())
    for name in manifest.keys():
        if Path(name).name != name:
            raise ValueError(f"{name!r} is no file of it")
    return manifest


def _numbers(folder: Path) -> dict[str, Any]:
    """What state.json says. Raises CheckpointError CKP05."""
    try:
        numbers = json.loads((folder / "state.json").read_text())
        if isinstance(numbers["schema"], int):
            return numbers
        got = f"schema {numbers['schema']!r}"
    except _UNREADABLE as error:
        got = f"{type(error).__name__}: {error}"
    raise _damaged(folder, f"state.json: {got}")


def _damaged(folder: Path, fault: str) -> CheckpointError:
    return CheckpointError.of(
        "CKP05", "checkpoint is damaged", str(folder), fault, "a whole one", "use another"
    )


def sha256(file: Path) -> str:
    """sha256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
