"""MATLAB 5 files: as scipy reads them where they are whole, and refused where they are not."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from restore.data.mat_files import Head, heads, read_variable

from helpers import peak

HEADER = {
    "<": b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM",
    ">": b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI",
}
OF_MATLAB = sorted((Path(scipy.io.__file__).parent / "matlab/tests/data").glob("test*_[67]*.mat"))
TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    padding = bytes(-len(data) % 8) if kind < 14 else b""
    return struct.pack(f"{order}2I", kind, len(data)) + data + padding


def variable(
    kind: int, shape: tuple[int, ...], name: bytes, values: bytes, order: str = "<"
) -> bytes:
    """A variable of class `kind` whose elements after the name are `values`."""
    flags = element(6, struct.pack(f"{order}2I", kind, 0), order)
    sides = element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return element(14, flags + sides + element(1, name, order) + values, order)


def put(file: Path, *elements: bytes, order: str = "<") -> Path:
    file.write_bytes(HEADER[order] + b"".join(elements))
    return file


def agree(mine: Any, theirs: Any) -> None:
    """Both readings of a file are the same; what is no number is None in ours."""
    if isinstance(mine, dict):
        assert theirs.dtype.names == tuple(mine)
        for field, values in mine.items():
            agree(values, theirs[field])
    elif mine is not None:
        assert mine.shape == theirs.shape
        if mine.dtype == object:
            for one, other in zip(mine.ravel(), theirs.ravel(), strict=True):
                agree(one, other)
        else:
            np.testing.assert_array_equal(mine, theirs)


# Whole files --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mat") / "a.mat"


NUMBERS = st.tuples(
    st.sampled_from(TYPES), st.lists(st.integers(0, 5), min_size=2, max_size=5)
).map(lambda it: (np.arange(np.prod(it[1])) * 77 % 251).astype(it[0]).reshape(it[1]))


@st.composite
def cells(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> np.ndarray:
    held = draw(st.lists(inner, min_size=2, max_size=4))
    found = np.empty((1, len(held)), object)
    found[0] = [*held]
    return found


VALUES = st.recursive(
    NUMBERS,
    lambda inner: cells(inner) | st.dictionaries(st.sampled_from("abc"), inner, min_size=1),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(values=st.dictionaries(st.sampled_from(["x", "long_name"]), VALUES), packed=st.booleans())
def test_what_scipy_writes(place: Path, values: dict[str, Any], packed: bool) -> None:
    savemat(place, values, do_compression=packed)
    theirs = loadmat(place)
    found = heads(place)
    assert [head.name for head in found] == list(values)
    for head in found:
        mine = read_variable(place, head.name)
        agree(mine, theirs[head.name])
        if isinstance(mine, np.ndarray) and mine.dtype != object:
            assert (head.kind, head.shape) == (mine.dtype.name, mine.shape)
            assert mine.dtype == theirs[head.name].dtype


@pytest.mark.skipif(not OF_MATLAB, reason="scipy is installed without its tests")
def test_what_matlab_wrote() -> None:
    """Of several versions, of both orders of bytes, with what is no number."""
    read = 0
    for file in OF_MATLAB:
        if "hdf5" in file.name:
            continue
        theirs = loadmat(file)
        for head in heads(file):
            if head.name:
                value = read_variable(file, head.name)
                agree(value, theirs[head.name])
                read += value is not None
    assert read > 20


@pytest.mark.parametrize("order", "<>")
def test_integers_are_stored_in_the_smallest_type(tmp_path: Path, order: str) -> None:
    stored = element(3, struct.pack(f"{order}6h", *range(-1, 5)), order)
    small = struct.pack(f"{order}I", 2 << 16 | 2) + b"\7\x08\0\0"
    file = put(
        tmp_path / "a.mat", variable(6, (3, 2), b"x", stored, order),
        variable(7, (1, 2), b"y", small, order), order=order,
    )  # fmt: skip
    x, y = read_variable(file, "x"), read_variable(file, "y")
    assert isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
    assert x.dtype == np.float64 and x.tolist() == [[-1, 2], [0, 3], [1, 4]]
    assert y.dtype == np.float32 and y.tolist() == [[7, 8]]
    assert heads(file) == [Head("x", "float64", (3, 2)), Head("y", "float32", (1, 2))]


def test_a_head_costs_no_more_than_itself(tmp_path: Path) -> None:
    held = np.random.default_rng(0).integers(0, 256, (1, 4 << 20), np.uint8)
    for packed in (False, True):
        savemat(tmp_path / "a.mat", {"x": held}, do_compression=packed)
        assert peak(lambda: heads(tmp_path / "a.mat")) < 1 << 19
        assert peak(lambda: read_variable(tmp_path / "a.mat", "x")) < 6 << 20


# Damaged files ------------------------------------------------------------------------------------

NAMED = element(9, bytes(8))
DAMAGED = {
    "not MATLAB 5": b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM",
    "type 7 of": HEADER["<"] + element(7, bytes(8)),
    "type 14 of 8 bytes at": HEADER["<"] + element(14, bytes(8))[:-1],
    "cut short": HEADER["<"] + b"\x0e\0\0",
    "class 77": HEADER["<"] + variable(77, (1, 1), b"x", NAMED),
    "dimensions": HEADER["<"] + variable(6, (1, -1), b"x", NAMED),
    "dimensions ()": HEADER["<"] + variable(6, (), b"x", NAMED),
    "1 numbers for dimensions": HEADER["<"] + variable(6, (1, 2), b"x", NAMED),
    "dimensions (2147483647": HEADER["<"] + variable(9, (2**31 - 1,) * 3, b"x", NAMED),
    "uint8 stored as float64": HEADER["<"] + variable(9, (1, 1), b"x", NAMED),
    "9 bytes of": HEADER["<"] + variable(6, (1, 1), b"x", element(9, bytes(9))),
    "type 15 where numbers": HEADER["<"] + variable(6, (1, 1), b"x", element(15, bytes(8))),
    "an element of 3000000000 bytes": HEADER["<"] + variable(
        6, (1, 1), b"x", struct.pack("<2I", 9, 3_000_000_000)),
    "an element of 5 bytes": HEADER["<"] + variable(
        9, (1, 5), b"x", struct.pack("<2I", 5 << 16 | 2, 0)),
    "1000000 variables in": HEADER["<"] + variable(1, (1000, 1000), b"x", b""),
    "type 9 where a variable": HEADER["<"] + variable(1, (1, 1), b"x", NAMED),
    "0 bytes of fields' names": HEADER["<"] + variable(
        2, (1, 1), b"x", element(5, bytes(4)) + element(1, b"")),
    "two fields": HEADER["<"] + variable(
        2, (1, 1), b"x", element(5, b"\2\0\0\0") + element(1, b"a\0a\0")),
    "packed data": HEADER["<"] + element(15, b"no zlib data"),
    "packed data is cut short": HEADER["<"] + element(
        15, zlib.compress(variable(6, (1, 1), b"x", NAMED))[:-1]),
    "incorrect data check": HEADER["<"] + element(
        15, zlib.compress(variable(6, (1, 1), b"x", NAMED))[:-4] + b"abcd"),
    "bytes unpacked": HEADER["<"] + element(
        15, zlib.compress(variable(6, (1, 1), b"x", NAMED) + b"more")),
    "type 1 of 1 bytes packed": HEADER["<"] + element(15, zlib.compress(element(1, b"x"))),
    "no variable 'x', but y": HEADER["<"] + variable(6, (1, 1), b"y", NAMED),
    "no variable 'x', but nothing": HEADER["<"],
}  # fmt: skip


@pytest.mark.parametrize("said", DAMAGED)
def test_a_damaged_file(tmp_path: Path, said: str) -> None:
    (tmp_path / "a.mat").write_bytes(DAMAGED[said])
    with pytest.raises(ValueError) as caught:
        read_variable(tmp_path / "a.mat", "x")
    assert said in str(caught.value) and len(str(caught.value)) < 120


def test_cells_in_cells_have_an_end(tmp_path: Path) -> None:
    held = variable(6, (1, 1), b"", NAMED)
    for _ in range(2000):
        held = variable(1, (1, 1), b"x", held)
    file = put(tmp_path / "a.mat", held)
    with pytest.raises(ValueError, match="over 16 variables inside each other"):
        read_variable(file, "x")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    zeros = variable(9, (1, 64 << 20), b"x", element(2, bytes(64 << 20)))
    file = put(tmp_path / "a.mat", element(15, zlib.compress(zeros, 9)))

    def refused() -> None:
        with pytest.raises(ValueError, match=r"type 14 of 671\d+ bytes packed in"):
            read_variable(file, "x")

    assert peak(refused) < 1 << 20


def test_any_type_and_size_anywhere(tmp_path: Path) -> None:
    """Read in another process: with some of these scipy's reader ends it."""
    boxes = np.empty(2, object)
    boxes[:] = [np.array([[1.0, 1, 2, 3]])] * 2
    savemat(tmp_path / "info.mat", {"info": {"boundingboxes": boxes}})
    savemat(tmp_path / "0001.mat", {"InoisySRGB": np.full((4, 4, 3), 0.5)})
    whole = (tmp_path / "info.mat").read_bytes()
    words = range(128, len(whole), 4)
    for at, value in product(words, (0, 8, 10, 15, 18, 0x1000F, 2**31 - 1, 2**32 - 1)):
        changed = whole[:at] + struct.pack("<I", value) + whole[at + 4 :]
        assert len(changed) == len(whole)
        (tmp_path / f"{at}-{value}.changed").write_bytes(changed)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    taken, refused = map(int, done.stdout.split())
    assert taken + refused == 8 * len(words) and refused > taken


READ_ALL = """
import sys, warnings
from pathlib import Path
from restore.data.prepare.dnd import read_blocks
from restore.errors import DataError
warnings.simplefilter("ignore")
folder, counts = Path(sys.argv[1]), [0, 0]
for file in sorted(folder.glob("*.changed")):
    (folder / "info.mat").write_bytes(file.read_bytes())
    try:
        list(read_blocks(folder, "0001.mat"))
        counts[0] += 1
    except DataError as error:
        assert "DAT27" in str(error)
        counts[1] += 1
print(*counts)
"""
