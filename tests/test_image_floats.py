"""Integers made floats: by division, compiled or not, wherever the pixels lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore import image_floats, images


@pytest.fixture(params=["compiled", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(image_floats, "compiled", lambda: None)
    elif image_floats.compiled() is None:
        pytest.skip("no C++ compiler")


def divided(image: np.ndarray) -> np.ndarray:
    pixels = image[..., None] if image.ndim == 2 else image
    return pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_every_value_is_divided(dtype: type, channels: int) -> None:
    values = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    image = np.stack([np.roll(values, shift) for shift in range(channels)], axis=1)[None]
    np.testing.assert_array_equal(images.to_float(image), divided(image))


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 40),
    channels=st.sampled_from([None, 1, 3, 6]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    step=st.sampled_from([(1, 1), (2, 1), (1, 2), (-1, 1), (1, -1)]),
)
def test_parts_of_an_image_are_read_where_they_lie(
    height: int, width: int, channels: int | None, dtype: type, step: tuple[int, int]
) -> None:
    shape = (2 * height + 3, 2 * width + 3, *([channels] if channels else []))
    whole = np.random.default_rng(width).integers(0, 60_000, shape).astype(dtype)
    part = whole[1 : -1 : step[0], 2 :: step[1]]
    out = np.full((channels or 1, *part.shape[:2]), np.nan, np.float32)
    assert images.to_float(part, out) is out
    np.testing.assert_array_equal(out, divided(part))
