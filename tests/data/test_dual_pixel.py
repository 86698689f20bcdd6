"""Dual-pixel pairs: two 16-bit views make one LQ of six channels, through to the loader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from restore import images
from restore.data.loader import Loader
from restore.data.options import DualPixelDataset
from restore.data.sources import Source, check_source, open_source
from restore.data.stages import Stages
from restore.errors import DataError


def draw(file: Path, seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, 3)
    image = np.random.default_rng(seed).integers(0, 65536, shape, dtype=np.uint16)
    images.write(file, image)
    return image


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for number, kind in enumerate(("gt", "left", "right")):
        for name in ("a", "b"):
            draw(tmp_path / kind / f"{name}.png", 10 * number + ord(name))
    return tmp_path


def opened(root: Path) -> Source:
    options = DualPixelDataset(
        dataroot_gt=str(root / "gt"),
        dataroot_lqL=str(root / "left"),
        dataroot_lqR=str(root / "right"),
    )
    return open_source(options, 1, channels=6, training=True)


def test_six_channels_left_before_right(folders: Path) -> None:
    source = opened(folders)
    check_source(source)
    pair = source[1]
    assert pair.lq.shape == (12, 16, 6) and pair.lq.dtype == np.uint16
    left, right = (images.read(folders / kind / "b.png") for kind in ("left", "right"))
    assert np.array_equal(pair.lq[..., :3], left) and np.array_equal(pair.lq[..., 3:], right)
    mean = (left.astype(int) + right) // 2
    assert np.array_equal(pair.view, mean)
    assert [f.parent.name for f in source.files(1)] == ["left", "right", "gt"]


def test_batches_are_sixteen_bit(folders: Path) -> None:
    loader = Loader(opened(folders), Stages.single(2, 8), hflip=True, rot=True, seed=0)
    batch = next(loader.batches(0))
    lq, gt = batch.to(torch.device("cpu"))
    assert lq.shape == (2, 6, 8, 8) and gt.shape == (2, 3, 8, 8)
    assert 0 <= lq.min() and lq.max() <= 1 and len(lq.unique()) > 300


def test_missing_and_differing_views(folders: Path) -> None:
    draw(folders / "right/b.png", 1, width=17)
    with pytest.raises(DataError, match="DAT06"):
        check_source(opened(folders))
    (folders / "right/b.png").unlink()
    with pytest.raises(DataError, match=r"error\[DAT05\]"):
        opened(folders)
