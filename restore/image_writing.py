"""Floor 2. Images into files: encoded by suffix, and there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from restore import png
from restore.errors import DataError
from restore.image_files import KIND_OF_SUFFIX, SUFFIXES
from restore.image_flaws import flaw


def write(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write a uint8 or uint16 image, (H, W, 3) RGB or (H, W), in the format of the suffix.

    Lossless but for JPEG (quality 95). uint16 goes to PNG and TIFF only; WebP has no gray and
    stores RGB. The file appears whole or not at all; folders are not made. Raises DataError IMG13.
    """
    target = Path(path)
    encoded = encode(image, target.suffix, str(target))
    file = WholeFile(target)
    try:
        file.write(encoded)
        file.finish()
    finally:
        file.discard()


def encode(image: np.ndarray, suffix: str, where: str) -> bytes:
    """The bytes that `write` puts into a file of this suffix; `where` names it in messages."""
    kind = KIND_OF_SUFFIX.get(suffix.lower())
    if kind is None:
        raise flaw("IMG13", where, f"suffix {suffix!r}", f"one of {' '.join(sorted(SUFFIXES))}")
    bits = ("uint8", "uint16") if kind in ("PNG", "TIFF") else ("uint8",)
    if image.dtype.name not in bits:
        raise flaw("IMG13", where, f"{image.dtype} values", f"{' or '.join(bits)} for {kind}")
    if image.size == 0 or not (image.ndim == 2 or image.ndim == 3 and image.shape[2] == 3):
        raise flaw("IMG13", where, f"shape {image.shape}", "(H, W, 3) RGB or (H, W)")
    encoded = png.encode(image) if kind == "PNG" else _by_opencv(image, suffix)
    if encoded is None:
        raise too_large(where, image.shape[0], image.shape[1], kind)
    return encoded


def too_large(where: str, height: int, width: int, kind: str) -> DataError:
    """The DataError of an image that a format cannot hold."""
    return flaw("IMG13", where, f"{width}x{height} pixels", f"a size that {kind} can hold")


def _by_opencv(image: np.ndarray, suffix: str) -> bytes | None:
    """The encoded image; None when the format cannot hold it."""
    image = np.ascontiguousarray(image)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    try:
        done, encoded = cv2.imencode(suffix.lower(), bgr)
    except cv2.error:
        return None
    return encoded.tobytes() if done else None


class WholeFile:
    """A file that has its name only from `finish` on, and until then a temporary one beside it.

    `discard` closes it, and removes what was not finished. Raises DataError IMG13.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # The name is short and of its own, as the target's may already be as long as names can be.
        self._temporary = path.parent / f".{os.getpid()}-{secrets.token_hex(6)}.tmp"
        with self._refusing():
            self._file = open(self._temporary, "xb")

    def write(self, data: bytes) -> None:
        with self._refusing():
            self._file.write(data)

    def clear(self) -> None:
        """Forget what was written."""
        with self._refusing():
            self._file.seek(0)
            self._file.truncate()

    def finish(self) -> None:
        with self._refusing():
            self._file.close()
            os.replace(self._temporary, self._path)

    def discard(self) -> None:
        try:
            with self._refusing():
                self._file.close()
        finally:
            self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _refusing(self) -> Generator[None, None, None]:
        try:
            yield
        except (OSError, ValueError) as error:
            there = self._path.parent.is_dir()
            fix = "check permissions and free space" if there else "make the folder first"
            where = str(self._path)
            raise flaw("IMG13", where, str(error), "a folder to write in", fix) from None
