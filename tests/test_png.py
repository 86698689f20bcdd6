"""PNG written and read by restore.png, against OpenCV, Pillow and the specification's filters."""

from __future__ import annotations

import ctypes
import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as pictures

from restore import image_kernels, images, png
from restore.errors import DataError
from restore.ops import native

FILTERS = range(5)  # None, Sub, Up, Average, Paeth
CONTENTS = ("noise", "constant", "ramp", "extremes")
sides = st.integers(1, 40)
cases = {
    "height": sides, "width": sides, "dtype": st.sampled_from([np.uint8, np.uint16]),
    "content": st.sampled_from(CONTENTS), "seed": st.integers(0, 999),
}  # fmt: skip


def drawn(
    height: int, width: int, gray: bool, dtype: type[np.unsignedinteger], content: str, seed: int
) -> np.ndarray:
    shape = (height, width) if gray else (height, width, 3)
    top, rng = int(np.iinfo(dtype).max), np.random.default_rng(seed)
    if content == "constant":
        return np.full(shape, rng.integers(top + 1), dtype)
    if content == "ramp":
        return (
            (np.arange(np.prod(shape)) * rng.integers(1, 300) % (top + 1))
            .reshape(shape)
            .astype(dtype)
        )
    if content == "extremes":
        return rng.choice(np.array([0, 1, top - 1, top], dtype), shape)
    return rng.integers(0, top + 1, shape, dtype)


