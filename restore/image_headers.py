"""Floor 2. What an image file says about itself, read by hand before any pixel is decoded.

Three questions, in the order `images` asks them: `kind_of` (the magic bytes), `size_of` (height
and width, from the header alone) and `facts_of` (is the file whole, what will the decoder not
tell us). The decoder is never asked: OpenCV spends 30 s and 5 GB on a 2.6 MB bomb, gives the
first frame of an animation, turns CMYK to RGB and drops a gray PNG's transparency in silence.

Every refusal is a DataError. Formats: PNG (W3C, 3rd edition), JPEG (ITU T.81), BMP, TIFF 6.0,
WebP (RFC 9649), EXIF orientation (tag 274).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from restore.image_flaws import flaw

T = TypeVar("T")

PACKED_LIMIT = 1 << 20  # compressed bytes of one PNG text or profile chunk
INFLATED_LIMIT = 8 << 20  # inflated bytes of all such chunks of a file together
TAG_VALUES_LIMIT = 1 << 22  # values of one TIFF tag: four million strips
TILE_LIMIT = 1 << 24  # pixels of one TIFF tile, which the decoder holds beside the image


@dataclass(frozen=True, slots=True)
class Facts:
    """What the pixels alone do not tell."""

    orientation: int = 1  # EXIF, 1..8, 1 = upright
    profile: bytes = b""  # the embedded ICC profile, b"" when there is none
    plain_rgb: bool = False  # a PNG or JPEG of RGB and nothing else
    gray_alpha: bool = False  # a PNG of gray with an alpha channel
    gray_key: int | None = None  # the gray value, as decoded, that a PNG declares transparent


def kind_of(data: bytes, where: str) -> str:
    """By the magic bytes: PNG, JPEG, BMP, TIFF or WEBP. Raises IMG02, and IMG11 for a GIF."""
    head = data[:18]
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[14:18] in _BMP_HEADER_SIZES:
        return "BMP"
    readable, got = "PNG, JPEG, BMP, TIFF or WebP", f"a file that starts with {head[:16]!r}"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        raise flaw("IMG11", where, "a GIF file", readable)
    text = "download it again: this is text (an error page, a Git LFS pointer)"
    raise flaw("IMG02", where, got, readable, text if head.isascii() else None)


def size_of(kind: str, data: bytes, where: str) -> tuple[int, int]:
    """(height, width) as stored, before any EXIF turn. Raises IMG03 or IMG04."""
    height, width = _guarded(_PARSERS[kind][0], data, where)
    if height < 1 or width < 1:
        raise flaw("IMG04", where, f"{width}x{height} pixels in the header", "at least 1x1")
    return height, width


def facts_of(kind: str, data: bytes, where: str) -> Facts:
    """The rest that the bytes tell. Raises IMG03 to IMG07, IMG10 and IMG11 for a file that is
    broken or that we would not read truly."""
    return _guarded(_PARSERS[kind][1], data, where)


def _guarded(parse: Callable[[bytes, str], T], data: bytes, where: str) -> T:
    try:
        return parse(data, where)
    except (struct.error, IndexError, OverflowError):  # the header points past the end
        got = f"{len(data)} bytes, fewer than its header needs"
        raise flaw("IMG03", where, got, "a whole file") from None


# PNG ---------------------------------------------------------------------------------------------

_CHUNK = struct.Struct(">I4s")  # length, type
_CRC = struct.Struct(">I")


def _png_size(data: bytes, where: str) -> tuple[int, int]:
    name, width, height, _, crc = struct.unpack_from(">4sII5sI", data, 12)
    if name != b"IHDR" or zlib.crc32(data[12:29]) != crc:
        raise flaw("IMG04", where, "a PNG header with a wrong checksum", "an intact IHDR chunk")
    return height, width


def _png_chunks(data: bytes, where: str) -> Iterator[tuple[bytes, memoryview]]:
    """Checks every chunk's CRC up to IEND; yields (type, body) of all but the pixels."""
    view, at, end = memoryview(data), 8, len(data)
    while at + 12 <= end:
        length, name = _CHUNK.unpack_from(data, at)
        crc_at = at + 8 + length
        if crc_at + 4 > end:
            break
        if zlib.crc32(view[at + 4 : crc_at]) != _CRC.unpack_from(data, crc_at)[0]:
            got = f"a wrong checksum in chunk {name!r} at byte {at}"
            raise flaw("IMG04", where, got, "intact chunks")
        if name == b"IEND":
            return
        if name != b"IDAT":
            yield name, view[at + 8 : crc_at]
        at = crc_at + 4
    if data.endswith(b"IEND\xaeB`\x82"):  # the end is there, so a length on the way is wrong
        raise flaw("IMG04", where, f"a wrong chunk length at byte {at}", "intact chunks")
    raise flaw("IMG03", where, f"{end} bytes without the closing IEND chunk", "a whole PNG")


