"""Checkpoints: whole or not there, verified, pruned; a damaged one is passed over and named."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from restore.errors import CheckpointError, RunError, SaveError
from restore.training import checkpoint
from restore.training.checkpoint import Checkpoints, fault_of, load


def tensors(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((3, 4), value)}, "optim": {"exp_avg/w": torch.ones(3, 4)}}


def numbers(step: int) -> dict:
    return {"step": step, "samples": 8 * step, "best": {"step": step, "psnr": 30.5}}


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2, about={"scale": 2})


def save(store: Checkpoints, step: int, best: bool = False) -> Path:
    return store.save(tensors(step), numbers(step), best=best)


def test_what_is_saved_comes_back(store: Checkpoints) -> None:
    folder = save(store, 20)
    assert sorted(f.name for f in folder.iterdir()) == [
        "MANIFEST.json", "model.safetensors", "optim.safetensors", "state.json",
    ]  # fmt: skip
    saved = store.load_newest()
    assert saved is not None and saved.numbers["samples"] == 160
    assert torch.equal(saved.tensors["model"]["w"], torch.full((3, 4), 20.0))


def test_same_state_same_bytes(tmp_path: Path) -> None:
    a = save(Checkpoints(tmp_path / "a", 2, {"scale": 2}), 5)
    b = save(Checkpoints(tmp_path / "b", 2, {"scale": 2}), 5)
    for file in a.iterdir():
        assert file.read_bytes() == (b / file.name).read_bytes()


def test_newest_and_best_are_kept(store: Checkpoints) -> None:
    for step in (1, 2, 3, 4, 5):
        save(store, step, best=step == 2)
    assert store.steps() == [2, 4, 5]
    assert json.loads((store.folder / "latest.json").read_text()) == {"step": 5}
    assert json.loads((store.folder / "best.json").read_text())["step"] == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "manifest", "empty"])
def test_damage_is_found_and_passed_over(
    store: Checkpoints, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(store, 1)
    newest = save(store, 2)
    model = newest / "model.safetensors"
    content = bytearray(model.read_bytes())
    if damage == "flip":  # one bit of one weight: safetensors itself would not notice
        content[-3] ^= 4
        model.write_bytes(content)
    elif damage == "cut":
        model.write_bytes(content[:-5])
    elif damage == "missing":
        model.unlink()
    elif damage == "manifest":
        (newest / "MANIFEST.json").write_text("{")
    else:
        shutil.rmtree(newest)
        newest.mkdir()
    assert fault_of(newest) is not None
    with pytest.raises(CheckpointError, match=r"error\[CKP05\]: checkpoint is damaged"):
        load(newest)
    with caplog.at_level(logging.WARNING, "restore"):
        saved = store.load_newest()
    assert saved is not None and saved.numbers["step"] == 1
    assert "step_00000002 is not used" in caplog.text


def sealed(folder: Path, name: str, body: bytes) -> None:
    """Another content of a file, and a manifest that agrees with it."""
    (folder / name).write_bytes(body)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest[name] = {"bytes": len(body), "sha256": checkpoint.sha256(folder / name)}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("state.json", b""),
        ("state.json", b"[1]"),
        ("state.json", b"\xff"),
        ("state.json", b"[" * 99_999),
        ("state.json", b'{"step": 1}'),
        ("state.json", b'{"schema": "1"}'),
        ("model.safetensors", b""),
        ("optim.safetensors", b"\x02\0\0\0\0\0\0\0[]"),
    ],
)
def test_content_that_no_save_writes(store: Checkpoints, name: str, body: bytes) -> None:
    """The sums are right, so no disk did it: it is said, and nothing older is taken instead."""
    save(store, 1)
    newest = save(store, 2)
    sealed(newest, name, body)
    with pytest.raises(CheckpointError, match=rf"error\[CKP05\].*{name}"):
        load(newest)
    with pytest.raises(CheckpointError, match=rf"error\[CKP05\].*{name}"):
        store.load_newest()


@pytest.mark.parametrize(
    ("manifest", "fault"),
    [
        ("{}", "state.json is not in MANIFEST.json"),
        ("[" * 99_999, "MANIFEST.json cannot be read"),
        ('{"state.json": []}', "MANIFEST.json cannot be read"),
        ("[]", "MANIFEST.json cannot be read"),
    ],
)
def test_a_manifest_that_no_save_writes(store: Checkpoints, manifest: str, fault: str) -> None:
    folder = save(store, 1)
    (folder / "MANIFEST.json").write_text(manifest)
    assert fault in str(fault_of(folder))
    assert store.load_newest() is None


def test_only_what_the_manifest_lists_is_loaded(store: Checkpoints) -> None:
    """A file copied in beside was never compared with anything."""
    folder = save(store, 1)
    shutil.copy(folder / "model.safetensors", folder / "ema.safetensors")
    assert load(folder).tensors.keys() == {"model", "optim"}
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    (folder.parent / "x.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    outside = {"../x.safetensors": manifest["model.safetensors"], **manifest}
    (folder / "MANIFEST.json").write_text(json.dumps(outside))
    assert "cannot be read" in str(fault_of(folder))


@pytest.mark.parametrize("note", ["", "[]", "3", '{"step": []}', "[" * 99_999, "\xff"])
def test_a_note_of_the_best_that_cannot_be_read(store: Checkpoints, note: str) -> None:
    for step in (1, 2, 3):
        save(store, step)
        (store.folder / "best.json").write_text(note, encoding="latin-1")
    assert store.steps() == [2, 3]


def test_failing_disk_leaves_the_old_one(
    store: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, 1)
    written = checkpoint.write_safetensors

    def fails_late(path: Path, *rest: object) -> None:
        if path.stem == "optim":
            raise OSError(28, "No space left on device")
        written(path, *rest)

    monkeypatch.setattr(checkpoint, "write_safetensors", fails_late)
    with pytest.raises(SaveError, match=r"error\[CKP04\].*No space left") as caught:
        save(store, 2)
    assert caught.value.exit_code == 4
    assert [f.name for f in sorted(store.folder.iterdir())] == ["latest.json", "step_00000001"]
    assert fault_of(store.folder / "step_00000001") is None


def test_too_little_room_is_seen_first(store: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(SaveError, match=r"need 0 MiB, have 0 MiB free"):
        save(store, 2)


def test_leftovers_go(store: Checkpoints) -> None:
    save(store, 1)
    for name in (f".tmp-step_00000002-{os.getpid()}", ".trash-step_00000000-1"):
        (store.folder / name).mkdir()
    store.clear_leftovers()
    assert sorted(f.name for f in store.folder.iterdir()) == ["latest.json", "step_00000001"]


def test_newer_schema_is_refused(store: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SCHEMA", 2)
    folder = save(store, 1)
    monkeypatch.setattr(checkpoint, "SCHEMA", 1)
    with pytest.raises(CheckpointError, match=r"error\[CKP02\].*schema 2"):
        load(folder)


def test_a_run_that_was_taken_over_writes_nothing_more(store: Checkpoints) -> None:
    store.claim()
    save(store, 1)
    later = Checkpoints(store.folder, keep=2, about={"scale": 2})
    later.claim()
    with pytest.raises(RunError, match=r"error\[RUN04\]: another process has taken this run over"):
        save(store, 2)
    assert later.steps() == [1] and not list(store.folder.glob(".tmp-*"))
    save(later, 2)
    assert later.steps() == [1, 2]
