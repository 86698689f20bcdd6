"""Floor 3. MATLAB 5 files: numbers, cells and structures, read from any bytes.

scipy's reader is compiled, and follows a damaged file's type codes and sizes out of its tables,
which ends the process. Little of the format is needed here, so it is read here, with every size
held against what there is. The format: MathWorks, "MAT-File Format", the chapter on level 5.

A file is a header of 128 bytes and elements: a tag (type, bytes) and data. A variable is an element
of elements: flags, dimensions, name, values or further variables. It may be packed as a whole.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

HEADER_BYTES, TAG_BYTES, VERSION = 128, 8, 0x0100
PIECE = 1 << 16  # bytes read and unpacked at a time
HEAD_BYTES = 4096  # of a variable; flags, dimensions and name have some hundred
RATIO_LIMIT, RATIO_FREE = 200, 1 << 20  # unpacked / packed, beyond the first MiB
DEPTH_LIMIT = 16  # variables inside variables; DND's have three
SIDES_LIMIT = 32  # NumPy's arrays have up to 64 dimensions
ELEMENTS_LIMIT = 1 << 48  # a product of dimensions that still fits NumPy's integers

INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15  # types of elements
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8",
          13: "u8"}  # fmt: skip
CELL, STRUCT, OPAQUE = 1, 2, 17  # classes of variables
NUMERIC = {6: "float64", 7: "float32", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16",
           12: "int32", 13: "uint32", 14: "int64", 15: "uint64"}  # fmt: skip
CLASSES = {CELL: "cell", STRUCT: "struct", 3: "object", 4: "char", 5: "sparse", **NUMERIC,
           16: "function", OPAQUE: "opaque"}  # fmt: skip
COMPLEX = 0x0800  # of the flags


@dataclass(frozen=True)
class Head:
    """What a variable says of itself: its name, its class (`uint8`, `cell` …), its dimensions."""

    name: str
    kind: str
    shape: tuple[int, ...]


Value = np.ndarray | dict[str, np.ndarray] | None
"""Real numbers; a cell's values, an array of objects; a structure's fields, an array of objects
each; None for what is none of these."""


def heads(file: Path) -> list[Head]:
    """The variables of a file, of which only the first kB are looked at.

    Raises OSError, and ValueError for what is not a MATLAB 5 file.
    """
    with open(file, "rb") as stream:
        return [element.head() for element in _elements(stream)]


def read_variable(file: Path, name: str) -> Value:
    """The variable `name` of a file, in MATLAB's order of dimensions.

    Raises OSError, and ValueError for what is not a MATLAB 5 file or has no such variable.
    """
    seen = []
    with open(file, "rb") as stream:
        for element in _elements(stream):
            head = element.head()
            if head.name == name:
                return _Variable(element.whole(), element.order).value(DEPTH_LIMIT)
            seen.append(head.name)
    raise ValueError(f"no variable {name!r}, but {', '.join(seen) or 'nothing'}")


# Elements of a file -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Element:
    """A variable in a file, packed or not."""

    stream: IO[bytes]
    start: int
    size: int
    packed: bool
    order: str  # of bytes: < or >

    def head(self) -> Head:
        return _Variable(self._bytes(HEAD_BYTES), self.order).head

    def whole(self) -> memoryview:
        return self._bytes(None)

    def _bytes(self, limit: int | None) -> memoryview:
        """The variable's data, or its first bytes. Raises ValueError."""
        self.stream.seek(self.start)
        if not self.packed:
            wanted = self.size if limit is None else min(self.size, limit)
            data = self.stream.read(wanted)
            if len(data) != wanted:
                raise ValueError(f"{len(data)} bytes of {wanted}")
            return memoryview(data)
        held, size = bytearray(), None
        for piece in _unpacked(self.stream, self.size):
            held += piece
            if size is None and len(held) >= TAG_BYTES:
                kind, size = _tag(bytes(held[:TAG_BYTES]), self.order)
                if kind != MATRIX or size > RATIO_FREE + RATIO_LIMIT * self.size:
                    raise ValueError(f"type {kind} of {size} bytes packed in {self.size}")
            longest = TAG_BYTES + (size or 0)
            if len(held) > longest or limit is not None and len(held) >= TAG_BYTES + limit:
                break
        data = memoryview(held)[TAG_BYTES:]
        if len(data) != size and (limit is None or len(data) < limit):
            raise ValueError(f"{len(data)} bytes unpacked, not {size}")
        return data


def _unpacked(stream: IO[bytes], packed: int) -> Iterator[bytes]:
    """The pieces of what is packed in the next bytes of a stream. Raises ValueError."""
    unpacker = zlib.decompressobj()
    while not unpacker.eof:
        data = unpacker.unconsumed_tail
        if not data:
            data = stream.read(min(packed, PIECE))
            packed -= len(data)
        try:
            piece = unpacker.decompress(data, PIECE)
        except zlib.error as error:
            raise ValueError(f"packed data: {error}") from None
        if not data and not piece:
            raise ValueError("packed data is cut short")
        yield piece


