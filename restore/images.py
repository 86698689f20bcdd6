"""Floor 2. Images on disk, and the one array convention.

At rest an image is uint8 or uint16, HWC RGB (H, W, 3) or gray (H, W). In flight it is float, CHW,
in [0, 1]. Only this file and `image_floats` convert between them. `read` looks before it decodes
(see `image_headers`): existence, size, magic bytes, header dimensions, wholeness; then `png` or
OpenCV decodes, unchanged; then our own rules for alpha, orientation and channels apply. `write` is
in `image_writing`. All user mistakes are a DataError, IMG00 to IMG13 for a file and DAT02 to DAT04
for a folder.

What no decoder can tell: damaged bytes inside a JPEG or a lossy WebP scan. They read as other
pixels; only a checksum made beforehand finds them.
"""

from __future__ import annotations

import logging
import os
import stat
from typing import Literal

import cv2
import numpy as np

from restore import png
from restore.errors import DataError, printable
from restore.image_files import KIND_OF_SUFFIX
from restore.image_files import SUFFIXES as SUFFIXES
from restore.image_files import list_images as list_images
from restore.image_files import list_names as list_names
from restore.image_flaws import flaw
from restore.image_floats import to_float as to_float
from restore.image_headers import Facts, facts_of, kind_of, size_of, without_orientation
from restore.image_writing import encode as encode
from restore.image_writing import write as write

if "OPENCV_LOG_LEVEL" not in os.environ:
    # What OpenCV would print about a broken file comes as a DataError.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

MAX_PIXELS = 100_000_000
DECODER_MAX_PIXELS = 1_000_000_000  # OpenCV itself refuses 2**30
HEAD = 1 << 16  # bytes in which nearly every header ends
AlphaRule = Literal["refuse", "drop", "black"]
OrientRule = Literal["refuse", "apply"]
GrayRule = Literal["rgb2gray", "rgb2ycbcr"]

# Spares a pass over the common image; IMREAD_UNCHANGED means BGR, any depth and no turn as well.
_RGB_AT_ONCE = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_SRGB_NAMES = (b"sRGB", "sRGB".encode("utf-16-be"))  # as ICC v2 and v4 write the name

_noted: set[str] = set()


