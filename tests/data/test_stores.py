"""Stores: the same images, batches and errors whatever the images lie in."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restore import images
from restore.commands.main import main
from restore.data.loader import Loader
from restore.data.options import BACKEND, DegradedImageDataset, GaussianNoiseOptions
from restore.data.options import PairedImageDataset as Paired
from restore.data.pair import Box
from restore.data.prepare.stores import prepare
from restore.data.source import Source
from restore.data.sources import check_source, open_source
from restore.data.stages import Stages
from restore.data.stores.lmdb_store import LmdbFolder, write_lmdb
from restore.data.stores.pack import ENDS, HEADER, INDEX, PIXELS, RECORDS, Pack, open_pack
from restore.data.stores.pack_tiles import TILE, packing
from restore.data.stores.pack_writer import write_pack
from restore.errors import BackendError, DataError, OptionError
from restore.section import Section

SIZES = [(130, 140), (64, 300), (129, 64), (200, 65), (65, 257)]  # of LQ
KINDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "rows": ("pack", "rows", {"type": "pack"}),
    "tiles": ("pack", "tiles", {"type": "pack"}),
    "zlib": ("pack", "tiles", {"type": "pack"}),
    "lmdb": ("lmdb", "auto", {"type": "lmdb"}),
    "shards": ("shards", "auto", {"type": "shards"}),
}
CODEC = "zstd" if importlib.util.find_spec("zstandard") else "zlib"
CODEC_HERE = sorted({"zlib", CODEC})
"""case -> (what prepare makes, its layout, io_backend)"""


def draw_pairs(folder: Path) -> Path:
    """RGB, gray and 16-bit pairs of ×2; one 8-bit GT beside a 16-bit LQ."""
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(SIZES):
        gray, deep = number == 1, (number in (2, 3), number == 2)
        for side, scale, sixteen in (("lq", 1, deep[0]), ("gt", 2, deep[1])):
            (folder / side).mkdir(parents=True, exist_ok=True)
            shape = (height * scale, width * scale) + (() if gray else (3,))
            kind = np.uint16 if sixteen else np.uint8
            image = rng.integers(0, np.iinfo(kind).max + 1, shape, dtype=kind)
            images.write(folder / side / f"a{number}.png", image)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def stored(folder: Path) -> Callable[[str], Paired]:
    """A case of KINDS -> options of the same pairs in that store."""

    def options(case: str) -> Paired:
        kind, layout, backend = KINDS[case]
        out = folder / case
        if not out.exists():
            sides = {side: folder / side for side in ("gt", "lq")}
            codec = "zlib" if case == "zlib" else "raw"
            prepare(kind, sides, out, layout=layout, codec=codec)
        return paired(out / f"gt.{kind}", out / f"lq.{kind}", backend)

    return options


def paired(gt: Path, lq: Path, backend: dict[str, object] | None = None) -> Paired:
    section = BACKEND.validate(backend or {"type": "disk"})
    return Paired(dataroot_gt=str(gt), dataroot_lq=str(lq), io_backend=section)


def opened(options: Section, scale: int = 2, channels: int = 3) -> Source:
    return open_source(options, scale, channels=channels, training=True)


def batches(source: Source, count: int = 12, first: int = 0, gt_size: int = 128, **more: int):
    loader = Loader(source, Stages.single(2, gt_size), hflip=True, rot=True, seed=7, **more)
    return list(islice(loader.batches(first), count))


def same(a, b) -> bool:
    return all(
        x.names == y.names and torch.equal(x.lq, y.lq) and torch.equal(x.gt, y.gt)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("case", KINDS)
@pytest.mark.parametrize("threads", [0, 2])
def test_the_same_batches_from_every_store(
    folder: Path, stored: Callable[[str], Paired], case: str, threads: int
) -> None:
    truth = batches(opened(paired(folder / "gt", folder / "lq")), workers=0)
    assert {batch.lq.dtype for batch in truth} == {torch.uint8, torch.uint16}
    source = opened(stored(case))
    check_source(source, patch=128)
    assert same(truth, batches(source, workers=threads))
    assert same(truth[2:], batches(source, 10, first=2, workers=threads))


@pytest.mark.parametrize("case", KINDS)
def test_the_same_whole_images_from_every_store(
    folder: Path, stored: Callable[[str], Paired], case: str
) -> None:
    ours, truth = opened(stored(case)), opened(paired(folder / "gt", folder / "lq"))
    assert len(ours) == len(truth) == len(SIZES)
    for index in range(len(truth)):
        a, b = ours[index], truth[index]
        assert a.name == b.name and a.lq.dtype == b.lq.dtype and ours.check(index)
        assert a.gt is not None and b.gt is not None
        assert np.array_equal(a.lq, b.lq) and np.array_equal(a.gt, b.gt)


@pytest.mark.parametrize("case", KINDS)
def test_a_degradation_draws_the_same_from_every_store(
    folder: Path, stored: Callable[[str], Paired], case: str
) -> None:
    noise = GaussianNoiseOptions(sigma=(5, 50))
    truth = DegradedImageDataset(dataroot_gt=str(folder / "gt"), degradation=noise)
    options = stored(case)
    ours = DegradedImageDataset(
        dataroot_gt=options.dataroot_gt, degradation=noise, io_backend=options.io_backend
    )
    sources = opened(ours, scale=1), opened(truth, scale=1)
    assert np.array_equal(sources[0][0].lq, sources[1][0].lq)
    assert same(*(batches(source, workers=2) for source in sources))


@pytest.mark.parametrize("case", KINDS)
def test_an_rgb_image_for_a_gray_network(stored: Callable[[str], Paired], case: str) -> None:
    source = opened(stored(case), channels=1)
    assert source[1].lq.shape == SIZES[1]
    with pytest.raises(DataError, match=r"error\[IMG05\].*a0\.png"):
        source[0]


@pytest.mark.parametrize("limit", [0, 1, 1 << 20])
def test_the_cache_changes_no_batch(folder: Path, limit: int) -> None:
    plain = paired(folder / "gt", folder / "lq")
    cached = plain.model_copy(update={"ram_cache_mib": limit})
    assert same(batches(opened(plain)), batches(opened(cached)))


# packs --------------------------------------------------------------------------------------------


def pack_of(folder: Path, *arrays: np.ndarray, tiles: bool, codec: str = "raw") -> Pack:
    names = [f"{number}.png" for number in range(len(arrays))]
    write_pack(folder, names, lambda index: arrays[index], tiles=tiles, codec=codec)
    return Pack(folder)


@given(data=st.data())
@settings(max_examples=40)
def test_any_part_of_a_pack(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    height, width = (data.draw(st.integers(1, 2 * TILE + 9)) for _ in range(2))
    shape = (height, width) + data.draw(st.sampled_from([(), (3,)]))
    kind = data.draw(st.sampled_from([np.uint8, np.uint16]))
    image = np.random.default_rng(0).integers(0, 256, shape).astype(kind) * 3
    folder = tmp_path_factory.mktemp("pack") / "p"
    tiles, codec = data.draw(st.sampled_from([(False, "raw"), (True, "raw"), (True, CODEC)]))
    pack = pack_of(folder, image[:1, :1], image, tiles=tiles, codec=codec)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(
        top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    )
    part = pack.held(1, 1 if image.ndim == 2 else 3).part(box)
    assert part.dtype == kind and np.array_equal(part, image[box.slices])
    pack.verify(1)


def test_damage_in_a_packed_tile_is_named(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    pack_of(tmp_path / "p", image, tiles=True, codec="zlib")
    pixels = tmp_path / "p/pixels.bin"
    body = bytearray(pixels.read_bytes())
    body[5000] ^= 255
    pixels.write_bytes(body)
    pack = Pack(tmp_path / "p")
    with pytest.raises(DataError, match=r"error\[DAT10\].*p/0\.png"):
        pack.held(0, 3).part(Box(0, 0, 9, 9))
    assert np.array_equal(pack.held(0, 3).part(Box(150, 150, 9, 9)), image[150:159, 150:159])


def test_zstd_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"error\[DAT36\].*zstandard"):
        pack_of(tmp_path / "p", np.zeros((9, 9), np.uint8), tiles=True, codec="zstd")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tiles", [False, True])
def test_an_image_outlives_its_pack(tmp_path: Path, tiles: bool) -> None:
    """A closed file's number may already be another file's."""
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    held = pack_of(tmp_path / "p", image, tiles=tiles).held(0, None)
    with open(__file__, "rb"):
        assert np.array_equal(held.whole(), image)


def repacked(folder: Path, body: bytes) -> Pack:
    """The pack of one tile with another body for it, and sums that fit."""
    records = np.frombuffer((folder / RECORDS).read_bytes(), INDEX).copy()
    records["crc32"] = zlib.crc32(body)
    files = {RECORDS: records.tobytes(), ENDS: np.array([0, len(body)], "<u8").tobytes()}
    header = json.loads((folder / HEADER).read_text())
    sums = {f"{name} crc32": zlib.crc32(held) for name, held in files.items()}
    for name, held in {**files, HEADER: json.dumps({**header, **sums}).encode()}.items():
        (folder / name).write_bytes(held)
    (folder / PIXELS).write_bytes(body)
    return Pack(folder)


@pytest.mark.parametrize("codec", CODEC_HERE)
def test_a_tile_unpacks_to_its_own_size_or_not_at_all(tmp_path: Path, codec: str) -> None:
    """A kB of a tile could else fill all memory."""
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    pack_of(tmp_path / "p", image, tiles=True, codec=codec)
    whole = (tmp_path / "p" / PIXELS).read_bytes()
    how = packing(codec)
    assert how is not None
    pack = repacked(tmp_path / "p", whole)
    assert np.array_equal(pack.held(0, None).whole(), image)
    bomb = how.pack(bytes(1 << 26))
    for body in (bomb, how.pack(bytes(61)), how.pack(bytes(59)), whole[:-1], whole + b"x", b""):
        pack = repacked(tmp_path / "p", body)
        tracemalloc.start()
        try:
            with pytest.raises(
                DataError, match=r"error\[DAT10\].*0\.png.*tiles that can be unpacked"
            ):
                pack.held(0, None).whole()
            assert tracemalloc.get_traced_memory()[1] < 1 << 22
        finally:
            tracemalloc.stop()


def test_sub_images_are_those_of_files_cut_up(folder: Path, tmp_path: Path) -> None:
    """BasicSR's extract_subimages.py: names, order, places, and so every batch."""
    rng = np.random.default_rng(1)
    for number, (height, width) in enumerate([(96, 100), (60, 48), (48, 49)]):
        for side, scale in (("gt", 2), ("lq", 1)):
            image = rng.integers(0, 256, (height * scale, width * scale, 3), dtype=np.uint8)
            size, step = 48 * scale, 24 * scale
            for kind in ("whole", "cut"):
                (tmp_path / kind / side).mkdir(parents=True, exist_ok=True)
            images.write(tmp_path / "whole" / side / f"{number}.png", image)
            tops, lefts = (
                [*range(0, n - size + 1, step), *([n - size] if (n - size) % step else [])]
                for n in image.shape[:2]
            )
            places = [(top, left) for top in tops for left in lefts]
            for count, (top, left) in enumerate(places, start=1):
                sub = image[top : top + size, left : left + size]
                images.write(tmp_path / "cut" / side / f"{number}_s{count:03d}.png", sub)
    prepare("pack", {s: tmp_path / "whole" / s for s in ("gt", "lq")}, tmp_path, layout="rows")
    virtual = {"type": "pack", "sub_images": {"crop_size": 96, "step": 48}}
    ours = opened(paired(tmp_path / "gt.pack", tmp_path / "lq.pack", virtual))
    truth = opened(paired(tmp_path / "cut/gt", tmp_path / "cut/lq"))
    assert len(ours) == len(truth) == 12 + 2 + 2
    assert [ours.name(i) for i in range(16)] == [truth.name(i) for i in range(16)]
    assert same(batches(ours, gt_size=64), batches(truth, gt_size=64))
    assert np.array_equal(ours[7].lq, truth[7].lq) and ours[7].name == truth[7].name
    check_source(ours, patch=96)


