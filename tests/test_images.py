"""Every promise of restore.images: each bad file by its code, each good one by its pixels."""

from __future__ import annotations

import io
import logging
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from restore import images
from restore.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (9, 13, 3), dtype=np.uint8)
GRAY = RNG.integers(0, 256, (9, 13), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (9, 13, 3), dtype=np.uint16)
GRAY16 = RNG.integers(0, 65536, (9, 13), dtype=np.uint16)


def pil(array: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG of filtered `rows`, with whole chunks `more` before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def refused(data: bytes, **options: Any) -> str:
    """The code that decoding `data` is refused with; `check` must say the same or nothing."""
    with pytest.raises(DataError) as caught:
        images.decode(data, "x", **options)
    problem = caught.value.problems[0]
    assert problem.where == "x" and problem.fix and problem.got and problem.expected
    return problem.code


# The one convention -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".tiff", ".webp"])
@pytest.mark.parametrize("image", [RGB, GRAY], ids=["rgb", "gray"])
def test_round_trip_8_bit(tmp_path: Path, suffix: str, image: np.ndarray) -> None:
    path = tmp_path / f"a{suffix}"
    images.write(path, image)
    back = images.read(path)
    expected = images.as_rgb(image) if suffix == ".webp" else image  # WebP has no gray
    assert back.dtype == np.uint8 and back.flags.c_contiguous and back.flags.writeable
    np.testing.assert_array_equal(back, expected)
    assert images.read_size(path) == images.check(path) == (9, 13)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("image", [RGB16, GRAY16], ids=["rgb", "gray"])
def test_round_trip_16_bit(tmp_path: Path, suffix: str, image: np.ndarray) -> None:
    path = tmp_path / f"a{suffix}"
    images.write(path, image)
    back = images.read(path)
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, image)


@given(
    height=st.integers(1, 70), width=st.integers(1, 70), gray=st.booleans(),
    how=st.sampled_from([(".png", 8), (".bmp", 8), (".tif", 8), (".png", 16), (".tif", 16)]),
    data=st.data(),
)  # fmt: skip
@settings(max_examples=80)
def test_any_size_comes_back_whole_and_in_part(
    height: int, width: int, gray: bool, how: tuple[str, int], data: st.DataObject
) -> None:
    suffix, bits = how
    shape = (height, width) if gray else (height, width, 3)
    rng = np.random.default_rng(height * 71 + width)
    image = rng.integers(0, 2**bits, shape).astype(np.uint8 if bits == 8 else np.uint16)
    file = images.encode(image, suffix, "x")
    assert images.stored_size(file, "x") == images.check("x", file) == (height, width)
    np.testing.assert_array_equal(images.decode(file, "x"), image)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    rows = slice(top, data.draw(st.integers(top + 1, height)))
    columns = slice(left, data.draw(st.integers(left + 1, width)))
    np.testing.assert_array_equal(
        images.decode_part(file, "x", rows, columns), image[rows, columns]
    )


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_is_close_and_agrees_with_pillow(tmp_path: Path, suffix: str) -> None:
    smooth = cv2.resize(RGB, (128, 96), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / f"a{suffix}"
    images.write(path, smooth)
    back = images.read(path)
    assert np.abs(back.astype(int) - smooth).mean() < 4
    assert np.abs(back.astype(int) - np.asarray(Image.open(path))).max() <= 2
    images.write(path, smooth[..., 0])
    assert images.read(path).shape == (96, 128)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_colours_are_rgb_by_pillow(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(images.decode(pil(RGB, kind, **options), "x"), RGB)


def test_interlaced_low_depth_and_palette_png() -> None:
    palette = Image.fromarray(RGB).convert("P")
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(images.decode(pil(palette, "PNG"), "x"), expected)
    np.testing.assert_array_equal(images.decode(pil(palette, "BMP"), "x"), expected)
    np.testing.assert_array_equal(images.decode(pil(palette, "TIFF"), "x"), expected)
    assert images.decode(png(2, 1, 4, 0, b"\0\x1f"), "x").tolist() == [[17, 255]]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 7}])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_tiff_layouts(order: str, planes: str, layout: dict[str, Any], orientation: int) -> None:
    """OpenCV alone turns 8-bit tiles wrongly and reads separate 16-bit planes as noise."""
    tag = [(274, "H", 1, orientation, True)]
    for depth in (8, 16):
        image = RNG.integers(0, 2**depth, (37, 53, 3), dtype=f"u{depth // 8}")
        data = tiff(
            image.transpose(2, 0, 1) if planes == "separate" else image, photometric="rgb",
            planarconfig=planes, byteorder=order, compression="zlib", extratags=tag, **layout,
        )  # fmt: skip
        if planes == "separate" and depth == 16:
            assert refused(data, orient="apply") == "IMG05"
        else:
            turned = images.decode(data, "x", orient="apply")
            np.testing.assert_array_equal(turned, images._upright(image, orientation))