def _png_facts(data: bytes, where: str) -> Facts:
    depth, colour = data[24], data[25]
    orientation, profile, key, allowance = 1, b"", None, INFLATED_LIMIT
    plain = colour == 2
    for name, body in _png_chunks(data, where):
        if name == b"acTL":
            raise flaw("IMG11", where, "an animated PNG", "one still image")
        if name in (b"zTXt", b"iTXt", b"iCCP"):
            inflated = _inflate(_packed_part(name, bytes(body)), name, allowance, where)
            allowance -= len(inflated)
            profile = inflated if name == b"iCCP" else profile
        elif name == b"eXIf":
            orientation = _exif_orientation(bytes(body))
        elif name == b"tRNS":
            plain = False
            if colour == 0:
                stretch = 255 // (2**depth - 1) if 0 < depth < 8 else 1  # as the decoder does
                key = struct.unpack_from(">H", body)[0] * stretch
    if depth == 1 and colour == 0:
        raise flaw("IMG05", where, "a 1-bit PNG", "8 or 16 bits a channel")
    return Facts(orientation, profile, plain, gray_alpha=colour == 4, gray_key=key)


def _packed_part(name: bytes, body: bytes) -> bytes:
    """The zlib stream of a zTXt, iTXt or iCCP chunk; b"" when it holds none."""
    rest = body.partition(b"\0")[2]  # after the keyword
    if name != b"iTXt":
        return rest[1:]
    if rest[:1] != b"\1":
        return b""
    return rest[2:].split(b"\0", 2)[-1]  # after the language and the translated keyword


def _inflate(packed: bytes, name: bytes, allowance: int, where: str) -> bytes:
    """`packed` inflated, at most `allowance` bytes; IMG10 for more. Bad data ends the text only:
    it is not part of the picture."""
    try:
        inflated = zlib.decompressobj().decompress(packed[:PACKED_LIMIT], allowance + 1)
    except zlib.error:
        inflated = b""
    if len(packed) > PACKED_LIMIT or len(inflated) > allowance:
        got = f"{len(packed)} bytes in chunk {name!r}, inflating to {len(inflated)} or more"
        limit = f"at most {PACKED_LIMIT} compressed and {INFLATED_LIMIT} inflated"
        raise flaw("IMG10", where, got, limit)
    return inflated


# JPEG --------------------------------------------------------------------------------------------

_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOS = 0xDA


def _jpeg_segments(data: bytes, where: str) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment's body, up to and with the first start of scan."""
    at, marker = 2, 0
    while marker != _SOS:
        if data[at] != 0xFF:
            raise flaw("IMG04", where, f"byte {data[at]:#04x} at byte {at}", "a JPEG marker (0xff)")
        while data[at] == 0xFF:
            at += 1
        marker, at = data[at], at + 1
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # these have no body
            continue
        (length,) = struct.unpack_from(">H", data, at)
        yield marker, at + 2, at + length
        at += length


def _jpeg_frame(data: bytes, where: str) -> tuple[int, int, int, int]:
    """(precision, height, width, components) of the first frame."""
    for marker, start, _ in _jpeg_segments(data, where):
        if marker in _SOF:
            return struct.unpack_from(">BHHB", data, start)
    raise flaw("IMG04", where, "a scan before any frame header", "a JPEG frame header (SOF)")


