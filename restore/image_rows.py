"""Floor 2. Images that grow row by row: in memory, or as a PNG file, which is then never held.

PNG specification, third edition (W3C): every row under filter 1 (Sub), as OpenCV writes it, so the
one stream of compressed rows can be cut into IDAT chunks anywhere.
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

import numpy as np

from restore import images
from restore.image_files import KIND_OF_SUFFIX
from restore.image_headers import flaw
from restore.png_parts import SIGNATURE, chunk

SUB = 1  # the filter that leaves each byte's difference from the pixel to the left
FASTEST = 1  # level of zlib


class Rows(Protocol):
    """Takes an image from the top. `begin` may come again: then what was added is forgotten."""

    def begin(self, height: int, width: int, channels: int, bits: int) -> None:
        """Expect an image of 1 (gray) or 3 (RGB) channels of 8 or 16 bits."""
        ...

    def add(self, rows: np.ndarray) -> None:
        """The next rows: (h, width[, 3]) uint8 or uint16."""
        ...


class Canvas(Rows):
    """An image in memory: `image`, (H, W[, 3]), whole when `height` rows have been added."""

    def begin(self, height: int, width: int, channels: int, bits: int) -> None:
        kind = np.uint8 if bits == 8 else np.uint16
        shape = (height, width) if channels == 1 else (height, width, channels)
        self.image, self._top = np.empty(shape, kind), 0

    def add(self, rows: np.ndarray) -> None:
        self.image[self._top : self._top + len(rows)] = rows
        self._top += len(rows)


class ImageFile(Rows):
    """An image file in the format of its suffix; usable in `with`, at whose end it appears whole,
    or not at all after an error. A PNG is written as its rows come; others are held until then.

    Folders are not made. Raises DataError IMG13 as `images.write` does.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        png = KIND_OF_SUFFIX.get(path.suffix.lower()) == "PNG"
        self._rows: Canvas | _Png = _Png(path) if png else Canvas()

    def begin(self, height: int, width: int, channels: int, bits: int) -> None:
        self._rows.begin(height, width, channels, bits)

    def add(self, rows: np.ndarray) -> None:
        self._rows.add(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(self._rows, _Png):
            self._rows.close(whole=error is None)
        elif error is None:
            images.write(self._path, self._rows.image)


class _Png(Rows):
    """A PNG under a temporary name beside `path`, until it is closed as whole."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, _opened(path)

    def begin(self, height: int, width: int, channels: int, bits: int) -> None:
        self._pixel, self._missing = channels * bits // 8, height
        self._stride = width * self._pixel  # bytes of a row
        self._deflate = zlib.compressobj(FASTEST)
        colour = 2 if channels == 3 else 0
        header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
        try:
            self._file.seek(0)
            self._file.truncate()
        except OSError as error:
            raise _unwritable(self._path, error) from None
        self._write(SIGNATURE + chunk(b"IHDR", header))

    def add(self, rows: np.ndarray) -> None:
        self._missing -= len(rows)
        body = np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder(">"), copy=False))
        body = body.reshape(-1).view(np.uint8).reshape(len(rows), self._stride)
        filtered = np.empty((len(rows), 1 + self._stride), np.uint8)
        filtered[:, 0] = SUB
        filtered[:, 1 : 1 + self._pixel] = body[:, : self._pixel]
        left, values = body[:, : -self._pixel], body[:, self._pixel :]
        np.subtract(values, left, out=filtered[:, 1 + self._pixel :])
        self._write_packed(self._deflate.compress(filtered.data))

    def close(self, *, whole: bool) -> None:
        """Give the file its name, or remove it."""
        temporary = Path(self._file.name)
        try:
            if whole:
                assert self._missing == 0
                self._write_packed(self._deflate.flush())
                self._write(chunk(b"IEND", b""))
            self._file.close()
            if whole:
                os.replace(temporary, self._path)
        except OSError as error:
            raise _unwritable(self._path, error) from None
        finally:
            self._file.close()
            temporary.unlink(missing_ok=True)

    def _write_packed(self, packed: bytes) -> None:
        if packed:
            self._write(chunk(b"IDAT", packed))

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise _unwritable(self._path, error) from None


def _opened(path: Path) -> IO[bytes]:
    # The name is short and of its own, as the target's may already be as long as names can be.
    try:
        return open(path.parent / f".{os.getpid()}-{secrets.token_hex(6)}.tmp", "xb")
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: Exception) -> Exception:
    fix = None if path.parent.is_dir() else "make the folder first"
    return flaw("IMG13", str(path), str(error), "a folder to write in", fix)
