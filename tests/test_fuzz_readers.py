"""Files from elsewhere: what scripts/fuzz.py found, bombs, and its targets on changed inputs."""

from __future__ import annotations

import copy
import gzip
import hashlib
import importlib
import io
import json
import math
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from restore import images
from restore.commands.convert import _training_of
from restore.data.blocks import BLOCK_FILES, shape_of_blocks
from restore.data.fingerprint import FileHashes
from restore.data.prepare import dnd
from restore.data.prepare.source import Source
from restore.data.stores.lmdb_store import META, LmdbFolder, write_lmdb
from restore.errors import DataError, RestoreError, WeightsError
from restore.metrics.niqe import FEATURES, NiqeModel
from restore.recipes.build import weights_file
from restore.reports.curves import read_curves
from restore.reports.records import ImageRow, read_rows

from helpers import peak

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "fuzz.py"
TARGETS = (
    "options",
    "pack",
    "shards",
    "lmdb",
    "weights",
    "checkpoint",
    "image",
    "archive",
    "matrix",
)


def listed(file: Path) -> list[str]:
    with closing(Source([file])) as source:
        return [member.path for member in source.members]


# Archives -----------------------------------------------------------------------------------------


def test_a_zip_with_a_nameless_entry(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", b"body")
    body = file.read_bytes()
    at = body.index(b"PK\1\2")
    body = body[: at + 28] + b"\0\0" + body[at + 30 : at + 46] + body[at + 47 :]
    end = body.index(b"PK\5\6")
    (size,) = struct.unpack_from("<I", body, end + 12)
    file.write_bytes(body[: end + 12] + struct.pack("<I", size - 1) + body[end + 16 :])
    with pytest.raises(DataError, match=r"error\[DAT20\]: the source cannot be read .*a\.zip"):
        listed(file)


def test_a_zip_whose_entries_share_their_bytes(tmp_path: Path) -> None:
    """Each is small enough for its own packed bytes; all of them are not for the file."""
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(1 << 20))
        for number in range(1, 400):
            again = copy.copy(archive.filelist[0])
            again.filename = again.orig_filename = f"{number}.png"
            archive.filelist.append(again)
    with pytest.raises(DataError, match=r"error\[DAT22\].*at most 200 times"):
        listed(file)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