def by_opencv(encoded: bytes) -> np.ndarray:
    """As another reader sees it: RGB or gray."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image[..., ::-1] if image.ndim == 3 else image


def filtered(image: np.ndarray, kinds: list[int]) -> bytes:
    """The rows of an image, row y by filter `kinds[y]`, written from the specification."""
    pixel = image.itemsize * (3 if image.ndim == 3 else 1)
    raw = image.astype(image.dtype.newbyteorder(">")).tobytes()
    count = len(raw) // len(image)
    rows = [bytes(count), *(raw[at : at + count] for at in range(0, len(raw), count))]
    out = bytearray()
    for kind, above, row in zip(kinds, rows, rows[1:], strict=False):
        out.append(kind)
        for x, value in enumerate(row):
            a, c = (row[x - pixel], above[x - pixel]) if x >= pixel else (0, 0)
            b, p = above[x], a + above[x] - c
            nearest = min((a, b, c), key=lambda v, p=p: abs(p - v))
            out.append((value - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
    return bytes(out)


def assembled(image: np.ndarray, rows: bytes, pieces: int = 1) -> bytes:
    """A PNG of filtered rows, deflated by zlib, in several IDAT chunks."""
    packed = zlib.compress(rows)
    step = -(-len(packed) // pieces)
    header = struct.pack(">IIBBBBB", image.shape[1], len(image), 8 * image.itemsize, 2, 0, 0, 0)
    parts = [(b"IDAT", packed[at : at + step]) for at in range(0, len(packed), step)]
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in [(b"IHDR", header), *parts, (b"IEND", b"")]:
        crc = zlib.crc32(name + body)
        out += struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)
    return out


@given(gray=st.booleans(), **cases)
@settings(max_examples=200)
def test_what_is_written_others_read(
    height: int, width: int, gray: bool, dtype: type[np.unsignedinteger], content: str, seed: int
) -> None:
    image = drawn(height, width, gray, dtype, content, seed)
    encoded = images.encode(image, ".png", "x")
    assert encoded == images.encode(np.asfortranarray(image), ".png", "x")
    np.testing.assert_array_equal(by_opencv(encoded), image)
    if gray or dtype == np.uint8:  # Pillow has no RGB of 16 bits
        with Image.open(io.BytesIO(encoded)) as opened:
            np.testing.assert_array_equal(np.asarray(opened), image)
    back = images.decode(encoded, "x")
    assert back.dtype == image.dtype and back.flags.c_contiguous and back.flags.writeable
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (513, 257)])
def test_extremes(
    size: tuple[int, int], content: str, gray: bool, dtype: type[np.unsignedinteger]
) -> None:
    image = drawn(*size, gray, dtype, content, 0)
    encoded = png.encode(image)
    assert encoded is not None and encoded == png.encode(image.copy())
    np.testing.assert_array_equal(by_opencv(encoded), image)
    np.testing.assert_array_equal(images.decode(encoded, "x"), image)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "brick"])
def test_files_are_no_larger_than_opencv_makes_them(name: str) -> None:
    image = getattr(pictures, name)()
    size = 2 * image.shape[1], 2 * image.shape[0]
    large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    for picture in (image, large):
        encoded = png.encode(picture)
        assert encoded is not None
        assert len(encoded) < 1.1 * len(cv2.imencode(".png", picture)[1])


def test_a_side_beyond_what_others_read() -> None:
    with pytest.raises(DataError, match="IMG13.*1000001x1 pixels"):
        images.encode(np.zeros((1, 1_000_001), np.uint8), ".png", "x")
    longest = np.zeros((1, 1_000_000, 3), np.uint8)
    assert images.decode(images.encode(longest, ".png", "x"), "x").shape == longest.shape


def test_pixels_in_several_chunks() -> None:
    image = drawn(1000, 200, False, np.uint8, "noise", 0)
    encoded = png.encode(image)
    assert encoded is not None and encoded.count(b"IDAT") > 3
    np.testing.assert_array_equal(by_opencv(encoded), image)
    np.testing.assert_array_equal(images.decode(encoded, "x"), image)


@given(kinds=st.lists(st.sampled_from(FILTERS), min_size=40, max_size=40), **cases)
@settings(max_examples=200)
def test_every_filter_is_undone(
    height: int,
    width: int,
    dtype: type[np.unsignedinteger],
    content: str,
    seed: int,
    kinds: list[int],
) -> None:
    image = drawn(height, width, False, dtype, content, seed)
    encoded = assembled(image, filtered(image, kinds), pieces=1 + seed % 4)
    np.testing.assert_array_equal(by_opencv(encoded), image)
    rows = png.rows_of(encoded)
    assert rows is not None
    np.testing.assert_array_equal(by_opencv(rows.stored()), image)
    if image_kernels.compiled() is not None:
        found = rows.image()
        assert found is not None and found.dtype == image.dtype
        np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(images.decode(encoded, "x"), image)
    top, left = seed % height, seed % width
    part = images.decode_part(encoded, "x", slice(top, height), slice(left, width))
    np.testing.assert_array_equal(part, image[top:, left:])


def test_what_is_left_to_opencv() -> None:
    image = drawn(6, 5, False, np.uint8, "noise", 0)
    rows = filtered(image, [0] * 6)
    right = assembled(image, rows)
    assert png.rows_of(assembled(image, rows[:-1])) is None  # too few
    assert png.rows_of(right.replace(zlib.compress(rows)[:6], bytes(6))) is None
    for at, value in ((24, 4), (25, 6), (26, 1), (27, 64), (28, 1)):  # of the header
        assert png.rows_of(right[:at] + bytes([value]) + right[at + 1 :]) is None
    unknown = assembled(image, b"\5" + rows[1:])
    found = png.rows_of(unknown)
    assert found is not None and found.image() is None
    with pytest.raises(DataError, match="IMG04"):
        images.decode(unknown, "x")
    np.testing.assert_array_equal(images.decode(assembled(image, rows + b"more"), "x"), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_same_pixels_without_a_compiler(
    dtype: type[np.unsignedinteger], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = drawn(9, 7, False, dtype, "noise", 0)
    encoded = assembled(image, filtered(image, [4, 3, 1, 2, 4, 3, 2, 1, 0]))

    def none(*_: object) -> ctypes.CDLL:
        raise native.BuildError("no C++ compiler found")

    image_kernels.compiled.cache_clear()
    monkeypatch.setattr(native, "library", none)
    try:
        assert image_kernels.compiled() is None
        np.testing.assert_array_equal(images.decode(encoded, "x"), image)
        part = images.decode_part(encoded, "x", slice(1, 5), slice(2, 6))
        np.testing.assert_array_equal(part, image[1:5, 2:6])
    finally:
        image_kernels.compiled.cache_clear()