def test_sub_images_must_fit_the_scale(stored: Callable[[str], Paired]) -> None:
    options = stored("rows")
    backend = BACKEND.validate({"type": "pack", "sub_images": {"crop_size": 96, "step": 47}})
    with pytest.raises(OptionError, match=r"error\[OPT26\].*47"):
        opened(options.model_copy(update={"io_backend": backend}))


def test_a_pack_is_made_once_and_then_checked(folder: Path, tmp_path: Path) -> None:
    sides = {"gt": folder / "gt"}
    assert "5 images" in prepare("pack", sides, tmp_path, layout="rows")
    assert "already there, 5 images, all whole" in prepare("pack", sides, tmp_path)
    pixels = tmp_path / "gt.pack/pixels.bin"
    body = bytearray(pixels.read_bytes())
    body[1000] ^= 1
    pixels.write_bytes(body)
    with pytest.raises(DataError, match=r"error\[DAT10\].*a0\.png"):
        prepare("pack", sides, tmp_path)
    with pytest.raises(DataError, match=r"error\[DAT16\]"):
        prepare("pack", {"gt": folder / "lq" / ".."}, tmp_path, recursive=True)


@pytest.mark.parametrize(
    ("file", "change", "code"),
    [
        ("pack.json", lambda b: b.replace(b'"version": 1', b'"version": 2'), "DAT09"),
        ("pack.json", lambda b: b[:20], "DAT10"),
        ("pack.json", lambda b: None, "DAT02"),
        ("index.bin", lambda b: b[:-1], "DAT10"),
        ("index.bin", lambda b: None, "DAT10"),
        ("names.txt", lambda b: b.replace(b"0.png", b"1.png"), "DAT10"),
        ("pixels.bin", lambda b: b[:-1], "DAT10"),
        ("pixels.bin", lambda b: b + b"x", "DAT10"),
        ("pixels.bin", lambda b: None, "DAT10"),
    ],
)
def test_a_pack_that_is_not_whole(tmp_path: Path, file: str, change, code: str) -> None:
    pack_of(tmp_path / "p", np.zeros((4, 5, 3), np.uint8), tiles=False)
    target = tmp_path / "p" / file
    changed = change(target.read_bytes())
    target.unlink() if changed is None else target.write_bytes(changed)
    with pytest.raises(DataError, match=rf"error\[{code}\].*{tmp_path}"):
        Pack(tmp_path / "p")