@pytest.mark.parametrize("first", [True, False])
def test_a_tar_whose_names_are_a_bomb(tmp_path: Path, kind: bytes, first: bool) -> None:
    """tarfile reads a long name whole, before anything can be said about its member."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 64 << 20
    file = tmp_path / "a.tar.gz"
    with gzip.open(file, "wb", 1) as out:
        if not first:
            out.write(tarfile.TarInfo("a.png").tobuf())
        out.write(info.tobuf())
        out.write(bytes(64 << 20))

    def refused() -> None:
        with pytest.raises(DataError, match=r"error\[DAT20\].*a\.tar\.gz"):
            listed(file)

    assert peak(refused) < 8 << 20


def test_names_longer_than_a_header_are_read(tmp_path: Path) -> None:
    name = "/".join(["folder" * 8] * 8) + "/é.png"
    for number, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        file = tmp_path / f"{number}.tar"
        with tarfile.open(file, "w", format=form) as tar:
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        assert listed(file) == [f"{number}/{name}"]


# MATLAB's and NumPy's files -----------------------------------------------------------------------


def test_matlabs_files_of_another_version(tmp_path: Path) -> None:
    """A flipped byte of the header makes it another version."""
    noisy = tmp_path / BLOCK_FILES[0]
    savemat(noisy, {noisy.stem: np.zeros((1, 1, 2, 2, 3), np.uint8)})
    boxes = np.empty(2, object)
    boxes[:] = [np.array([[1.0, 1, 2, 3], [2, 2, 3, 4]])] * 2
    (tmp_path / "images_srgb").mkdir()
    savemat(tmp_path / "info.mat", {"info": {"boundingboxes": boxes}})
    image = tmp_path / "images_srgb" / "0001.mat"
    savemat(image, {"InoisySRGB": np.full((4, 4, 3), 0.5)})
    read = list(dnd.read_blocks(tmp_path, "images_srgb/0001.mat"))
    assert [block.shape for block in read] == [(2, 3, 3)] * 2
    for file in (noisy, image):
        body = bytearray(file.read_bytes())
        body[125] = 2
        file.write_bytes(body)
    with pytest.raises(DataError, match=r"error\[DAT18\].*not MATLAB 5"):
        shape_of_blocks(noisy, noisy, channels=3)
    with pytest.raises(DataError, match=r"error\[DAT27\].*not MATLAB 5"):
        list(dnd.read_blocks(tmp_path, "images_srgb/0001.mat"))


def test_a_model_of_niqe_that_is_a_bomb(tmp_path: Path) -> None:
    file = tmp_path / "n.npz"
    NiqeModel(np.zeros(FEATURES), np.eye(FEATURES)).write(file)
    assert peak(lambda: NiqeModel.read(file)) < 1 << 20
    np.savez_compressed(file, mu_pris_param=np.zeros(1 << 23), cov_pris_param=np.eye(FEATURES))

    def refused() -> None:
        with pytest.raises(WeightsError, match=r"error\[WGT30\].*n\.npz"):
            NiqeModel.read(file)

    assert peak(refused) < 4 << 20


# Files of ours that something else has changed ----------------------------------------------------

ODD_JSON = [b"", b"[]", b"3", b"{}", b'{"step": "1"}', b'{"step": -1}', b"[" * 99_999, b"\xff"]


@pytest.mark.parametrize("body", ODD_JSON)
def test_a_runs_note_of_its_newest_checkpoint(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest.json").write_bytes(body)
    with pytest.raises(WeightsError, match=r"error\[WGT05\].*latest\.json"):
        weights_file(str(tmp_path), None)


@pytest.mark.parametrize("name", ["state.json", "run.json"])
@pytest.mark.parametrize("body", [body for body in ODD_JSON if not body.startswith(b"{")])
def test_a_runs_notes_that_cannot_be_read(tmp_path: Path, name: str, body: bytes) -> None:
    saved = tmp_path / "checkpoints" / "step_00000001"
    saved.mkdir(parents=True)
    ((saved if name == "state.json" else tmp_path) / name).write_bytes(body)
    with pytest.raises(WeightsError, match=rf"error\[WGT05\].*{name}"):
        _training_of(saved / "model.safetensors")


ROW = asdict(ImageRow("Set5", "a.png", "psnr-y", 2, 30.0, 0.9, 28.0, 0.8, 4, 5, 0.1, "n", "w", "c"))


def test_a_row_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**ROW, "psnr": math.inf, "of_later": [1]}) + "\n")
    (row,) = read_rows(file)
    assert row.psnr == math.inf and asdict(row)["ssim"] == ROW["ssim"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("psnr", "30"), ("psnr", None), ("psnr", True), ("image", 3), ("width", 4.5),
     ("further", []), ("further", {"lpips": "x"})],
)  # fmt: skip
def test_a_row_of_other_types(tmp_path: Path, key: str, value: object) -> None:
    """Else it would be a mean, a table or a traceback later on."""
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, key: value}) + "\n")
    with pytest.raises(DataError, match=rf"error\[DAT28\].*rows\.jsonl:2.*{key}"):
        read_rows(file)


@pytest.mark.parametrize("body", ODD_JSON)
def test_rows_that_are_none(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "rows.jsonl").write_bytes(json.dumps(ROW).encode() + b"\n" + body + b"\n")
    with pytest.raises(DataError, match=r"error\[DAT28\].*rows\.jsonl:2"):
        read_rows(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("body", [*ODD_JSON, b'{"x": {}}'])
def test_what_is_only_remembered_is_done_again(tmp_path: Path, body: bytes) -> None:
    image, store = tmp_path / "a.png", tmp_path / "hashes.json"
    image.write_bytes(b"pixels")
    store.write_bytes(body)
    assert FileHashes(store).of(image) == hashlib.sha256(b"pixels").hexdigest()
    about = image.stat()
    store.write_text(json.dumps({str(image.resolve()): [about.st_size, about.st_mtime_ns]}))
    assert FileHashes(store).of(image) == hashlib.sha256(b"pixels").hexdigest()
    log = tmp_path / "log.jsonl"
    log.write_bytes(body + b'\n{"step": 1, "val/a/psnr": 30}\n')
    (series,) = read_curves("run", log)
    assert series.measure == "val/a/psnr"


def test_an_lmdbs_list_with_a_line_that_is_no_name(tmp_path: Path) -> None:
    picture = images.encode(np.zeros((3, 4, 3), np.uint8), ".png", "a.png")
    write_lmdb(tmp_path / "l", ["a.png"], lambda _: picture)
    meta = tmp_path / "l" / META
    meta.write_text("a.png" + " " * 200_000 + "x\n")  # read in linear time
    assert len(LmdbFolder(tmp_path / "l").names) == 1
    for line in (". (3,4,3) 1", "/"):
        meta.write_text(f"{line}\n")
        with pytest.raises(DataError, match=r"error\[DAT10\].*in meta_info.txt"):
            LmdbFolder(tmp_path / "l")


# The fuzzer's targets -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzz() -> Iterator[tuple[ModuleType, dict[str, Any]]]:
    """scripts/fuzz_parts.py, and the targets."""
    sys.path.insert(0, str(SCRIPT.parent))
    yield importlib.import_module("fuzz_parts"), importlib.import_module("fuzz_targets").TARGETS
    sys.path.remove(str(SCRIPT.parent))


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read_and_changed_ones_taken_or_refused(
    fuzz: tuple[ModuleType, dict[str, Any]], tmp_path: Path, name: str
) -> None:
    """A few hundred of the changes that the fuzzer makes by the hundred thousand."""
    framing, targets = fuzz
    assert set(TARGETS) == set(targets) == set(importlib.import_module("fuzz").TARGETS)
    target, place = targets[name], tmp_path / "input"
    seeds = framing.seeds_of(target)
    taken = 0
    for seed in seeds:
        try:
            framing.read_input(target, seed, place)
            taken += 1
        except RestoreError:
            assert name == "image"  # turned ones, where turning is not asked for
    assert taken > len(seeds) // 2

    @settings(max_examples=25 if name in ("options", "checkpoint") else 100, database=None)
    @given(data=st.data())
    def changed(data: st.DataObject) -> None:
        parts = framing.unpacked(data.draw(st.sampled_from(seeds)), target.parts)
        part = data.draw(st.sampled_from([key for key in target.parts if parts[key]]))
        body = bytearray(parts[part])
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        try:
            framing.read_input(
                target, framing.packed({**parts, part: bytes(body)}, target.parts), place
            )
        except RestoreError:
            pass

    changed()


def test_the_fuzzer_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "atheris.py").write_text("raise ImportError('none')")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--finds", tmp_path / "finds"],
        capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error[DEV04]: atheris is not installed (scripts/fuzz.py)")
    assert done.stderr.endswith("fix: pip install atheris\n")