def _jpeg_facts(data: bytes, where: str) -> Facts:
    precision, _, _, components = _jpeg_frame(data, where)
    orientation, profile, scan = 1, b"", 0
    if components == 4:
        raise flaw("IMG07", where, "a JPEG of four inks", "RGB or gray")
    if precision != 8 or components not in (1, 3):
        got = f"a JPEG of {components} channels, {precision} bits"
        raise flaw("IMG05", where, got, "8-bit gray or RGB")
    for marker, start, end in _jpeg_segments(data, where):
        if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            orientation = _exif_orientation(data[start + 6 : end])
        elif marker == 0xE2 and data[start : start + 12] == b"ICC_PROFILE\0":
            profile += data[start + 14 : end]
        scan = start
    # Inside a scan 0xff is always followed by 0x00 or a marker, so an end marker found after its
    # start is the real one; what cameras hang on behind it (padding, a film) does no harm.
    if data.rfind(b"\xff\xd9", scan) < 0:
        got = f"{len(data)} bytes without the end marker (EOI)"
        raise flaw("IMG03", where, got, "a whole JPEG")
    return Facts(orientation, profile, plain_rgb=components == 3)


# BMP ---------------------------------------------------------------------------------------------

_BMP_HEADER_SIZES = frozenset(struct.pack("<I", n) for n in (40, 52, 56, 108, 124))


def _bmp_size(data: bytes, where: str) -> tuple[int, int]:
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(height), width  # a negative height means rows from the top down


def _bmp_facts(data: bytes, where: str) -> Facts:
    pixels_at, _, width, height, _, bits, packing = struct.unpack_from("<IIiiHHI", data, 10)
    if bits == 1:
        raise flaw("IMG05", where, "a 1-bit BMP", "8 or 16 bits a channel")
    if bits == 16:  # decoders stretch its 5 bits each their own way, OpenCV to 248 for white
        raise flaw("IMG05", where, "a BMP of 16 bits a pixel", "8, 24 or 32")
    needed = pixels_at + (width * bits + 31) // 32 * 4 * abs(height)
    if packing in (0, 3) and len(data) < needed:
        raise flaw("IMG03", where, f"{len(data)} bytes", f"{needed} bytes by its header")
    return Facts()


# TIFF, and EXIF, which is a small TIFF -----------------------------------------------------------

_TAGS = {
    256: "width", 257: "height", 258: "bits", 262: "photometric", 273: "strips", 274: "orientation",
    277: "samples", 279: "strip lengths", 284: "planes", 322: "tile width", 323: "tile height",
    324: "tiles", 325: "tile lengths", 339: "number", 34675: "profile",
}  # fmt: skip
_FIELDS = {1: "B", 3: "H", 4: "I", 7: "B"}  # the field types that these tags can have
# Photometric -> samples a pixel. 0 (white is zero) is out: OpenCV inverts it at 8 bits only.
_TIFF_SAMPLES = {1: (1,), 2: (3, 4), 3: (1,), 6: (3,)}