def test_bmp_from_the_top_down() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 1, -2, 1, 24, 0, 8, 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 62, 0, 0, 54) + header + bytes([3, 2, 1, 0, 6, 5, 4, 0])
    assert images.decode(data, "x").tolist() == [[[1, 2, 3]], [[4, 5, 6]]]


def test_channels() -> None:
    gray = images.decode(pil(GRAY, "PNG"), "x", channels=3)
    np.testing.assert_array_equal(gray, np.repeat(GRAY[..., None], 3, axis=2))
    assert images.decode(pil(GRAY, "PNG"), "x", channels=1).shape == (9, 13)
    assert refused(pil(RGB, "PNG"), channels=1) == "IMG05"
    np.testing.assert_array_equal(images.as_rgb(GRAY16)[..., 1], GRAY16)
    assert images.as_rgb(RGB) is RGB


@given(st.sampled_from([8, 16]), st.integers(1, 7), st.integers(1, 7), st.booleans(), st.data())
@settings(max_examples=60)
def test_quantise_undoes_to_float(
    bits: int, height: int, width: int, gray: bool, data: st.DataObject
) -> None:
    shape = (height, width) if gray else (height, width, 3)
    seed = data.draw(st.integers(0, 2**32 - 1))
    dtype = np.uint8 if bits == 8 else np.uint16
    image = np.random.default_rng(seed).integers(0, 2**bits, shape, dtype=dtype)
    floats = images.to_float(image)
    assert floats.shape == ((1 if gray else 3), height, width)
    assert floats.dtype == np.float32 and floats.flags.c_contiguous
    assert 0 <= floats.min() and floats.max() <= 1
    back = images.interleaved(images.quantise(floats, bits))
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize("bits", [8, 16])
def test_every_level_survives(bits: int) -> None:
    levels = np.arange(2**bits, dtype=np.uint8 if bits == 8 else np.uint16)[None]
    np.testing.assert_array_equal(images.quantise(images.to_float(levels), bits)[0], levels)
    np.testing.assert_array_equal(images.quantise(levels / (2**bits - 1), bits), levels)


def test_quantise_clamps_rounds_half_to_even_and_refuses_nan() -> None:
    halves = np.array([-1.0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 7.0, np.inf])
    assert images.quantise(halves).tolist() == [0, 0, 2, 2, 255, 255]
    assert images.quantise(np.array([1.0, 0.25], np.float16), 16).tolist() == [65535, 16384]
    assert int(images.quantise(np.array(0.5))) == 128
    floats = halves.copy()
    images.quantise(floats)
    np.testing.assert_array_equal(floats, halves)  # the caller's array is left alone
    with pytest.raises(DataError, match=r"^error\[IMG12\]: the image holds NaN"):
        images.quantise(np.array([0.0, np.nan], np.float32))


