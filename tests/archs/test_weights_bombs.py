"""Weights files that torch's reader would choke on, refused before it sees them."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from restore.archs.weights import tensors_of
from restore.archs.weights_file import read_weights
from restore.errors import WeightsError

MAKES_MUCH = b"\x80\x02c__builtin__\nbytearray\nK\x05\x85R."
HEAD, DIGITS = b"\x80\x02}", b"K\x01s."
KNOTS = {
    "deep": HEAD + b")" + b"\x85" * 1_000_000 + DIGITS,
    "shared": HEAD + b")" + b"q\0h\0\x86" * 64 + DIGITS,
    "fetched": HEAD + b"(" + b"K\x01" * 5000 + b"tq\0" + DIGITS[:-1] + b"h\0K\x01s" * 5000 + b".",
    "sizes": HEAD + b"ctorch\nSize\n(" + b"K\x01" * 5000 + b"tRq\0" + DIGITS[:-1]
    + b"h\0K\x01s" * 5000 + b".",
}  # fmt: skip


def saved(content: Any, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def zipped(pickled: bytes, name: str = "data.pkl") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for part, body in ((name, pickled), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"w/{part}", body)
    return buffer.getvalue()


def legacy(pickled: bytes) -> bytes:
    """A file as torch.save wrote it before zips."""
    whole = saved({}, zipped=False)
    at = whole.index(b"\x80\x02}q\0.", 100)  # the content, an empty dict
    return whole[:at] + pickled + whole[at + 6 :]


def with_zip_behind(body: bytes) -> bytes:
    """Python's reader goes by a file's last bytes, torch's by the first."""
    good = bytearray(zipped(b"\x80\x02}."))
    start, _, _ = directory(good)
    struct.pack_into("<L", good, len(good) - 6, len(body) + start)
    return body + good


READ_ALL = """
import resource, sys
from restore.archs.weights import tensors_of
from restore.errors import WeightsError
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
for file in sys.argv[1:]:
    try:
        tensors_of(file)
    except WeightsError as error:
        print(str(error).split(" (")[0], flush=True)
"""


def test_what_would_not_come_back(tmp_path: Path) -> None:
    """In another process, with a limit of time: without the refusals they take memory and time
    without end, or end the process."""
    code, knot = "error[WGT02]: weights file wants to", "error[WGT07]: weights file whose"
    made = [(zipped(body), knot) for body in KNOTS.values()]
    made += [(legacy(body), knot) for body in KNOTS.values()]
    made += [(with_zip_behind(legacy(body)), knot) for body in KNOTS.values()]
    # torch's reader takes names in any case
    made += [(zipped(MAKES_MUCH, "DATA.PKL"), code), (zipped(KNOTS["shared"], "Data.pkl"), knot)]
    files = [tmp_path / f"{number}.pth" for number in range(len(made))]
    for file, (body, _) in zip(files, made, strict=True):
        file.write_bytes(body)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *map(str, files)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answers = done.stdout.splitlines()
    assert len(answers) == len(made)
    for answer, (_, said) in zip(answers, made, strict=True):
        assert answer.startswith(said)


def test_what_trainers_save_is_no_knot(tmp_path: Path) -> None:
    """Thousands of tensors of one shape, long tuples, states of generators, tuples as keys."""
    one = torch.zeros(2, 3)
    content = {
        "params": OrderedDict((f"layer.{k}.weight", one) for k in range(3000)),
        "random": [(3, tuple(range(625)), None)] * 9,
        "files": tuple(f"{k}.png" for k in range(20_000)),
        "milestones": {(k, (k, "x")): torch.Size((k, k)) for k in range(500)},
        "betas": [((0.9, 0.99), {"a": ((1,), 2)})] * 99,
    }
    for zipped in (True, False):
        (tmp_path / "w.pth").write_bytes(saved(content, zipped=zipped))
        assert len(tensors_of(tmp_path / "w.pth")[0]) == 3000


def directory(body: bytes | bytearray) -> tuple[int, int, int]:
    """Start, end, and where the records behind it end, of a zip without 64 bits."""
    size, start = struct.unpack_from("<2L", body, len(body) - 10)
    return start, start + size, len(body)


def two_in_one() -> bytes:
    """One zip for who looks where the directory is said to be, another for who looks before the
    end: what Python's reader takes for bytes before the zip is the first one's directory."""
    harm, good = zipped(MAKES_MUCH), zipped(b"\x80\x02}.")
    shift = len(harm) - 22
    end = bytearray(good[-22:])
    first, last, _ = directory(harm)
    assert last - first == directory(good)[1] - directory(good)[0]
    struct.pack_into("<2L", end, 12, last - first, first)
    return harm[:shift] + good[:-22] + bytes(end)


@pytest.mark.parametrize(
    "changed",
    [
        two_in_one(),
        zipped(b"\x80\x02}.") + b"behind",
        zipped(b"\x80\x02}.")[:-2] + b"\4\0note",
    ],
    ids=["two", "behind", "note"],
)
def test_a_zip_that_can_be_read_in_two_ways(tmp_path: Path, changed: bytes) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(changed)
    with pytest.raises(WeightsError, match=r"error\[WGT07\].*more than one zip"):
        read_weights(file)


def test_a_second_directory_of_64_bits(tmp_path: Path) -> None:
    """torch.save always writes the longer records; each figure in them is held against the place
    where Python's reader looks."""
    whole = saved({"a": torch.zeros(2)})
    file = tmp_path / "w.pth"
    file.write_bytes(whole)
    assert list(tensors_of(file)[0]) == ["a"]
    assert whole[-42:-38] == b"PK\6\7" and whole[-98:-94] == b"PK\6\6"
    for back in (8, 6, 10, 34, 58, 50):  # of the directory's and the record's figures
        body = bytearray(whole)
        body[-back] ^= 1
        file.write_bytes(body)
        with pytest.raises(WeightsError, match=r"error\[WGT0[47]\]"):
            read_weights(file)
