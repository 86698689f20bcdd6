"""Worker processes: the same batches, and an error whatever becomes of them."""

from __future__ import annotations

import os
import signal
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from restore import images
from restore.data.loader import Loader
from restore.data.options import DegradedImageDataset, GaussianNoiseOptions
from restore.data.source import Source
from restore.data.sources import open_source
from restore.data.stages import Stages
from restore.errors import BackendError, DataError
from restore.section import Section


class Deadly(Section):
    """A degradation that kills its process, as the system does when memory runs out."""

    type: str = "test_workers:Deadly"

    def build(self, scale: int):
        return die


class Hidden(Section):
    """A degradation that cannot be sent to a process."""

    type: str = "test_workers:Hidden"

    def build(self, scale: int):
        return lambda image, rng: image


def die(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    os.kill(os.getpid(), signal.SIGKILL)
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(5):
        image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        images.write(tmp_path / f"a{number}.png", image)
    return tmp_path


def opened(folder: Path, degradation: Section, cache: int = 0) -> Source:
    options = DegradedImageDataset(
        dataroot_gt=str(folder), degradation=degradation, ram_cache_mib=cache
    )
    return open_source(options, 1, channels=3, training=True)


def loader(source: Source, workers: int, on_bad: str = "raise", kind: str = "processes") -> Loader:
    return Loader(
        source, Stages.single(3, 32), hflip=True, rot=True, seed=3, workers=workers,
        worker_type=kind, on_bad=on_bad,  # type: ignore[arg-type]
    )  # fmt: skip


def test_processes_make_the_same_batches(folder: Path) -> None:
    noise = GaussianNoiseOptions(sigma=(0, 50))
    truth = list(islice(loader(opened(folder, noise), 0).batches(0), 6))
    ours = list(islice(loader(opened(folder, noise, cache=1), 2).batches(0), 6))
    for a, b in zip(truth, ours, strict=True):
        assert a.names == b.names and torch.equal(a.lq, b.lq) and torch.equal(a.gt, b.gt)


def test_bad_images_in_processes(folder: Path) -> None:
    (folder / "a2.png").write_bytes(b"no image")
    source = opened(folder, GaussianNoiseOptions(sigma=9))
    with pytest.raises(DataError, match=r"error\[IMG02\].*a2\.png"):
        list(islice(loader(source, 2).batches(0), 2))
    both = [loader(source, 2, "skip", kind) for kind in ("processes", "threads")]
    runs = [list(islice(each.batches(0), 4)) for each in both]
    assert both[0].skipped == both[1].skipped == {2}
    for a, b in zip(*runs, strict=True):
        assert a.names == b.names and torch.equal(a.lq, b.lq)
    (folder / "a3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"error\[DAT19\].*a[23]\.png"):
        list(islice(loader(source, 2, "skip").batches(0), 4))


def test_a_killed_process_is_an_error_that_names_files(folder: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"error\[DAT11\].*a\d\.png.*memory"):
        next(loader(opened(folder, Deadly()), 2).batches(0))
    assert time.monotonic() - begun < 60


def test_what_cannot_be_sent_is_said(folder: Path) -> None:
    with pytest.raises(BackendError, match=r"error\[DAT35\].*worker_type: threads"):
        next(loader(opened(folder, Hidden()), 2).batches(0))
    next(loader(opened(folder, Hidden()), 2, kind="threads").batches(0))
