"""Miniature data sets in exactly the layouts that people download, for the tests of `prepare`."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from restore import images
from restore.commands.main import main


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


class Command:
    """`restore prepare …` in this process, its streams caught."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> Answer:
        self._capsys.readouterr()
        code = main(["prepare", *map(str, words)])
        caught = self._capsys.readouterr()
        return Answer(code, caught.out, caught.err)


def refused(answer: Answer, code: str, *words: object) -> None:
    """The command ended with this error, said in one line (after the progress bar, if any)."""
    assert answer.code == 2 and answer.out == "", answer
    assert f"error[{code}]: " in answer.err and "Traceback" not in answer.err, answer.err
    assert all(str(word) in answer.err for word in words), answer.err


def picture(name: str, height: int, width: int, channels: int = 3) -> np.ndarray:
    """A smooth picture with some texture, another for every name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    coarse = rng.integers(0, 256, (5, 6, channels), dtype=np.uint8)
    whole = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    whole = whole.reshape(height, width, channels).astype(int)
    whole += rng.integers(-9, 10, whole.shape)
    image = np.clip(whole, 0, 255).astype(np.uint8)
    return image if channels == 3 else image[..., 0]


def put(root: Path, names: Iterable[str], height: int = 24, width: int = 36) -> Path:
    """Pictures under `root`."""
    for name in names:
        place(root / name, picture(name, height, width))
    return root


def place(file: Path, image: np.ndarray) -> Path:
    """Write an image, its folder too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    images.write(file, image)
    return file


def names(root: Path) -> list[str]:
    """All files under `root` but the manifest, also hidden ones."""
    found = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return [name for name in found if name != "MANIFEST.json"]


def contents(root: Path) -> dict[str, bytes]:
    """Every file and its bytes."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def times(root: Path) -> dict[str, int]:
    """When every file was written."""
    return {name: (root / name).stat().st_mtime_ns for name in names(root)}


def zipped(root: Path, file: Path) -> Path:
    """What lies in `root`, as a zip file."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name in names(root):
            out.write(root / name, name)
    return file


def tarred(root: Path, file: Path) -> Path:
    """What lies in `root`, as a tar file, packed as its suffix says."""
    kind = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2", ".tar": "w"}[file.suffix]
    with tarfile.open(file, kind) as out:  # type: ignore[call-overload]
        for name in names(root):
            out.add(root / name, name)
    return file