def read(
    path: str | os.PathLike[str],
    *,
    channels: int | None = None,
    alpha: AlphaRule = "refuse",
    orient: OrientRule = "refuse",
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """The image in a PNG, JPEG, BMP, TIFF or WebP file: uint8 or uint16, (H, W, 3) RGB or (H, W).

    channels: 3 replicates gray, 1 refuses RGB, None takes the file as it is. alpha: what becomes
    of real transparency (an opaque alpha channel is always dropped): a refusal, the colours alone,
    or the colours over black. orient: whether an EXIF turn is refused or done. max_pixels: more are
    refused before decoding. Raises DataError.
    """
    where = os.fspath(path)
    data = load(where, max_pixels=max_pixels)
    return decode(data, where, channels=channels, alpha=alpha, orient=orient, max_pixels=max_pixels)


def load(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of an image file, for `decode`. Raises DataError IMG00, IMG01, and IMG09 for more
    than `max_pixels` need: 8 bytes a pixel and metadata."""
    where = os.fspath(path)
    size, limit = _file_size(where), 8 * max_pixels + (64 << 20)
    if size > limit:
        raise flaw("IMG09", where, f"a file of {size} bytes", f"at most {limit} bytes")
    return _bytes(where, size)


def decode(
    data: bytes,
    where: str,
    *,
    channels: int | None = None,
    alpha: AlphaRule = "refuse",
    orient: OrientRule = "refuse",
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """`read` for the bytes of a file (from LMDB, say); `where` names them in messages."""
    assert channels in (None, 1, 3) and alpha in ("refuse", "drop", "black")
    kind, height, width, facts = _inspect(data, where, orient, max_pixels)
    if kind == "TIFF" and facts.orientation != 1:
        data = without_orientation(data)
    rows = png.rows_of(data) if kind == "PNG" and facts.plain_rgb else None
    image, got = None if rows is None else _pixels(rows), ""
    if image is None:
        image, got = _by_opencv(data, facts)
    if image is None or image.shape[:2] != (height, width):
        fix = "copy or download the file again, or convert it to PNG with another program"
        raise flaw("IMG04", where, got, f"a {kind} of {width}x{height} pixels", fix)
    if image.dtype not in (np.uint8, np.uint16):
        raise _no_range(image, where)
    if not facts.plain_rgb:
        image = _flatten(image, facts, kind, alpha, where)
    if facts.orientation != 1:
        image = _upright(image, facts.orientation)
        turn = f"EXIF orientation {facts.orientation}"
        _note("orientation", f"{where} is turned upright, as its {turn} says; others alike")
    if channels == 1 and image.ndim == 3:
        raise flaw("IMG05", where, "an RGB image", "a gray one", "convert it, or set channels to 3")
    return as_rgb(image) if channels == 3 else image


def _pixels(rows: png.Rows) -> np.ndarray | None:
    image = rows.image()
    return _by_opencv(rows.stored(), Facts(plain_rgb=True))[0] if image is None else image


def _by_opencv(data: bytes, facts: Facts) -> tuple[np.ndarray | None, str]:
    """The decoded image, or why there is none."""
    try:
        flags = _RGB_AT_ONCE if facts.plain_rgb else cv2.IMREAD_UNCHANGED
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        return image, "bytes that OpenCV cannot decode"
    except cv2.error as error:
        return None, f"OpenCV: {error.err}"


def stored_size(data: bytes, where: str) -> tuple[int, int]:
    """(height, width) as stored, from the header of a file's bytes. Raises DataError."""
    return size_of(kind_of(data, where), data, where)


def decode_part(
    data: bytes, where: str, rows: slice, columns: slice, *, channels: int | None = None
) -> np.ndarray:
    """`decode(…)[rows, columns]`, of a plain PNG at the cost of little more than that part.

    A PNG's structure is checked as ever, but the pixels that are not decoded are not: what is
    broken there goes unseen.
    """
    kind, height, width, facts = _inspect(data, where, "refuse", MAX_PIXELS)
    inside = rows.stop <= height and columns.stop <= width
    if kind == "PNG" and facts.plain_rgb and channels != 1 and inside:
        size = rows.stop - rows.start, columns.stop - columns.start
        part = png.part_of(data, rows.start, columns.start, *size)
        decoded = None if part is None else _pixels(part[0])
        if part is not None and decoded is not None:
            return decoded[part[1] :, columns]
    return decode(data, where, channels=channels)[rows, columns]


def check(
    path: str | os.PathLike[str],
    data: bytes | None = None,
    *,
    channels: int | None = None,
    alpha: AlphaRule = "refuse",
    orient: OrientRule = "refuse",
    max_pixels: int = MAX_PIXELS,
) -> tuple[int, int]:
    """The upright (height, width) of a file that `read` takes with the same arguments; of `data`,
    where its bytes are at hand.

    Decodes only what cannot be told otherwise (transparency, TIFF, BMP, WebP, gray); for a plain
    RGB PNG or JPEG the file's structure is looked at. Raises DataError as `read` does.
    """
    where = os.fspath(path)
    data = load(where, max_pixels=max_pixels) if data is None else data
    _, height, width, facts = _inspect(data, where, orient, max_pixels)
    if channels == 1 or not facts.plain_rgb:
        decode(data, where, channels=channels, alpha=alpha, orient=orient, max_pixels=max_pixels)
    return (width, height) if facts.orientation > 4 else (height, width)


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) as stored, from the header alone: no check of the rest. Raises DataError."""
    where = os.fspath(path)
    size, head = _file_size(where), _bytes(where, HEAD)
    kind = kind_of(head, where)
    try:
        return size_of(kind, head, where)
    except DataError:  # a TIFF may have its header at the end, a JPEG large metadata before it
        if size <= HEAD:
            raise
    return size_of(kind, load(where), where)


def quantise(image: np.ndarray, bits: int = 8) -> np.ndarray:
    """Floats of any shape -> the nearest of the 2**bits levels of [0, 1], uint8 or uint16.

    Values outside [0, 1] are clamped; halves go to the even level, as in BasicSR. Raises
    DataError IMG12 for a NaN.
    """
    assert bits in (8, 16) and image.dtype.kind == "f"
    wide = image.astype(np.float32) if image.dtype.itemsize < 4 else image
    scaled = np.clip(wide, 0.0, 1.0, out=np.empty_like(wide))
    if np.isnan(scaled).any():
        got, fix = f"NaN among {scaled.size} values", "look for the step that made the NaN"
        raise flaw("IMG12", "quantise", got, "numbers", fix)
    scaled *= 2**bits - 1
    return np.rint(scaled, out=scaled).astype(np.uint8 if bits == 8 else np.uint16)


def interleaved(planes: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (H, W, C), or (H, W) where there is one plane; integers or floats."""
    return cv2.merge(list(planes)) if len(planes) > 1 else planes[0]


def luma(image: np.ndarray) -> np.ndarray:
    """BT.601 studio-range Y, float64 (H, W) in [16, 235], of uint8 or uint16 RGB (H, W, 3).

    uint16 is taken to 0..255 first. This is MATLAB's rgb2ycbcr before its rounding.
    """
    assert image.dtype in (np.uint8, np.uint16) and image.ndim == 3
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    weighed = 65.481 * red + 128.553 * green + 24.966 * blue
    return weighed / float(np.iinfo(image.dtype).max) + 16.0


def as_gray(image: np.ndarray, rule: GrayRule) -> np.ndarray:
    """Gray (H, W), of the same type, of RGB (H, W, 3); gray as it is.

    `rgb2gray`: .299 R + .587 G + .114 B over the full range, as OpenCV computes it (MATLAB's, whose
    weights have more digits, differs by one level in less than 0.1 % of the pixels).
    `rgb2ycbcr`: the rounded `luma`, MATLAB's Y, from 16 to 235.
    """
    if image.ndim == 2:
        return image
    if rule == "rgb2gray":
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    full = 1 if image.dtype == np.uint8 else 257
    return np.rint(luma(image) * full).astype(image.dtype)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Gray (H, W) replicated to (H, W, 3); RGB as it is."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def _file_size(where: str) -> int:
    try:
        status = os.stat(where)
    except FileNotFoundError:
        raise flaw("IMG00", where, "no such file", "an image file", "correct the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise flaw("IMG00", where, str(error), "a readable file") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise flaw("IMG00", where, kind, "an image file")
    if status.st_size == 0:
        raise flaw("IMG01", where, "0 bytes", "an image file")
    return status.st_size


def _bytes(where: str, count: int) -> bytes:
    """The first `count` bytes of the file."""
    try:
        with open(where, "rb") as file:
            return file.read(count)
    except OSError as error:
        raise flaw("IMG00", where, str(error), "a readable file") from None


def _inspect(
    data: bytes, where: str, orient: OrientRule, max_pixels: int
) -> tuple[str, int, int, Facts]:
    """(kind, height, width, facts) of a file that may be decoded. Raises DataError."""
    assert orient in ("refuse", "apply")
    if not data:
        raise flaw("IMG01", where, "0 bytes", "an image file")
    kind = kind_of(data, where)
    height, width = size_of(kind, data, where)
    limit = min(max_pixels, DECODER_MAX_PIXELS)
    if height * width > limit:
        got = f"{width}x{height} = {height * width / 1e6:.1f} Mpx"
        raise flaw("IMG09", where, got, f"at most {limit / 1e6:.1f} Mpx (max_pixels)")
    facts = facts_of(kind, data, where)
    if orient == "refuse" and facts.orientation != 1:
        raise flaw("IMG08", where, f"EXIF orientation {facts.orientation}", "1 (upright)")
    named = KIND_OF_SUFFIX.get(os.path.splitext(where)[1].lower(), kind)
    if named != kind:
        _note(where, f"{where} is a {kind} file by its content; read as such")
    if facts.profile and not any(name in facts.profile for name in _SRGB_NAMES):
        _note("profile", f"{where} has a colour profile that is not sRGB; profiles are not applied")
    return kind, height, width, facts


def _note(topic: str, text: str) -> None:
    """A warning in the log, once a topic and process."""
    if topic not in _noted:
        _noted.add(topic)
        logging.getLogger("restore").warning("%s", printable(text))


def _no_range(image: np.ndarray, where: str) -> DataError:
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        count = int((~np.isfinite(image)).sum())
        return flaw("IMG12", where, f"{count} NaN or infinite values", "finite values")
    got = f"{image.dtype} values, which have no declared range"
    return flaw("IMG05", where, got, "8 or 16-bit unsigned values", "scale it to a 16-bit PNG")


def _flatten(
    image: np.ndarray, facts: Facts, kind: str, alpha: AlphaRule, where: str
) -> np.ndarray:
    """The decoder's gray, BGR or BGRA as gray or RGB, real transparency treated as `alpha` says."""
    opaque = int(np.iinfo(image.dtype).max)
    if image.ndim == 3 and image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if image.ndim == 3:
        cover = image[..., 3]
        colour = image[..., 0] if facts.gray_alpha else cv2.cvtColor(image, cv2.COLOR_BGRA2RGB)
    elif facts.gray_key is not None:
        cover, colour = np.where(image == facts.gray_key, 0, opaque), image
    else:
        return image
    if int(cover.min()) == opaque or alpha == "drop" and kind != "TIFF":
        return np.ascontiguousarray(colour)
    if kind == "TIFF":  # OpenCV may have multiplied its colours by alpha, or not
        raise flaw("IMG06", where, "a TIFF with alpha below 100 %", "no alpha", "save it as PNG")
    if alpha == "refuse":
        raise flaw("IMG06", where, f"alpha down to {cover.min()} of {opaque}", "an opaque image")
    cover = cover if colour.ndim == 2 else cover[..., None]
    over = (colour.astype(np.uint32) * cover.astype(np.uint32) + opaque // 2) // opaque
    return over.astype(image.dtype)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation 2..8: what was stored sideways or mirrored stands as it was seen."""
    if orientation > 4:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
