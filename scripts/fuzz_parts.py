"""An input of the fuzzer as named parts, and what a target of it is; see fuzz_targets.py."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SEALED = 1  # bit of `how`: sums are made right
MAX_PIXELS = 1 << 18  # of an image here: what a decoder may do with more is its own affair
PICTURES = [
    np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3),
    np.arange(130 * 3, dtype=np.uint16).reshape(130, 3),
    np.arange(5 * 131, dtype=np.uint8).reshape(5, 131),
]
PICTURE_NAMES = ["a.png", "b.png", "c.png"]
Parts = dict[str, bytes]


@dataclass(frozen=True)
class Target:
    """A reader: the parts of its input, right inputs, and reading one in an empty folder."""

    seeds: Callable[[Path], list[Parts]]
    read: Callable[[Path, Parts], None]
    parts: tuple[str, ...]
    words: Callable[[], set[bytes]] = set
    """Words that inputs are made of."""


def packed(parts: Mapping[str, bytes], names: tuple[str, ...]) -> bytes:
    """The parts as one input: their lengths, then they."""
    bodies = [parts.get(name, b"") for name in names]
    return struct.pack(f"<{len(names)}I", *map(len, bodies)) + b"".join(bodies)


def unpacked(data: bytes, names: tuple[str, ...]) -> Parts:
    """The parts of any input; where it is cut short, the last ones are empty."""
    head = 4 * len(names)
    lengths = struct.unpack(f"<{len(names)}I", data[:head].ljust(head, b"\0"))
    found, at = {}, head
    for name, length in zip(names, lengths, strict=True):
        found[name] = data[at : at + length]
        at += length
    return found


def bits(parts: Parts) -> int:
    """The first byte of `how`."""
    return parts["how"][0] if parts["how"] else 0


def written(folder: Path, parts: Parts) -> None:
    """All parts but `how` as files."""
    for name, body in parts.items():
        if name != "how":
            (folder / name).write_bytes(body)


def read_back(folder: Path, names: tuple[str, ...]) -> Parts:
    """The files of a folder as sealed parts."""
    there = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    return {"how": bytes([SEALED]), **there}


def resealed(parts: Parts, header: str) -> Parts:
    """The parts with a header that gives the crc32 of the others, where it can be changed."""
    try:
        facts = json.loads(parts[header])
    except (ValueError, RecursionError):
        return parts
    if not bits(parts) & SEALED or not isinstance(facts, dict):
        return parts
    sums = {f"{name} crc32": zlib.crc32(body) for name, body in parts.items()}
    facts |= {key: value for key, value in sums.items() if key in facts}
    return {**parts, header: json.dumps(facts).encode()}


def seeds_of(target: Target) -> list[bytes]:
    """The right inputs of a target."""
    with tempfile.TemporaryDirectory(prefix="seeds-") as folder:
        return [packed(parts, target.parts) for parts in target.seeds(Path(folder))]


def read_input(target: Target, data: bytes, folder: Path) -> None:
    """Read one input in `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    target.read(folder, unpacked(data, target.parts))
