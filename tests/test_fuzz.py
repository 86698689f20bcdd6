"""What nobody thought of: right files with something changed are taken or refused, nothing else."""

from __future__ import annotations

import copy
import io
import json
import shutil
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore import images
from restore.commands.shared import read_tree
from restore.data.pair import Box
from restore.data.stores.pack import ENDS, HEADER, INDEX, RECORDS, Pack
from restore.data.stores.pack_writer import write_pack
from restore.data.stores.sealed import NAMES
from restore.data.stores.shards import HEADER as SHARD_HEADER
from restore.data.stores.shards import RECORDS as SHARD_RECORDS
from restore.data.stores.shards import Shards, write_shards
from restore.errors import DataError, OptionError
from restore.options import read_document
from restore.options_yaml import dump
from restore.recipes.checks import check_test, check_train
from restore.recipes.trees import TestTree, TrainTree

from helpers import TINY_TRAIN

OFFICIAL = sorted((Path(__file__).parent / "official").glob("*.yml"))
OURS = sorted((Path(__file__).parents[1] / "options").glob("t*_SRx2.yml"))
BASES = [*OFFICIAL, *OURS]


# Option files -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that every example is written to."""
    return tmp_path_factory.mktemp("fuzz") / "tiny.yml"


def taken_or_refused(file: Path) -> None:
    """Read a file as `train` or `test` does; anything but an OptionError of plain lines fails."""
    training = b"total_iter" in file.read_bytes()
    try:
        if training:
            read_tree(TrainTree, str(file), [], check_train)
        else:
            read_tree(TestTree, str(file), [], check_test)
    except OptionError as error:
        assert error.problems
        for problem in error.problems:
            assert "\n" not in str(problem) and problem.where.startswith(str(file))


def nodes(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything below a tree's top."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from nodes(value, (*path, key))


def listed(values: Any) -> Any:
    """The same with lists for tuples, to be changed."""
    if isinstance(values, dict):
        return {key: listed(value) for key, value in values.items()}
    return [listed(value) for value in values] if isinstance(values, tuple) else values


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "os:system", "~", "${HOME}", "{}", "../..", "SPAN", "MambaIRModel"]),
    st.lists(st.none() | st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=4), st.none() | st.integers(), max_size=2),
    st.just({"type": "SPAN"}),
    st.just([[{"type": []}]]),
)


@cache
def values_of(file: Path) -> Any:
    """What an option file says, to be copied."""
    return listed(read_document(file).values)


@settings(max_examples=100)
@given(base=st.sampled_from(BASES), data=st.data())
def test_a_right_option_file_with_odd_values(
    scratch: Path, base: Path, data: st.DataObject
) -> None:
    values = copy.deepcopy(values_of(base))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(list(nodes(values))))
        inside = values
        for key in at[:-1]:
            inside = inside[key]
        what = data.draw(st.sampled_from(["change", "remove", "rename", "add"]))
        if what == "remove":
            del inside[at[-1]]
        elif what == "change" or isinstance(inside, list):
            inside[at[-1]] = copy.deepcopy(data.draw(ODD))
        else:
            new = data.draw(st.text(max_size=3) | st.sampled_from(["type", "name", "iters"]))
            inside[new] = inside.pop(at[-1]) if what == "rename" else copy.deepcopy(data.draw(ODD))
    scratch.write_text(dump(values))
    taken_or_refused(scratch)


@settings(max_examples=100)
@given(base=st.sampled_from(BASES), data=st.data())
def test_a_right_option_file_with_odd_characters(
    scratch: Path, base: Path, data: st.DataObject
) -> None:
    raw = bytearray(base.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(raw)))
        stop = min(len(raw), start + data.draw(st.integers(0, 12)))
        raw[start:stop] = data.draw(
            st.binary(max_size=3)
            | st.sampled_from(list(b"&*!|>%@`{}[]:-#,?\"'\n\t ")).map(chr).map(str.encode)
        )
    scratch.write_bytes(raw)
    taken_or_refused(scratch)


