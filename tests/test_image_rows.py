"""Images written row by row: the same pixels in any reader, whole or not at all, little memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from restore import images
from restore.archs.architecture import SizeRule
from restore.errors import DataError
from restore.evaluation.options import PredictorOptions
from restore.evaluation.predictor import Predictor
from restore.image_rows import Canvas, ImageFile


class Twice(nn.Module):
    """Repeats pixels; fails with MemoryError on tiles of more than `most` pixels a side."""

    def __init__(self, most: int = 10_000) -> None:
        super().__init__()
        self.most, self.refused = most, 0

    def forward(self, x: Tensor) -> Tensor:
        if max(x.shape[-2:]) > self.most and x.shape[-1] != 128:  # 128: where memory is measured
            self.refused += 1
            raise MemoryError
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def picture(height: int, width: int, channels: int, bits: int) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    numbers = np.random.default_rng(height).integers(0, 2**bits, shape)
    return numbers.astype(np.uint8 if bits == 8 else np.uint16)


def write_in_parts(path: Path, image: np.ndarray, *stops: int) -> None:
    height, width = image.shape[:2]
    with ImageFile(path) as file:
        file.begin(height, width, image.ndim if image.ndim == 3 else 1, 8 * image.itemsize)
        for start, stop in zip((0, *stops), (*stops, height), strict=True):
            file.add(image[start:stop])


@given(
    height=st.integers(2, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    bits=st.sampled_from([8, 16]),
    data=st.data(),
)
@settings(max_examples=60)
def test_a_png_in_parts_is_the_image(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, channels: int, bits: int,
    data: st.DataObject,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("png") / "a.png"
    image = picture(height, width, channels, bits)
    write_in_parts(path, image, data.draw(st.integers(0, height)))
    assert np.array_equal(images.read(path), image)
    if channels == 1 or bits == 8:  # Pillow knows no 16-bit RGB
        assert np.array_equal(np.asarray(Image.open(path)), image)


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".webp", ".PNG"])
def test_other_suffixes_hold_the_image(tmp_path: Path, suffix: str) -> None:
    image = picture(30, 20, 3, 8)
    write_in_parts(tmp_path / f"a{suffix}", image, 7)
    assert np.array_equal(images.read(tmp_path / f"a{suffix}"), image)


def test_what_was_added_before_a_new_beginning_is_forgotten(tmp_path: Path) -> None:
    image, canvas = picture(30, 20, 3, 8), Canvas()
    with ImageFile(tmp_path / "a.png") as file:
        for rows in (file, canvas):
            rows.begin(30, 20, 3, 8)
            rows.add(image[:11] // 2)
            rows.begin(30, 20, 3, 8)
            rows.add(image)
    assert np.array_equal(images.read(tmp_path / "a.png"), image)
    assert np.array_equal(canvas.image, image)


def test_after_an_error_nothing_is_left_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before")
    with pytest.raises(KeyError), ImageFile(path) as file:
        file.begin(30, 20, 3, 8)
        file.add(picture(11, 20, 3, 8))
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and path.read_bytes() == b"before"


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DataError, match="IMG13.*fix: make the folder first"):
        write_in_parts(tmp_path / "none" / f"a{suffix}", picture(3, 4, 3, 8), 1)


def test_16_bits_do_not_go_into_a_jpeg(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="uint8 for JPEG"):
        write_in_parts(tmp_path / "a.jpg", picture(3, 4, 3, 16), 1)


@pytest.mark.parametrize("ensemble, tiling", [(1, "blend"), (4, "blend"), (4, "mair")])
def test_a_restored_file_is_what_restore_gives(tmp_path: Path, ensemble: int, tiling: str) -> None:
    values = {"ensemble": ensemble, "tiling": tiling}
    options = PredictorOptions.model_validate(values | ({"tile": 70} if tiling == "blend" else {}))
    predictor = Predictor(Twice(), 2, SizeRule(), options=options)
    image = picture(150, 210, 3, 8)
    with ImageFile(tmp_path / "a.png") as file:
        predictor.write(image, file)
    assert np.array_equal(images.read(tmp_path / "a.png"), predictor.restore(image))


def test_smaller_tiles_begin_the_file_again(tmp_path: Path) -> None:
    network = Twice(most=200)
    options = PredictorOptions(tile_memory=0.01)
    predictor = Predictor(network, 2, SizeRule(), options=options)
    image = picture(300, 500, 1, 16)
    with ImageFile(tmp_path / "a.png") as file:
        predictor.write(image, file)
    assert network.refused
    assert np.array_equal(images.read(tmp_path / "a.png"), image.repeat(2, 0).repeat(2, 1))


def test_a_tall_image_is_never_whole_in_memory(tmp_path: Path) -> None:
    image = np.zeros((6000, 400, 3), np.uint8)
    predictor = Predictor(Twice(), 2, SizeRule(), options=PredictorOptions(tile=100))
    tracemalloc.start()  # NumPy's arrays; what torch holds is a row of tiles
    with ImageFile(tmp_path / "a.png") as file:
        predictor.write(image, file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < image.nbytes  # a quarter of the result