OPENINGS = """
import resource, sys
import numpy as np
from restore.data.options import PackOptions
from restore.data.sources import open_store
from restore.errors import DataError
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
same = [open_store(PackOptions(type="pack"), sys.argv[1]) for _ in range(200)]
assert all(int(pack.held(0, 3).whole().sum()) == 60 for pack in same)
kept = []
try:
    for number in range(200):
        kept.append(open_store(PackOptions(type="pack"), f"{sys.argv[1]}{number}"))
except DataError as error:
    print(len(kept), error)
"""


@pytest.mark.parametrize("tiles", [False, True])
def test_packs_opened_often_share_a_descriptor_and_many_say_what_is_short(
    tmp_path: Path, tiles: bool
) -> None:
    image = np.ones((4, 5, 3), np.uint8)
    for name in ("p", *(f"p{number}" for number in range(64))):
        pack_of(tmp_path / name, image, tiles=tiles)
    command = [sys.executable, "-c", OPENINGS, str(tmp_path / "p")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, _, said = done.stdout.partition(" ")
    assert 40 < int(count) < 64
    assert "error[DAT04]: the pack cannot be opened" in said and "ulimit -n" in said


def test_a_pack_made_anew_is_opened_anew(tmp_path: Path) -> None:
    old = pack_of(tmp_path / "p", np.zeros((4, 5, 3), np.uint8), tiles=False)
    first = open_pack(tmp_path / "p")
    assert open_pack(tmp_path / "p") is first and pickle.loads(pickle.dumps(first)) is first
    shutil.rmtree(tmp_path / "p")
    pack_of(tmp_path / "p", np.ones((4, 5, 3), np.uint8), tiles=False)
    assert open_pack(tmp_path / "p").held(0, 3).whole().min() == 1
    assert old.held(0, 3).whole().max() == first.held(0, 3).whole().max() == 0


def test_a_killed_writer_leaves_no_pack(folder: Path, tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
import numpy as np
from restore.data.stores.pack_writer import write_pack
def read(index):
    if index == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros((9, 9, 3), np.uint8)
write_pack(Path(sys.argv[1]), ["a", "b", "c"], read, tiles=False)
"""
    target = tmp_path / "p"
    done = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True)
    assert done.returncode == -9 and not target.exists()
    assert len(pack_of(target, np.ones((4, 5, 3), np.uint8), tiles=True).names) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["p"]


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def read(index: int) -> np.ndarray:
        raise DataError.of("IMG03", "x", "x", "x", "x", "x")

    with pytest.raises(DataError):
        write_pack(tmp_path / "p", ["a"], read, tiles=False)
    assert not list(tmp_path.iterdir())


def test_no_room_is_said_before_writing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore.data.prepare.space.SPARE", 1 << 60)
    with pytest.raises(DataError, match=r"error\[DAT23\].*GB free"):
        prepare("pack", {"gt": folder / "gt"}, tmp_path)


# LMDB ---------------------------------------------------------------------------------------------


def lmdb_by_hand(folder: Path, files: dict[str, bytes], lines: str) -> Path:
    """An LMDB as BasicSR writes it."""
    with lmdb.open(str(folder), map_size=1 << 24) as base, base.begin(write=True) as writing:
        for key, data in files.items():
            writing.put(key.encode("ascii"), data)
    (folder / "meta_info.txt").write_text(lines)
    return folder


def test_basicsr_lmdb_folders_work(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for side, scale in (("gt", 1), ("lq", 2)):
        data = images.encode(image[::scale, ::scale], ".png", "x")
        size = 64 // scale
        lines = f"0002_s001.png ({size},{size},3) 1\n0001_s001.png ({size},{size},3) 1\n"
        files = {"0001_s001": data, "0002_s001": data}
        lmdb_by_hand(tmp_path / f"{side}.lmdb", files, lines)
    source = opened(paired(tmp_path / "gt.lmdb", tmp_path / "lq.lmdb", {"type": "lmdb"}))
    assert [source.name(i) for i in range(2)] == ["0001_s001", "0002_s001"]
    assert np.array_equal(source[1].lq, image[::2, ::2])
    check_source(source, patch=64)


def test_an_lmdb_that_is_not_whole(folder: Path, tmp_path: Path) -> None:
    data = (folder / "gt/a0.png").read_bytes()
    root = lmdb_by_hand(tmp_path / "x.lmdb", {"a": data, "c": data}, "a.png (1,1,3) 1\nb.png\n")
    with pytest.raises(DataError, match=r"error\[DAT08\].*x\.lmdb/b\.png"):
        LmdbFolder(root).held(1, 3)
    (root / "meta_info.txt").write_text("a.png\nb.png\nc.png\n")  # its writer was killed
    with pytest.raises(DataError, match=r"error\[DAT10\].*2 images, but 3 lines"):
        LmdbFolder(root)
    (root / "meta_info.txt").unlink()
    with pytest.raises(DataError, match=r"error\[DAT02\].*x\.lmdb"):
        LmdbFolder(root)
    (root / "meta_info.txt").write_text("a.png\n")
    (root / "data.mdb").write_bytes(b"not an LMDB" * 1000)
    with pytest.raises(DataError, match=r"error\[DAT10\].*x\.lmdb"):
        LmdbFolder(root)
    (root / "data.mdb").unlink()
    with pytest.raises(DataError, match=r"error\[DAT10\].*x\.lmdb"):
        LmdbFolder(root)


def test_an_lmdb_grows_with_what_goes_in(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    data = images.encode(noise, ".png", "x")
    names = [f"{number:03d}.png" for number in range(20)]
    assert write_lmdb(tmp_path / "x.lmdb", names, lambda index: data) == 20 * len(data) > 1 << 24
    base = LmdbFolder(tmp_path / "x.lmdb")
    again = LmdbFolder(tmp_path / "x.lmdb")  # open twice
    assert base.names == names and base.encoded(19) == again.encoded(0) == data


def test_a_broken_file_does_not_get_into_an_lmdb(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="IMG02"):
        write_lmdb(tmp_path / "x.lmdb", ["a.png"], lambda index: b"no image")
    with pytest.raises(DataError, match="DAT33"):
        good = images.encode(np.zeros((2, 2), np.uint8), ".png", "x")
        write_lmdb(tmp_path / "x.lmdb", ["a" * 600 + ".png"], lambda index: good)
    assert not list(tmp_path.iterdir())


# parts of a PNG -----------------------------------------------------------------------------------


def png(image: np.ndarray, filters: list[int]) -> bytes:
    """A PNG of `image`, (H, W[, 3]), each row with the filter that `filters` names in turn."""
    height, width = image.shape[:2]
    pixel = image.itemsize * (1 if image.ndim == 2 else 3)
    plain = image.astype(image.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    rows = np.zeros((height + 1, pixel + width * pixel), np.int64)
    rows[1:, pixel:] = plain
    here, above = rows[1:, pixel:], rows[:-1, pixel:]
    left, corner = rows[1:, :-pixel], rows[:-1, :-pixel]
    guess = left + above - corner
    far = np.abs(np.stack([guess - left, guess - above, guess - corner]))
    paeth = np.choose(far.argmin(0), [left, above, corner])
    predicted = [0 * here, left, above, (left + above) // 2, paeth]
    body = b"".join(
        bytes([kind]) + (here[y] - predicted[kind][y]).astype(np.uint8).tobytes()
        for y, kind in ((y, filters[y % len(filters)]) for y in range(height))
    )
    header = struct.pack(
        ">IIBBBBB", width, height, 8 * image.itemsize, 0 if image.ndim == 2 else 2, 0, 0, 0
    )
    packed = zlib.compress(body)
    halves = [packed[: len(packed) // 2], packed[len(packed) // 2 :]]
    chunks = [(b"IHDR", header), *((b"IDAT", half) for half in halves), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


@given(data=st.data())
@settings(max_examples=80)
def test_any_part_of_a_png(data: st.DataObject) -> None:
    height, width = (data.draw(st.integers(1, 24)) for _ in range(2))
    shape = (height, width) + data.draw(st.sampled_from([(), (3,), (3,)]))
    kind = data.draw(st.sampled_from([np.uint8, np.uint16]))
    image = np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape).astype(kind)
    filters = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=24))
    file = png(image, filters)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(
        top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
    )
    part = images.decode_part(file, "a.png", *box.slices, channels=3)
    truth = images.as_rgb(image)
    assert np.array_equal(images.decode(file, "a.png", channels=3), truth)
    assert part.dtype == kind and np.array_equal(part, truth[box.slices])


def test_a_part_of_a_png_whose_pixels_are_broken() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole = png(image, [1])
    for at in (45, len(whole) // 3):
        body = bytearray(whole)
        body[at] ^= 255
        with pytest.raises(DataError, match="IMG04"):  # the chunk's checksum
            images.decode_part(bytes(body), "a.png", slice(2, 9), slice(2, 9), channels=3)


# images that cannot be used -----------------------------------------------------------------------


def test_a_bad_image_ends_the_run_or_is_skipped(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw_pairs(tmp_path)
    bad = tmp_path / "gt/a0.png"
    bad.write_bytes(bad.read_bytes()[:-50])
    source = opened(paired(tmp_path / "gt", tmp_path / "lq"))
    for threads in (0, 1, 3):
        with pytest.raises(DataError, match=rf"error\[IMG03\].*{bad}"):
            batches(source, workers=threads)
    stages = Stages.single(5, 64)
    runs = []
    for threads in (0, 2):
        loader = Loader(
            source, stages, hflip=True, rot=True, seed=7, workers=threads, on_bad="skip"
        )
        runs.append(list(islice(loader.batches(0), 2)))
        assert loader.skipped == {0}
        assert sorted(runs[-1][0].names) == ["a1", "a1", "a2", "a3", "a4"]
    assert same(*runs)
    said = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
    assert len(said) == 2 and all(str(bad) in line for line in said)
    other = tmp_path / "lq/a3.png"
    other.write_bytes(b"")
    with pytest.raises(DataError, match=r"error\[DAT19\].*2 of 5.*at most 1"):
        loader = Loader(source, stages, hflip=True, rot=True, seed=7, on_bad="skip")
        list(islice(loader.batches(0), 2))
    with pytest.raises(DataError, match="IMG0"):
        check_source(source)
    check_source(source, skip=True)


def test_an_unexpected_error_names_the_files(folder: Path) -> None:
    source = opened(paired(folder / "gt", folder / "lq"))

    def fail(index: int, draw: object) -> None:
        raise MemoryError

    source.part = fail  # type: ignore[method-assign]
    with pytest.raises(MemoryError) as caught:
        batches(source, workers=2)
    assert "while reading" in caught.value.__notes__[0] and "gt/a" in caught.value.__notes__[0]


# memory of batches --------------------------------------------------------------------------------


def test_a_batch_that_is_held_is_not_overwritten(stored: Callable[[str], Paired]) -> None:
    loader = Loader(
        opened(stored("rows")), Stages.single(4, 64), hflip=True, rot=True, seed=7, workers=2
    )
    stream = loader.batches(0)
    kept = [next(stream).gt for _ in range(5)]  # tensors alone, their batches are gone
    copies = [tensor.clone() for tensor in kept]
    for _ in range(20):
        next(stream)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_memory_is_used_again(stored: Callable[[str], Paired]) -> None:
    options = stored("rows").model_copy(update={"meta_info_file": None})
    source = opened(options)
    loader = Loader(source, Stages.single(4, 64), hflip=True, rot=True, seed=7, workers=2)
    places = {batch.gt.data_ptr() for batch in islice(loader.batches(0), 30)}
    assert len(places) <= 3 * 6  # three forms (8 bit, 16 bit, mixed), each a few slots


# the command --------------------------------------------------------------------------------------


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "pack", "--gt", str(folder / "gt"), "--lq", str(folder / "lq")]
    out = ["--out", str(tmp_path / "p")]
    assert main([*words, *out, "--codec", "zlib"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and all("5 images" in line and "zlib tiles" in line for line in said)
    source = opened(paired(tmp_path / "p/gt.pack", tmp_path / "p/lq.pack", {"type": "pack"}))
    assert len(source) == 5
    assert main([*words, *out]) == 0 and "already there" in capsys.readouterr().out
    assert main(words) == 2 and "error[OPT40]" in capsys.readouterr().err
    mixed = [*words, *out, "--layout", "rows", "--codec", "zlib"]
    assert main(mixed) == 2 and "error[OPT26]" in capsys.readouterr().err