@st.composite
def right_changes(draw: st.DrawFn) -> dict[str, Any]:
    """Values of a training that fit together."""
    total = draw(st.integers(1, 10**7))
    milestones = draw(st.lists(st.integers(1, total), max_size=4, unique=True).map(sorted))
    count = draw(st.integers(1, 3))
    steps = draw(st.lists(st.integers(1, 10**6), min_size=count, max_size=count))
    sides = draw(st.lists(st.integers(8, 200), min_size=count, max_size=count))
    batches = draw(st.lists(st.integers(1, 64), min_size=count, max_size=count))
    return {
        "train.total_iter": total,
        "train.optim_g.lr": draw(st.floats(1e-12, 10, allow_subnormal=False)),
        "train.scheduler.milestones": milestones,
        "train.scheduler.gamma": draw(st.floats(1e-6, 1)),
        "train.warmup_iter": draw(st.integers(-1, total)),
        "datasets.train.iters": steps,
        "datasets.train.gt_sizes": [2 * side for side in sides],
        "datasets.train.gt_size": 2 * max(sides),
        "datasets.train.mini_batch_sizes": batches,
        "network_g.feature_channels": draw(st.integers(1, 64)),
        "manual_seed": draw(st.integers(0, 2**31 - 1)),
        "name": draw(st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True)),
    }


@settings(max_examples=60)
@given(changes=right_changes())
def test_what_fits_together_is_taken_and_reads_back(scratch: Path, changes: dict[str, Any]) -> None:
    scratch.write_text(TINY_TRAIN)
    assignments = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    tree = read_tree(TrainTree, str(scratch), assignments, check_train)
    for key, value in changes.items():
        held: Any = tree
        for part in key.split("."):
            held = getattr(held, part)
        assert listed(held) == value, key
    scratch.write_text(dump(tree.model_dump()))
    assert read_tree(TrainTree, str(scratch), [], check_train) == tree


# Packs --------------------------------------------------------------------------------------------

