"""Floor 3. What is refused of a pickled weights file before torch reads it.

torch's unpickler runs nothing of a file, but a few kB could still fill all memory, take for ever or
overflow the stack. torch.save neither compresses, nor stores two entries in the same bytes, nor
makes what it does not store, nor ties tuples into knots.
"""

from __future__ import annotations

import mmap
import os
import pickletools
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

from restore.errors import WeightsError

_MAKER = re.compile(rb"c((?:__builtin__|builtins)\nbytearray|torch[.\w]*\n\w*Tensor)\n")
"""Names in a pickle of what makes memory out of a number; stored tensors come by other names."""

_ZIP = b"PK\3\4"  # torch's reader goes by the first bytes, Python's by the last
_LEGACY_PICKLES = 5  # of a file that is no zip: magic, version, system, content, storages
_DEPTH = 100  # tuples inside each other; those of tensors are three deep
_FREE, _TIMES = 1 << 20, 16  # what tuples may hold in all, and more by the bytes of their pickle
_COUNTED = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "REDUCE", "NEWOBJ")  # what makes a key
_END, _END64, _PLACE64 = "<4s4H2LH", "<4sQ2H2L4Q", "<4sLQL"  # of a zip, at its end in reverse
_FULL = 0xFFFFFFFF  # "see the record of 64 bits"


def refuse_bombs(file: Path) -> None:
    """Refuse a file that would take more than it stores. Raises WeightsError WGT02, WGT07, and
    whatever the bytes make the readers of zips and pickles raise."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as held:
        zipped = held[: len(_ZIP)] == _ZIP
        if not zipped:
            _refuse_makers(file, held)
            for _ in range(_LEGACY_PICKLES):
                if held.tell() < len(held):  # a plain pickle is one, and refused by torch
                    _refuse_knots(file, held, len(held))
    if not zipped:
        return
    with zipfile.ZipFile(file) as archive:
        _refuse_two_readings(file, archive)
        entries = archive.infolist()
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED:
                raise _bomb(file, "compressed entry in a weights file", entry.filename,
                            "entries as torch.save stores them")  # fmt: skip
        listed, there = sum(entry.file_size for entry in entries), file.stat().st_size
        if listed > there:
            raise _bomb(file, "weights file lists more than it holds", f"{listed} bytes in entries",
                        f"at most the file's {there}")  # fmt: skip
        for entry in entries:
            if entry.filename.lower().endswith(".pkl"):  # torch's reader takes DATA.PKL as well
                _refuse_makers(file, archive.read(entry))
                with archive.open(entry) as stream:
                    _refuse_knots(file, stream, entry.file_size)


def runs_code(name: str, what: str) -> WeightsError:
    """WGT02, for a file that names what is no tensor and no plain container."""
    return WeightsError.of(
        "WGT02",
        "weights file wants to run code",
        name,
        f"global {what}",
        "tensors and plain containers",
        "ask its author for a safetensors file",
    )


def _bomb(file: Path, what: str, got: str, expected: str) -> WeightsError:
    return WeightsError.of("WGT07", what, str(file), got, expected, "save it again with torch.save")


def _refuse_makers(file: Path, pickled: bytes | mmap.mmap) -> None:
    """Refuse a pickle that names what torch's unpickler would call with any size, or with lists of
    lists of the same lists."""
    found = _MAKER.search(pickled)
    if found:
        raise runs_code(str(file), found[1].decode().replace("\n", "."))


def _refuse_knots(file: Path, stream: Any, size: int) -> None:
    """Refuse a pickle, the next of `stream` (a file or a map of one), whose tuples hold tuples of
    the same tuples, or are nested deeply.

    As a key a tuple is hashed with all inside it, shared or not, by a function that calls itself.
    So whatever can be a key is counted, (all inside it, depth), whenever it is made or fetched.
    """
    stack: list[tuple[int, int]] = []
    marks: list[int] = []
    memo: dict[object, tuple[int, int]] = {}
    left = _FREE + _TIMES * size
    for opcode, argument, _ in pickletools.genops(stream):
        name, takes = opcode.name, opcode.stack_before
        if name == "MARK":
            marks.append(len(stack))
        elif name.endswith("PUT"):
            memo[argument] = stack[-1]
        else:
            marked = pickletools.markobject in takes
            at = marks.pop() - takes.index(pickletools.markobject) if marked else None
            at = len(stack) - len(takes) if at is None else at
            if at < 0:
                raise ValueError(f"{name} without what it takes")
            made = (
                1 + sum(held for held, _ in stack[at:]),
                max((depth for _, depth in stack[at:]), default=0) + name.startswith("TUPLE"),
            )
            del stack[at:]
            made = memo[argument] if name.endswith("GET") else made
            stack += [made] * len(opcode.stack_after)
            left -= made[0] if name in _COUNTED or name.endswith("GET") else 0
            if left < 0 or made[1] > _DEPTH:
                raise _bomb(file, "weights file whose pickle is a knot", "tuples inside tuples",
                            "tensors and plain containers")  # fmt: skip


def _refuse_two_readings(file: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a zip that torch's reader, which goes by what records say and not by where they lie,
    could read as another one: with anything before or behind it, or another directory inside."""
    sizes = [struct.calcsize(form) for form in (_END, _PLACE64, _END64)]
    with file.open("rb") as stream:
        stop = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stop - sum(sizes)))
        tail = stream.read().rjust(sum(sizes), b"\0")
    end = struct.unpack(_END, tail[-sizes[0] :])
    place64 = struct.unpack(_PLACE64, tail[sizes[2] : -sizes[0]])
    end64 = struct.unpack(_END64, tail[: sizes[2]])
    behind, size, start = end[0] != b"PK\5\6" or end[7], end[5], end[6]
    if place64[0] == b"PK\6\7":
        stop -= sizes[1] + sizes[2]
        behind = behind or end64[0] != b"PK\6\6" or place64[2] != stop - sizes[0]
        behind = behind or size not in (_FULL, end64[8]) or start not in (_FULL, end64[9])
        size, start = end64[8:]
    first = min((entry.header_offset for entry in archive.infolist()), default=0)
    if behind or first or start != archive.start_dir or start + size != stop - sizes[0]:
        raise _bomb(file, "weights file is more than one zip", "bytes around it",
                    "a file as torch.save writes it")  # fmt: skip