def _elements(stream: IO[bytes]) -> Iterator[_Element]:
    header = stream.read(HEADER_BYTES)
    end = stream.seek(0, os.SEEK_END)
    order = {b"IM": "<", b"MI": ">"}.get(header[126:])
    version = struct.unpack(f"{order}H", header[124:126])[0] if order else None
    if order is None or version != VERSION:
        raise ValueError(f"not MATLAB 5: {header[124:]!r} at the header's end")
    at = HEADER_BYTES
    while at < end:
        stream.seek(at)
        kind, size = _tag(stream.read(TAG_BYTES), order)
        at += TAG_BYTES
        if kind not in (MATRIX, COMPRESSED) or size > end - at:
            raise ValueError(f"type {kind} of {size} bytes at {at}, the file has {end}")
        yield _Element(stream, at, size, kind == COMPRESSED, order)
        at += size


def _tag(data: bytes, order: str) -> tuple[int, int]:
    """Type and bytes of an element that is not a small one."""
    if len(data) != TAG_BYTES:
        raise ValueError("cut short")
    kind, size = struct.unpack(f"{order}2I", data)
    return kind, size


# Elements of a variable ---------------------------------------------------------------------------


class _Variable:
    """A variable's own elements, in their order."""

    def __init__(self, data: memoryview, order: str) -> None:
        self._data, self._order, self._at = data, order, 0
        if not data:  # what MATLAB writes for an empty cell
            self._class, self._flags, self._shape = 6, 0, (0, 0)
            self.head = Head("", "float64", (0, 0))
            return
        flags = self._numbers(UINT32)
        if len(flags) != 2:
            raise ValueError(f"{len(flags)} words of flags")
        self._flags, self._class = int(flags[0]), int(flags[0]) & 0xFF
        if self._class == OPAQUE:
            self.head = Head("", CLASSES[OPAQUE], ())  # its dimensions and name are its own affair
            return
        shape = self._shape = tuple(map(int, self._numbers(INT32)))
        kind = CLASSES.get(self._class)
        if kind is None:
            raise ValueError(f"class {self._class}")
        if not 2 <= len(shape) <= SIDES_LIMIT or min(shape) < 0:
            raise ValueError(f"dimensions {shape}")
        if math.prod(side or 1 for side in shape) > ELEMENTS_LIMIT:
            raise ValueError(f"dimensions {shape}")
        self.head = Head(self._numbers(INT8).tobytes().decode("latin-1"), kind, shape)

    def value(self, depth: int) -> Value:
        """What it holds, variables inside it up to `depth`. Raises ValueError."""
        if not depth:
            raise ValueError(f"over {DEPTH_LIMIT} variables inside each other")
        if self._class == CELL:
            return self._inner(1, depth)[0]
        if self._class == STRUCT:
            names = self._fields()
            return dict(zip(names, self._inner(len(names), depth), strict=True))
        real = self._class in NUMERIC and not self._flags & COMPLEX
        return self._array() if real else None

    def _array(self) -> np.ndarray:
        dtype = np.dtype(NUMERIC[self._class])
        if not self._data:
            return np.empty(self._shape, dtype)
        held = self._numbers(None)
        # MATLAB stores integers in the smallest type that has them, whatever the class
        if held.dtype.kind == "f" and dtype.kind != "f":
            raise ValueError(f"{dtype} stored as {held.dtype}")
        if len(held) != math.prod(self._shape):
            raise ValueError(f"{len(held)} numbers for dimensions {self._shape}")
        return held.astype(dtype, copy=False).reshape(self._shape, order="F")

    def _fields(self) -> list[str]:
        length = self._numbers(INT32)
        names = self._numbers(INT8).tobytes()
        width = int(length[0]) if len(length) == 1 else 0
        if width < 1 or len(names) % width:
            raise ValueError(f"{len(names)} bytes of fields' names, {length} each")
        cut = [names[at : at + width].split(b"\0")[0] for at in range(0, len(names), width)]
        if len(set(cut)) != len(cut):
            raise ValueError("two fields of one name")
        return [name.decode("latin-1") for name in cut]

    def _inner(self, count: int, depth: int) -> list[np.ndarray]:
        """`count` arrays of variables, which are stored element by element."""
        elements = math.prod(self._shape)
        if elements * count > (len(self._data) - self._at) // TAG_BYTES:
            raise ValueError(f"{elements * count} variables in {len(self._data)} bytes")
        held = np.empty((count, elements if count else 0), object)
        for at in range(held.shape[1]):
            for number in range(count):
                kind, data = self._next()
                if kind != MATRIX:
                    raise ValueError(f"type {kind} where a variable should be")
                held[number, at] = _Variable(data, self._order).value(depth - 1)
        return [values.reshape(self._shape, order="F") for values in held]

    def _numbers(self, wanted: int | None) -> np.ndarray:
        """The next element, numbers of the type that is wanted or of any. Raises ValueError."""
        kind, data = self._next()
        if kind not in STORED or wanted not in (None, kind):
            raise ValueError(f"type {kind} where numbers should be")
        dtype = np.dtype(self._order + STORED[kind])
        if len(data) % dtype.itemsize:
            raise ValueError(f"{len(data)} bytes of {dtype}")
        return np.frombuffer(data, dtype)

    def _next(self) -> tuple[int, memoryview]:
        """Type and data of the next element. Raises ValueError."""
        kind, size = _tag(bytes(self._data[self._at : self._at + TAG_BYTES]), self._order)
        start, step = self._at + TAG_BYTES, -(-size // 8) * 8
        if kind >> 16:  # a small one: size and type share a word, the data is in the other
            kind, size, start, step = kind & 0xFFFF, kind >> 16, start - 4, 4
        if size > min(step, len(self._data) - start):
            raise ValueError(f"an element of {size} bytes, there are {len(self._data) - start}")
        self._at = start + step
        return kind, self._data[start : start + size]