IMAGES = [
    np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3),
    np.arange(140 * 130, dtype=np.uint16).reshape(140, 130),
]
LAYOUTS = [(False, "raw"), (True, "raw"), (True, "zlib")]


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A whole pack of each layout."""
    folder = tmp_path_factory.mktemp("packs")
    for number, (tiles, codec) in enumerate(LAYOUTS):
        path = folder / str(number)
        write_pack(path, ["a.png", "b.png"], IMAGES.__getitem__, tiles=tiles, codec=codec)
    return [folder / str(number) for number in range(len(LAYOUTS))]


def read_or_refused(folder: Path) -> None:
    """Open a pack and read all of it and a part; anything but a DataError fails."""
    try:
        pack = Pack(folder)
        for index in range(len(pack.names)):
            held = pack.held(index, None)
            height, width = held.size
            assert held.whole().shape[:2] == (height, width)
            held.part(Box(height // 2, width // 2, 1, 1))
            pack.verify(index)
    except DataError:
        pass


def changed(whole: Path, folder: Path, files: dict[str, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    for name, body in files.items():
        (folder / name).write_bytes(body)
    return folder


def with_sums(whole: Path, files: dict[str, bytes], header: str) -> dict[str, bytes]:
    """These files, and a header whose checksums are right for them."""
    facts = json.loads((whole / header).read_text())
    facts |= {f"{name} crc32": zlib.crc32(body) for name, body in files.items()}
    return {**files, header: json.dumps(facts).encode()}


@settings(max_examples=150)
@given(data=st.data())
def test_a_pack_with_odd_bytes(packs: list[Path], scratch: Path, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(packs))
    there = sorted(file.name for file in whole.iterdir())
    name = data.draw(st.sampled_from(there))
    body = bytearray((whole / name).read_bytes())
    start = data.draw(st.integers(0, len(body)))
    body[start : start + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    read_or_refused(changed(whole, scratch.parent / "pack", {name: bytes(body)}))


@settings(max_examples=100)
@given(data=st.data())
def test_a_pack_whose_header_says_odd_things(
    packs: list[Path], scratch: Path, data: st.DataObject
) -> None:
    whole = data.draw(st.sampled_from(packs))
    odd = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
    header = json.loads((whole / HEADER).read_text())
    facts = data.draw(st.dictionaries(st.sampled_from([*header, "more"]), odd, max_size=2))
    text = data.draw(
        st.just(json.dumps({**header, **facts})) | st.sampled_from(["[" * 99_999, "[]", "3", "{}"])
    )
    read_or_refused(changed(whole, scratch.parent / "pack", {HEADER: text.encode()}))


@settings(max_examples=200)
@given(data=st.data())
def test_a_pack_whose_index_lies(packs: list[Path], scratch: Path, data: st.DataObject) -> None:
    """With checksums that are right, as a program of another's could write them."""
    whole = data.draw(st.sampled_from(packs))
    records = np.frombuffer((whole / RECORDS).read_bytes(), INDEX).copy()
    files: dict[str, bytes] = {}
    what = data.draw(st.sampled_from(["field", "bytes", "names", "ends"]))
    if what == "field":
        key = data.draw(st.sampled_from(list(INDEX.names or ())))
        most = int(np.iinfo(INDEX[key]).max)
        number = data.draw(st.sampled_from([0, 1, 2, 3, 4, most]) | st.integers(0, most))
        records[key][data.draw(st.integers(0, 1))] = min(number, most)
        files[RECORDS] = records.tobytes()
    elif what == "bytes":
        files[RECORDS] = data.draw(st.binary(max_size=60))
    elif what == "names":
        files[NAMES] = data.draw(st.sampled_from([b"", b"a\0", b"a\0b\0c\0", b"\xff\0b\0", b"a"]))
    elif (whole / ENDS).exists():
        ends = np.frombuffer((whole / ENDS).read_bytes(), "<u8").copy()
        if data.draw(st.booleans()):
            ends = ends[: data.draw(st.integers(0, len(ends)))]
        if len(ends):
            at = data.draw(st.integers(0, len(ends) - 1))
            ends[at] = data.draw(st.sampled_from([0, 1, 2**40, 2**64 - 1]))
        files[ENDS] = ends.tobytes()
    sealed = with_sums(whole, files, HEADER)
    read_or_refused(changed(whole, scratch.parent / "pack", sealed))


# Shards -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of one image each."""
    folder = tmp_path_factory.mktemp("shards") / "whole"
    encoded = [images.encode(image, ".png", "x") for image in IMAGES]
    write_shards(folder, ["a.png", "b.png"], encoded.__getitem__, shard_bytes=1)
    return folder


@settings(max_examples=150)
@given(data=st.data())
def test_shards_whose_index_lies(shards: Path, scratch: Path, data: st.DataObject) -> None:
    body = (shards / SHARD_RECORDS).read_bytes()
    if data.draw(st.booleans()):
        records = np.load(io.BytesIO(body))
        key = data.draw(st.sampled_from(list(records.dtype.names)))
        most = int(np.iinfo(records.dtype[key]).max)
        number = data.draw(st.sampled_from([0, 1, 512, most]) | st.integers(0, most))
        records[key][data.draw(st.integers(0, 1))] = min(number, most)
        buffer = io.BytesIO()
        np.save(buffer, records)
        body = buffer.getvalue()
    else:
        start = data.draw(st.integers(0, len(body)))
        body = body[:start] + data.draw(st.binary(max_size=20))
    files = with_sums(shards, {SHARD_RECORDS: body}, SHARD_HEADER)
    folder = changed(shards, scratch.parent / "shards", files)
    try:
        opened = Shards(folder, attempts=1)
        for index in range(len(opened.names)):
            opened.held(index, None).whole()
    except DataError:
        pass