def _tiff_tags(data: bytes) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, str]], bool]:
    """Of the first directory: tag name -> values; tag name -> where these stand, and the struct
    format of one; and whether another directory follows. Raises struct.error when it is absurdly
    large or points out of the data."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, start)
    tags: dict[str, tuple[int, ...]] = {}
    places: dict[str, tuple[int, str]] = {}
    end = start + 2 + 12 * entries
    for at in range(start + 2, end, 12):
        number, field, count = struct.unpack_from(order + "HHI", data, at)
        if number not in _TAGS or field not in _FIELDS or not count:
            continue
        if count > TAG_VALUES_LIMIT:
            raise struct.error("too many values")
        name, values, place = _TAGS[number], f"{order}{count}{_FIELDS[field]}", at + 8
        if struct.calcsize(values) > 4:  # up to four bytes stand in the entry itself
            (place,) = struct.unpack_from(order + "I", data, place)
        tags[name] = struct.unpack_from(values, data, place)
        places[name] = place, order + _FIELDS[field]
    return tags, places, any(data[end : end + 4])


def without_orientation(data: bytes) -> bytes:
    """The same TIFF with orientation 1. OpenCV would turn the pixels itself, whatever its flags,
    and those of 8-bit tiles wrongly."""
    place, form = _tiff_tags(data)[1]["orientation"]
    one = struct.pack(form, 1)
    return data[:place] + one + data[place + len(one) :]


def _orientation(tags: dict[str, tuple[int, ...]]) -> int:
    value = tags.get("orientation", (1,))[0]
    return value if 1 <= value <= 8 else 1


def _exif_orientation(block: bytes) -> int:
    """1..8; 1 when the EXIF block does not say or cannot be read."""
    try:
        return _orientation(_tiff_tags(block.removeprefix(b"Exif\0\0"))[0])
    except struct.error:
        return 1


def _tiff_size(data: bytes, where: str) -> tuple[int, int]:
    tags, _, _ = _tiff_tags(data)
    return tags.get("height", (0,))[0], tags.get("width", (0,))[0]


def _tiff_facts(data: bytes, where: str) -> Facts:
    tags, _, following = _tiff_tags(data)
    photometric, samples = tags.get("photometric", (1,))[0], tags.get("samples", (1,))[0]
    bits, number = max(tags.get("bits", (1,))), max(tags.get("number", (1,)))
    if following:
        raise flaw("IMG11", where, "a TIFF of several pages", "one still image")
    if photometric == 5:
        raise flaw("IMG07", where, "a TIFF of four inks", "RGB or gray")
    if bits == 1:
        raise flaw("IMG05", where, "a 1-bit TIFF", "8 or 16 bits a channel")
    if photometric == 1 and samples == 2:
        raise flaw("IMG06", where, "a gray TIFF with alpha", "no alpha", "convert it to PNG")
    is_float = number == 3 and bits in (32, 64)  # let through: decoding tells NaN from no range
    is_whole = number == 1 and bits in ((8,) if photometric in (3, 6) else (8, 16))
    # OpenCV reads 16-bit colours that are stored plane after plane as noise.
    mixed = tags.get("planes", (1,))[0] != 2 or samples == 1 or bits == 8
    if samples not in _TIFF_SAMPLES.get(photometric, ()) or not (is_whole or is_float) or not mixed:
        got = f"a TIFF of {samples} x {bits} bits, photometric {photometric}, number type {number}"
        got += "" if mixed else ", in separate planes"
        raise flaw("IMG05", where, got, "8 or 16-bit unsigned gray (black is zero) or RGB")
    tile = tags.get("tile width", (0,))[0] * tags.get("tile height", (0,))[0]
    if tile > TILE_LIMIT:
        raise flaw("IMG09", where, f"TIFF tiles of {tile} pixels", f"at most {TILE_LIMIT}")
    starts = tags.get("strips", ()) + tags.get("tiles", ())
    lengths = tags.get("strip lengths", ()) + tags.get("tile lengths", ())
    needed = max((a + n for a, n in zip(starts, lengths, strict=False)), default=0)
    if len(data) < needed:
        raise flaw("IMG03", where, f"{len(data)} bytes", f"{needed} bytes by its header")
    return Facts(_orientation(tags), bytes(value & 255 for value in tags.get("profile", ())))


# WebP --------------------------------------------------------------------------------------------


def _webp_size(data: bytes, where: str) -> tuple[int, int]:
    first = data[12:16]
    if first == b"VP8X":
        width, width_high, height, height_high = struct.unpack_from("<HBHB", data, 24)
        return (height | height_high << 16) + 1, (width | width_high << 16) + 1
    if first == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1
    if first == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    raise flaw("IMG04", where, f"a first chunk named {first!r}", "VP8, VP8L or VP8X")


def _webp_facts(data: bytes, where: str) -> Facts:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if len(data) < end:
        raise flaw("IMG03", where, f"{len(data)} bytes", f"{end} bytes by its header")
    if data[12:16] != b"VP8X":
        return Facts()
    if data[20] & 0x02:
        raise flaw("IMG11", where, "an animated WebP", "one still image")
    orientation, profile, at = 1, b"", 12
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            orientation = _exif_orientation(data[at + 8 : at + 8 + length])
        elif name == b"ICCP":
            profile = data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return Facts(orientation, profile)


_Parsers = tuple[Callable[[bytes, str], tuple[int, int]], Callable[[bytes, str], Facts]]
_PARSERS: dict[str, _Parsers] = {
    "PNG": (_png_size, _png_facts),
    "JPEG": (lambda data, where: _jpeg_frame(data, where)[1:3], _jpeg_facts),
    "BMP": (_bmp_size, _bmp_facts),
    "TIFF": (_tiff_size, _tiff_facts),
    "WEBP": (_webp_size, _webp_facts),
}
