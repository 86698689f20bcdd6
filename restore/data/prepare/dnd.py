"""Floor 3. DND's noisy images, cut into the 20 boxes that its server scores.

`info.mat` holds `info.boundingboxes`, 20 a image, [top left bottom right] counted from 1;
`images_srgb/0001.mat` holds `InoisySRGB`, values in [0, 1]. The files of dnd_2017 are MATLAB 7.3,
which is HDF5 and needs h5py; files saved again as MATLAB 5 are read without.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from restore import images
from restore.data.mat_files import Value, read_variable
from restore.errors import BackendError, DataError

BITS = 16  # the stored values are floats; 8 bits would round the noise


def read_blocks(folder: Path, path: str) -> Iterator[np.ndarray]:
    """The boxes of one image of the set in `folder`: uint16 (512, 512, 3). Raises DataError DAT27,
    and BackendError DEV04 for MATLAB 7.3 without h5py."""
    number = int(Path(path).stem) - 1
    boxes = _read(folder / "info.mat", lambda file: _boxes(file, number))
    image = _read(folder / path, _image)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or image.ndim != 3 or image.shape[2] != 3:
        got = f"boxes of shape {boxes.shape}, image of shape {image.shape}"
        raise _not_dnd(folder / path, got)
    for top, left, bottom, right in np.rint(boxes).astype(int):
        if not (1 <= top <= bottom <= image.shape[0] and 1 <= left <= right <= image.shape[1]):
            raise _not_dnd(folder / path, f"a box {top, left, bottom, right} outside {image.shape}")
        yield images.quantise(image[top - 1 : bottom, left - 1 : right], BITS)


def _read(file: Path, of: Any) -> np.ndarray:
    if not file.is_file():
        raise _not_dnd(file, "no such file")
    try:
        return np.asarray(of(file), np.float64)
    except BackendError:
        raise
    except Exception as error:  # h5py raises whatever the bytes make it raise
        said = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise _not_dnd(file, said) from None


def _is_hdf5(file: Path) -> bool:
    with open(file, "rb") as stream:
        return b"MATLAB 7.3" in stream.read(128)


def _hdf5(file: Path) -> Any:
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise BackendError.of(
            "DEV04",
            "h5py is not installed",
            str(file),
            "a MATLAB 7.3 file, which is HDF5",
            "the h5py package, as only MATLAB up to 7.2 is read without",
            "pip install h5py, or save the file again in MATLAB with -v7",
        ) from error
    return h5py.File(file, "r")


def _boxes(file: Path, number: int) -> np.ndarray:
    """The boxes (20, 4) of image `number`, from 0."""
    if not _is_hdf5(file):
        info = read_variable(file, "info")
        found = info["boundingboxes"].ravel("F") if isinstance(info, dict) else ()
        if len(found) != 1 or not isinstance(found[0], np.ndarray):
            raise ValueError("info is not one structure with boundingboxes")
        return _numbers(found[0].ravel("F")[number])
    with _hdf5(file) as held:
        found = held["info"]["boundingboxes"]
        return np.asarray(held[found[0][number]]).T


def _image(file: Path) -> np.ndarray:
    """The noisy image, (H, W, 3) in [0, 1]."""
    if not _is_hdf5(file):
        return _numbers(read_variable(file, "InoisySRGB"))
    with _hdf5(file) as held:
        return np.asarray(held["InoisySRGB"]).T  # HDF5 keeps MATLAB's columns first


def _numbers(value: Value) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype == object:
        raise ValueError("no numbers")
    return value


def _not_dnd(file: Path, got: str) -> DataError:
    return DataError.of(
        "DAT27",
        "a file is not as DND's are",
        str(file),
        got,
        "info.mat with info.boundingboxes, and images_srgb/0001.mat with InoisySRGB",
        "download it again",
    )