def test_luma_is_the_formula() -> None:
    weights = np.array([65.481, 128.553, 24.966])
    y = images.luma(RGB)
    assert y.dtype == np.float64 and y.shape == (9, 13)
    np.testing.assert_allclose(y, RGB.astype(float) @ weights / 255 + 16, rtol=0, atol=1e-11)
    np.testing.assert_allclose(images.luma(RGB.astype(np.uint16) * 257), y, rtol=0, atol=1e-11)
    ends = images.luma(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8))
    np.testing.assert_allclose(ends, [[16, 235]])


# Files that are no image, cut short or damaged ----------------------------------------------------


def test_no_file(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe.png"
    os.mkfifo(fifo)
    for path in (tmp_path / "none.png", tmp_path, fifo, tmp_path / "n\0ul.png"):
        for ask in (images.read, images.read_size, images.check):
            with pytest.raises(DataError, match=r"^error\[IMG00\]"):
                ask(path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    images.write(path, RGB)

    def no(*args: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", no)
    with pytest.raises(DataError, match=r"IMG00.*Permission denied"):
        images.read(path)


def test_empty_and_no_image(tmp_path: Path) -> None:
    empty = tmp_path / "a.png"
    empty.touch()
    for ask in (images.read, images.read_size, images.check):
        with pytest.raises(DataError, match="IMG01"):
            ask(empty)
    assert refused(b"") == "IMG01"
    assert refused(b"version https://git-lfs.github.com/spec/v1") == "IMG02"
    assert refused(b"BMW is a car maker, not an image") == "IMG02"
    assert refused(b"\x89PNG") == "IMG02"


@pytest.mark.parametrize("array", [RGB, GRAY], ids=["rgb", "gray"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_cut_at_every_length(kind: str, array: np.ndarray) -> None:
    data = pil(array, kind)
    allowed = {"IMG03"} if kind in ("PNG", "JPEG", "WEBP") else {"IMG03", "IMG02", "IMG04"}
    harmless = 3 if kind == "TIFF" else 0  # padding
    for length in range(26, len(data) - harmless):
        assert refused(data[:length]) in allowed, length
    for length in range(1, 26):
        assert refused(data[:length]) in {"IMG02", "IMG03", "IMG04"}, length


def test_bits_flipped_everywhere_in_a_png() -> None:
    data = pil(RGB[:3, :4], "PNG")
    for at in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            assert refused(bytes(broken)) in {"IMG02", "IMG03", "IMG04"}, (at, bit)


BASE = pil(cv2.resize(RGB, (60, 40)), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")


def same_or_refused(data: bytes, truth: bytes) -> None:
    try:
        image = images.decode(data, "x")
    except DataError:
        return
    np.testing.assert_array_equal(image, images.decode(truth, "x"))


@given(st.integers(0, len(BASE)))
@settings(max_examples=150)
def test_a_cut_png_is_read_the_same_or_refused(length: int) -> None:
    same_or_refused(BASE[:length], BASE)


@given(st.lists(st.integers(0, 8 * len(BASE) - 1), min_size=1, max_size=4, unique=True))
@settings(max_examples=250)
def test_a_flipped_png_is_read_the_same_or_refused(bits: list[int]) -> None:
    broken = bytearray(BASE)
    for bit in bits:
        broken[bit // 8] ^= 1 << bit % 8
    same_or_refused(bytes(broken), BASE)


OTHERS = [
    pil(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\1\0\0\0\0\0\0\0"),
    pil(RGB, "TIFF", compression="tiff_lzw"), pil(RGB, "BMP"), pil(RGB, "WEBP"),
    pil(np.dstack([RGB, GRAY]), "WEBP", lossless=True), tiff(RGB16, photometric="rgb"),
]  # fmt: skip


@given(st.sampled_from(OTHERS), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=400)
def test_any_damage_to_other_formats_is_an_image_or_a_data_error(
    data: bytes, random: Any, cut: bool
) -> None:
    broken = bytearray(data)
    for _ in range(random.randint(1, 5)):
        broken[random.randrange(min(len(data), 400))] = random.randrange(256)
    broken = broken[: random.randrange(len(broken))] if cut else broken
    try:
        image = images.decode(bytes(broken), "x", alpha="drop", orient="apply", max_pixels=10**6)
    except DataError:
        return
    assert image.dtype in (np.uint8, np.uint16) and image.shape[2:] in ((), (3,))


def test_undecodable_pixels_with_good_checksums() -> None:
    assert refused(png(9, 9, 8, 2, b"\0" * 50)) == "IMG04"  # too few rows
    assert refused(png(9, 9, 7, 2, b"\0" * 500)) == "IMG04"  # no such depth
    assert refused(png(9, 9, 0, 0, b"\0" * 9, chunk(b"tRNS", b"\0\1"))) == "IMG04"  # none at all
    assert refused(png(0, 9, 8, 2, b"")) == "IMG04"
    assert refused(png(9, 9, 8, 3, b"\0" * 90)) == "IMG04"  # no palette


def test_jpeg_end_marker() -> None:
    thumbnail = pil(RGB, "JPEG")  # inside the metadata: its end marker is not the file's
    exif = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = pil(np.tile(RGB, (5, 5, 1)), "JPEG", progressive=True)
    with_thumbnail = data[:2] + exif + data[2:]
    images.decode(with_thumbnail, "x")
    images.decode(with_thumbnail + bytes(100), "x")
    images.decode(with_thumbnail + b"\0\0\0\x18ftypmp42 a film", "x")
    assert refused(with_thumbnail[:-2]) == "IMG03"
    assert refused(with_thumbnail[:-200]) == "IMG03"


# Formats that would not be read truly -------------------------------------------------------------


def test_bilevel_is_refused_and_16_bit_is_not() -> None:
    bilevel = Image.fromarray(GRAY > 99)
    for kind in ("PNG", "BMP", "TIFF"):
        assert refused(pil(bilevel, kind)) == "IMG05"
    assert refused(pil(bilevel, "TIFF", compression="group4")) == "IMG05"


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("gray", [True, False])
def test_alpha(gray: bool, depth: int) -> None:
    top = 2**depth - 1
    colour = RNG.integers(0, top + 1, (4, 5) if gray else (4, 5, 3))
    cover = RNG.integers(0, top, (4, 5))
    big_endian = np.dtype(f">u{depth // 8}")

    def encoded(alpha: np.ndarray) -> bytes:
        rows = np.dstack([colour, alpha]).astype(big_endian).reshape(4, -1)
        return png(5, 4, depth, 4 if gray else 6, b"".join(b"\0" + r.tobytes() for r in rows))

    np.testing.assert_array_equal(images.decode(encoded(np.full((4, 5), top)), "x"), colour)
    assert refused(encoded(cover)) == "IMG06"
    np.testing.assert_array_equal(images.decode(encoded(cover), "x", alpha="drop"), colour)
    share = cover / top if gray else cover[..., None] / top
    over_black = images.decode(encoded(cover), "x", alpha="black")
    assert over_black.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert np.abs(over_black - colour * share).max() <= 0.5


def test_transparent_keys_follow_the_alpha_rule() -> None:
    palette = Image.fromarray(RGB).convert("P")
    used = int(np.asarray(palette)[0, 0])
    assert refused(pil(palette, "PNG", transparency=used)) == "IMG06"
    dropped = images.decode(pil(palette, "PNG", transparency=used), "x", alpha="drop")
    np.testing.assert_array_equal(dropped, np.asarray(palette.convert("RGB")))
    assert refused(pil(RGB, "PNG", transparency=tuple(RGB[0, 0].tolist()))) == "IMG06"
    for depth, rows, key, values in (
        (8, b"\0\x03\xff", 3, [0, 255]), (16, b"\0\0\x03\xff\xff", 3, [0, 65535]),
        (4, b"\0\x3f", 3, [0, 255]),
    ):  # fmt: skip
        data = png(2, 1, depth, 0, rows, chunk(b"tRNS", struct.pack(">H", key)))
        assert refused(data) == "IMG06"
        assert images.decode(data, "x", alpha="black").tolist() == [values]
    unused = png(2, 1, 8, 0, b"\0\x03\xff", chunk(b"tRNS", b"\0\x09"))
    assert images.decode(unused, "x").tolist() == [[3, 255]]


def test_alpha_of_other_formats() -> None:
    opaque, real = np.dstack([RGB, np.full_like(GRAY, 255)]), np.dstack([RGB, GRAY])
    lossless = {"lossless": True, "exact": True}
    assert refused(pil(real, "WEBP", **lossless)) == "IMG06"
    np.testing.assert_array_equal(
        images.decode(pil(real, "WEBP", **lossless), "x", alpha="drop"), RGB
    )
    for kind in ("unassalpha", "assocalpha"):
        data = tiff(opaque, photometric="rgb", extrasamples=[kind])
        np.testing.assert_array_equal(images.decode(data, "x"), RGB)
        for rule in ("refuse", "drop", "black"):
            data = tiff(real, photometric="rgb", extrasamples=[kind])
            assert refused(data, alpha=rule) == "IMG06"
    assert refused(pil(Image.fromarray(GRAY).convert("LA"), "TIFF")) == "IMG06"


def test_cmyk() -> None:
    ink = Image.fromarray(RGB).convert("CMYK")
    assert refused(pil(ink, "JPEG")) == refused(pil(ink, "TIFF")) == "IMG07"


def test_a_turned_image_is_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    images._noted.clear()
    exif = Image.Exif()
    exif[274] = 6
    with caplog.at_level(logging.WARNING, "restore"):
        for where in ("a.jpg", "b.jpg"):
            images.decode(pil(RGB, "JPEG", exif=exif), where, orient="apply")
    assert caplog.messages == [
        "a.jpg is turned upright, as its EXIF orientation 6 says; others alike"
    ]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("array", [RGB, GRAY], ids=["rgb", "gray"])
def test_orientation(tmp_path: Path, kind: str, orientation: int, array: np.ndarray) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(pil(array, kind, exif=exif, **options))
    # From bytes: Pillow forgets to turn an uncompressed gray TIFF that it opens by its path.
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(path.read_bytes()))))
    if orientation == 1:
        np.testing.assert_array_equal(images.read(path), images.read(path, orient="apply"))
    else:
        for ask in (images.read, images.check):
            with pytest.raises(DataError, match=f"IMG08.*EXIF orientation {orientation}"):
                ask(path)
    image = images.read(path, orient="apply")
    assert image.flags.c_contiguous
    if kind == "WEBP" and array is GRAY:
        expected = images.as_rgb(expected) if expected.ndim == 2 else expected
    np.testing.assert_allclose(image, expected, atol=2 if kind == "JPEG" else 0)
    assert images.check(path, orient="apply") == image.shape[:2]
    assert images.read_size(path) == (9, 13)  # as stored


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_as_a_long_number(order: str) -> None:
    data = tiff(RGB, photometric="rgb", byteorder=order, extratags=[(274, "I", 1, 6, True)])
    assert refused(data) == "IMG08"
    image = images.decode(data, "x", orient="apply")
    np.testing.assert_array_equal(image, np.rot90(RGB, -1))


def test_broken_exif_is_no_reason_to_refuse() -> None:
    for block in (b"", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", b"MM\0*\xff\xff\xff\xff", b"junk" * 9):
        images.decode(pil(RGB, "JPEG", exif=b"Exif\0\0" + block), "x")
    no_end = b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0"
    assert refused(pil(RGB, "JPEG", exif=b"Exif\0\0" + no_end)) == "IMG08"
    nine = b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0\0\0\0\0\0\0"
    images.decode(pil(RGB, "JPEG", exif=b"Exif\0\0" + nine), "x")


def test_more_than_one_frame() -> None:
    first, rest = Image.fromarray(RGB), [Image.fromarray(RGB[::-1].copy())]
    for kind in ("PNG", "WEBP", "TIFF", "GIF"):
        assert refused(pil(first, kind, save_all=True, append_images=rest)) == "IMG11"
    assert refused(pil(first, "GIF")) == "IMG11"


def test_numbers_without_a_declared_range() -> None:
    floats = RNG.random((5, 6), dtype=np.float32)
    assert refused(tiff(floats)) == refused(tiff(floats.astype(float))) == "IMG05"
    for bad in (np.nan, np.inf):
        floats[2, 3] = bad
        assert refused(tiff(floats)) == "IMG12"
    assert refused(tiff(floats.astype(np.float16))) == "IMG05"
    for dtype in (np.int8, np.int16, np.uint32):
        assert refused(tiff(GRAY.astype(dtype))) == "IMG05"
    assert refused(tiff(GRAY, photometric="miniswhite")) == "IMG05"
    bmp16 = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 0, 4, 0, 0, 0, 0) + b"\xff\x7f\0\0"
    assert refused(b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + bmp16) == "IMG05"
    jpeg = bytearray(pil(RGB, "JPEG"))
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12  # bits a sample
    assert refused(bytes(jpeg)) == "IMG05"


# Bombs --------------------------------------------------------------------------------------------


def test_too_many_pixels_are_refused_by_the_header() -> None:
    wide = [
        png(60_000, 60_000, 8, 2, b"tiny"),
        b"BM" + struct.pack("<IHHI", 0, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 30_000, -30_000, 1, 24, 0, 0, 0, 0, 0, 0),
        b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\1\x11\0",
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\0\xff\xff\0",
        b"II*\0\x08\0\0\0\2\0\0\1\4\0\1\0\0\0\0\0\1\0\1\1\4\0\1\0\0\0\0\0\1\0\0\0\0\0",
    ]  # fmt: skip
    for data in wide:
        assert refused(data) == "IMG09"
    assert refused(pil(RGB, "PNG"), max_pixels=116) == "IMG09"
    assert images.decode(pil(RGB, "PNG"), "x", max_pixels=117).shape == RGB.shape
    assert refused(png(50_000, 50_000, 8, 2, b""), max_pixels=10**10) == "IMG09"


def test_too_large_a_tile() -> None:
    data = bytearray(tiff(RGB, photometric="rgb", tile=(16, 16), compression="zlib"))
    at = data.index(struct.pack("<HHI", 322, 4, 1)) + 8  # tile width
    data[at : at + 4] = struct.pack("<I", 1 << 24)
    assert refused(bytes(data)) == "IMG09"


def test_too_large_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(70 << 20)
    with pytest.raises(DataError, match="IMG09.*a file of 73400320 bytes"):
        images.read(path, max_pixels=1000)


def test_compressed_text_bombs() -> None:
    row = b"\0" + RGB[0].tobytes()
    bomb = zlib.compress(bytes(9 << 20), 9)
    part = zlib.compress(bytes(5 << 20), 9)
    noise = zlib.compress(RNG.bytes(3 << 19))

    def with_chunks(*more: bytes) -> bytes:
        return png(13, 1, 8, 2, row, *more)

    for packed in (bomb, noise):
        assert refused(with_chunks(chunk(b"zTXt", b"key\0\0" + packed))) == "IMG10"
        assert refused(with_chunks(chunk(b"iTXt", b"key\0\1\0en\0key\0" + packed))) == "IMG10"
        assert refused(with_chunks(chunk(b"iCCP", b"key\0\0" + packed))) == "IMG10"
    twice = chunk(b"zTXt", b"key\0\0" + part)
    assert refused(with_chunks(twice, twice)) == "IMG10"
    for more in (twice, chunk(b"zTXt", b"key\0\0garbage"), chunk(b"iTXt", b"k\0\0\0\0\0plain")):
        np.testing.assert_array_equal(images.decode(with_chunks(more), "x"), RGB[:1])


# Names, notes, messages ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["näme-図.png", "x" * 251 + ".png", "a\nb.png", "a\udc80.png"])
def test_any_name_is_written_and_read(tmp_path: Path, name: str) -> None:
    images.write(tmp_path / name, RGB)
    np.testing.assert_array_equal(images.read(tmp_path / name), RGB)
    assert images.list_images(tmp_path) == [tmp_path / name]
    (tmp_path / name).write_bytes(b"no")
    with pytest.raises(DataError) as caught:
        images.read(tmp_path / name)
    assert "\n" not in str(caught.value) and "\udc80" not in str(caught.value)


def test_a_wrong_suffix_is_noted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pho\nto.png"
    path.write_bytes(pil(RGB, "JPEG"))
    with caplog.at_level(logging.WARNING, "restore"):
        images.read(path)
        images.read(path)
    escaped = str(path).replace("\n", "\\n")
    assert caplog.messages == [f"{escaped} is a JPEG file by its content; read as such"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_foreign_profile_is_noted_once(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    images._noted.clear()
    with caplog.at_level(logging.WARNING, "restore"):
        images.decode(pil(RGB, kind, icc_profile=b"some kind of sRGB profile"), "a")
        assert not caplog.messages
        images.decode(pil(RGB, kind, icc_profile=b"Adobe RGB (1998)"), "b")
        images.decode(pil(RGB, kind, icc_profile=b"Adobe RGB (1998)"), "c")
    assert [message[:30] for message in caplog.messages] == ["b has a colour profile that is"]


MESSAGES = [
    (b"", {}, "error[IMG01]: the image file is empty (x): got 0 bytes; expected an image file; "
     "fix: copy or download the file again, or take it out of the set"),
    (b"<html><body>Not Found", {}, "error[IMG02]: not an image that we can read (x): got a file "
     "that starts with b'<html><body>Not '; expected PNG, JPEG, BMP, TIFF or WebP; fix: download "
     "it again: this is text (an error page, a Git LFS pointer)"),
    (pil(RGB, "PNG")[:100], {}, "error[IMG03]: the image file is cut short (x): got 100 bytes "
     "without the closing IEND chunk; expected a whole PNG; fix: copy or download the file again, "
     "or take it out of the set"),
    (pil(RGB, "PNG"), {"channels": 1}, "error[IMG05]: the pixel format does not fit (x): got an "
     "RGB image; expected a gray one; fix: convert it, or set channels to 3"),
    (png(1, 1, 8, 6, b"\0\1\2\3\7"), {}, "error[IMG06]: the image is partly transparent (x): got "
     "alpha down to 7 of 255; expected an opaque image; fix: flatten it, or restore infer "
     "--alpha drop"),
    (pil(Image.new("CMYK", (2, 2)), "JPEG"), {}, "error[IMG07]: the image is CMYK (x): got a JPEG "
     "of four inks; expected RGB or gray; fix: convert it to RGB first, with its colour profile"),
    (png(30_000, 30_000, 8, 2, b""), {}, "error[IMG09]: the image is too large (x): got "
     "30000x30000 = 900.0 Mpx; expected at most 100.0 Mpx (max_pixels); fix: cut it up, or "
     "restore infer --max-pixels N"),
    (pil(RGB, "GIF"), {}, "error[IMG11]: only single still images can be read (x): got a GIF "
     "file; expected PNG, JPEG, BMP, TIFF or WebP; fix: save the frame that is meant as a PNG"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "options", "message"), MESSAGES)
def test_messages(data: bytes, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        images.decode(data, "x", **options)
    assert str(caught.value) == message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message  # loader workers send them


# Sizes, writing, listing --------------------------------------------------------------------------


def test_read_size_reads_the_header_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    image = RNG.integers(0, 256, (300, 200, 3), dtype=np.uint8)
    images.write(path, image)  # OpenCV puts the directory behind the pixels
    assert path.stat().st_size > images.HEAD and images.read_size(path) == (300, 200)
    path.write_bytes(path.read_bytes()[: images.HEAD + 9])
    with pytest.raises(DataError, match="IMG03"):
        images.read_size(path)
    large = pil(RGB, "JPEG", icc_profile=RNG.bytes(200_000))
    path.write_bytes(large)
    assert images.read_size(path) == (9, 13)
    for kind, options in (("WEBP", {"lossless": True}), ("WEBP", {}), ("BMP", {}), ("JPEG", {})):
        path.write_bytes(pil(image, kind, **options))
        assert images.read_size(path) == (300, 200)
    path.write_bytes(pil(np.dstack([image, image[..., 0]]), "WEBP"))  # VP8X
    assert images.read_size(path) == (300, 200)


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("a.gif", RGB, "got suffix '.gif'; expected one of .bmp"),
        ("a", RGB, "got suffix ''"),
        ("a.png", RGB.astype(np.float32), "got float32 values; expected uint8 or uint16 for PNG"),
        ("a.jpg", RGB16, "got uint16 values; expected uint8 for JPEG"),
        ("a.png", np.zeros((4, 5, 4), np.uint8), r"got shape \(4, 5, 4\)"),
        ("a.png", np.zeros((0, 5), np.uint8), r"got shape \(0, 5\)"),
        ("a.webp", np.zeros((1, 16_400, 3), np.uint8), "got 16400x1 pixels"),
        ("none/a.png", RGB, "No such file.*fix: make the folder first"),
    ],
)
def test_write_refuses(tmp_path: Path, name: str, image: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=rf"^error\[IMG13\].*{message}"):
        images.write(tmp_path / name, image)
    assert list(tmp_path.iterdir()) == []


def test_write_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    images.write(path, RGB)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
        with pytest.raises(DataError, match="IMG13.*disk full"):
            images.write(path, RGB[:2])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    images.write(path, RGB[::-1, ::2])  # strided and over an old file
    np.testing.assert_array_equal(images.read(path), RGB[::-1, ::2])
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_list_images(tmp_path: Path) -> None:
    names = ["b.PNG", "a.png", "10.jpg", "9.jpeg", "é.webp", "z.TIF", "sub/c.bmp", "sub-/d.tiff"]
    others = [".hidden.png", "notes.txt", "png", "sub/.h.png", ".cache/e.png"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    flat = sorted(name for name in names if "/" not in name)
    assert images.list_images(str(tmp_path)) == [tmp_path / name for name in flat]
    assert images.list_images(tmp_path, recursive=True) == [tmp_path / n for n in sorted(names)]


def test_list_images_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for missing in ("none", "file", "n\0ul"):
        with pytest.raises(DataError, match=r"^error\[DAT02\]: no such folder"):
            images.list_images(tmp_path / missing)
    with pytest.raises(DataError, match=r"^error\[DAT03\]: no image in the folder"):
        images.list_images(tmp_path)

    def no(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", no)
    with pytest.raises(DataError, match=r"^error\[DAT04\].*Errno 13.*Permission denied"):
        images.list_images(tmp_path)


def test_importing_needs_neither_torch_nor_pillow_and_decoding_prints_nothing() -> None:
    script = (
        "import sys, restore.images as images\n"
        "assert not {'torch', 'PIL'} & set(sys.modules)\n"
        "try: images.decode(b'II*\\0' + bytes(60), 'x')\n"
        "except Exception as error: assert 'IMG0' in str(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
