"""Floor 3. SIDD's validation blocks: two MATLAB files of (images, blocks, height, width, 3) uint8.

The array in each has the name of its file. The real set is (40, 32, 256, 256, 3).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from scipy.io import savemat

from restore.data.mat_files import heads, read_variable
from restore.errors import DataError

BLOCK_FILES = ("ValidationNoisyBlocksSrgb.mat", "ValidationGtBlocksSrgb.mat")  # LQ, GT
HEADER = b"MATLAB 5.0 MAT-file"


def shape_of_blocks(noisy: Path, clean: Path, *, channels: int) -> tuple[int, ...]:
    """The shape that both files have, from their headers. Raises DataError."""
    shapes = [_shape(file) for file in (noisy, clean)]
    if shapes[0] != shapes[1]:
        raise DataError.of(
            "DAT06",
            "LQ and GT sizes do not fit the scale",
            f"{noisy} and {clean}",
            f"{shapes[0]} and {shapes[1]}",
            "one shape",
            "download both files again",
        )
    if channels != 3:
        raise DataError.of(
            "IMG05", "not an image that can be used", str(noisy), "RGB blocks", "gray images",
            "use a network of 3 channels",
        )  # fmt: skip
    return shapes[0]


def read_blocks(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The blocks in `file`: uint8 of `shape`. Raises DataError."""
    try:
        blocks = read_variable(file, file.stem)
    except (OSError, ValueError) as error:
        raise _not_blocks(file, str(error)) from None
    if not isinstance(blocks, np.ndarray) or blocks.dtype != np.uint8 or blocks.shape != shape:
        raise _not_blocks(file, f"not uint8 of shape {shape}")
    return blocks


def write_blocks(file: Path, blocks: np.ndarray) -> None:
    """Write uint8 `(images, blocks, height, width, 3)` as `read_blocks` reads it: the same bytes
    at any time, as the header holds no date."""
    assert blocks.dtype == np.uint8 and blocks.ndim == 5 and blocks.shape[4] == 3
    buffer = io.BytesIO()
    savemat(buffer, {file.stem: blocks}, do_compression=True)
    written = buffer.getvalue()
    file.write_bytes(HEADER.ljust(116) + written[116:])  # bytes 116 to 127 are no text


def _shape(file: Path) -> tuple[int, ...]:
    if not file.is_file():
        raise DataError.of(
            "DAT02",
            "a file of the data set is missing",
            str(file),
            "no such file",
            " and ".join(BLOCK_FILES) + " in dataroot",
            "check dataroot",
        )
    try:
        held = {head.name: (head.shape, head.kind) for head in reversed(heads(file))}
    except (OSError, ValueError) as error:
        raise _not_blocks(file, str(error)) from None
    shape, kind = held.get(file.stem, ((), "nothing of that name"))
    if kind != "uint8" or len(shape) != 5 or shape[4] != 3 or 0 in shape:
        raise _not_blocks(file, f"{kind} of shape {shape}" if shape else ", ".join(held) or "empty")
    return shape


def _not_blocks(file: Path, got: str) -> DataError:
    return DataError.of(
        "DAT18",
        "a file does not hold SIDD's blocks",
        str(file),
        got,
        f"{file.stem}: uint8 of shape (images, blocks, height, width, 3), MATLAB 5",
        "download it again",
    )
