"""Floor 2. Images that grow row by row: in memory, or as a PNG file, which is then never held."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from restore import png
from restore.image_files import KIND_OF_SUFFIX
from restore.image_writing import WholeFile, too_large, write


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

    Folders are not made. Raises DataError IMG13.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        by_rows = KIND_OF_SUFFIX.get(path.suffix.lower()) == "PNG"
        self._rows: Canvas | _Png = _Png(path) if by_rows else Canvas()

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
            write(self._path, self._rows.image)


class _Png(Rows):
    """A PNG of rows as they come; `close` gives the file its name, or removes it."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, WholeFile(path)

    def begin(self, height: int, width: int, channels: int, bits: int) -> None:
        if max(height, width) > png.LARGEST_SIDE:
            raise too_large(str(self._path), height, width, "PNG")
        self._encoder, self._missing = png.Encoder(height, width, channels, bits), height
        self._file.clear()
        self._file.write(self._encoder.head)

    def add(self, rows: np.ndarray) -> None:
        self._missing -= len(rows)
        self._file.write(self._encoder.rows(rows))

    def close(self, *, whole: bool) -> None:
        try:
            if whole:
                assert self._missing == 0
                self._file.write(self._encoder.end())
                self._file.finish()
        finally:
            self._file.discard()
