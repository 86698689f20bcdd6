"""Saving beside training: what is written is the moment of `start`, and failures come back."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from restore.errors import SaveError
from restore.training.checkpoint import Checkpoints
from restore.training.writer import Writer


def numbers(step: int) -> dict:
    return {"step": step, "samples": 0, "best": {}}


def test_later_changes_do_not_reach_what_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, save = threading.Event(), Checkpoints.save

    def delayed(self: Checkpoints, tensors, numbers, *, best: bool) -> Path:
        assert go.wait(10)
        return save(self, tensors, numbers, best=best)

    monkeypatch.setattr(Checkpoints, "save", delayed)
    live = {"model": {"w": torch.ones(3), "count": torch.tensor(4)}}
    store, best = Checkpoints(tmp_path, 5, {}), {"psnr": 1.0}
    with Writer(store) as writer:
        writer.start(live, {**numbers(1), "best": best}, best=False)
        live["model"]["w"].zero_()
        best["psnr"] = 2.0
        go.set()
        assert writer.wait() is None
        writer.start(live, numbers(2), best=False)
    assert store.steps() == [1, 2]  # leaving the block has waited for the second
    saved = [Checkpoints(tmp_path, 5, {})]
    newest = saved[0].load_newest()
    assert newest is not None and not newest.tensors["model"]["w"].any()
    for step in (2,):
        (tmp_path / f"step_{step:08d}" / "MANIFEST.json").unlink()
    older = store.load_newest()
    assert older is not None and older.tensors["model"]["w"].tolist() == [1, 1, 1]
    assert older.tensors["model"]["count"].item() == 4
    assert older.numbers["best"] == {"psnr": 1.0}


def test_buffers_are_used_again_until_the_form_changes(tmp_path: Path) -> None:
    with Writer(Checkpoints(tmp_path, 9, {})) as writer:
        places = []
        for step, size in ((1, 3), (2, 3), (3, 5)):
            writer.start({"model": {"w": torch.full((size,), step)}}, numbers(step), best=False)
            places.append(writer._buffers["model"]["w"].data_ptr())
            assert writer.wait() is None
        assert places[0] == places[1]
        assert writer._buffers["model"]["w"].shape == (5,)


def test_a_failure_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Writer(Checkpoints(tmp_path / "file" / "x", 2, {})) as writer:
        writer.start({"model": {"w": torch.ones(3)}}, numbers(1), best=False)
        error = writer.wait()
        assert isinstance(error, SaveError) and "error[CKP04]" in str(error)
        assert writer.wait() is None
