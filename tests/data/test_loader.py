"""The stream of samples: pure, sharded without overlap, the same from any start on any threads."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.data.augment import CropFlip, sample_rng
from restore.data.loader import Loader, order
from restore.data.pair import ImagePair
from restore.errors import DataError

SCALE = 2


class Numbered:
    """A source whose pixels tell which image, row and column they come from."""

    def __init__(self, count: int, height: int = 12, width: int = 17) -> None:
        self._count, self._height, self._width = count, height, width

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f"image{index}"

    def files(self, index: int) -> tuple[Path, ...]:
        return (Path(f"image{index}.png"),)

    def __getitem__(self, index: int) -> ImagePair:
        y, x = np.mgrid[: self._height, : self._width]
        lq = np.stack([np.full_like(x, index), y, x], axis=2).astype(np.uint8)
        gt = lq.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        return ImagePair(self.name(index), lq, gt, SCALE)


def loader(count: int = 7, batch: int = 4, **more: int) -> Loader:
    return Loader(Numbered(count), CropFlip(8, True, True), batch=batch, seed=3, **more)


def test_any_start_continues_the_same_stream() -> None:
    whole = list(islice(loader().batches(0), 9))
    resumed = list(islice(loader().batches(whole[4].end), 4))
    for a, b in zip(whole[5:], resumed, strict=True):
        assert a.names == b.names and a.end == b.end
        assert torch.equal(a.lq, b.lq) and torch.equal(a.gt, b.gt)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_change_nothing(threads: int) -> None:
    truth = list(islice(loader(threads=2).batches(8), 5))
    for a, b in zip(truth, islice(loader(threads=threads).batches(8), 5), strict=False):
        assert a.names == b.names and torch.equal(a.gt, b.gt)


def test_ranks_share_the_global_batch() -> None:
    alone = list(islice(loader(batch=6).batches(0), 4))
    ranks = [islice(loader(batch=2, rank=r, ranks=3).batches(0), 4) for r in range(3)]
    for whole, parts in zip(alone, zip(*ranks, strict=True), strict=True):
        assert whole.names == tuple(name for part in parts for name in part.names)
        assert torch.equal(whole.lq, torch.cat([part.lq for part in parts]))
        assert {part.end for part in parts} == {whole.end}


def test_every_image_once_an_epoch() -> None:
    names = [name for batch in islice(loader().batches(0), 7) for name in batch.names]
    for epoch in range(4):
        assert sorted(names[epoch * 7 : epoch * 7 + 7]) == [f"image{i}" for i in range(7)]
    assert not np.array_equal(order(3, 0, 50), order(3, 1, 50))
    assert not np.array_equal(order(3, 0, 50), order(4, 0, 50))


@given(
    index=st.integers(0, 200),
    size=st.sampled_from([2, 4, 10, 24]),
    flips=st.tuples(*[st.booleans()] * 2),
)
@settings(max_examples=60, deadline=None)
def test_crops_stay_aligned(index: int, size: int, flips: tuple[bool, bool]) -> None:
    pair = Numbered(256)[index]
    lq, gt = CropFlip(size, *flips)(pair, sample_rng(0, 1, index))
    assert lq.shape == (size // SCALE, size // SCALE, 3) and gt.shape == (size, size, 3)
    assert np.array_equal(lq.repeat(SCALE, axis=0).repeat(SCALE, axis=1), gt)
    assert (lq[..., 0] == index).all()
    if not any(flips):
        assert (np.diff(lq[:, 0, 1].astype(int)) == 1).all()


def test_flips_reach_all_eight_orientations() -> None:
    pair = Numbered(1, 5, 5)[0]
    crop = CropFlip(10, True, True)
    seen = {crop(pair, sample_rng(0, 0, i))[0].tobytes() for i in range(200)}
    assert len(seen) == 8


def test_float_is_made_on_the_device() -> None:
    batch = next(loader().batches(0))
    assert batch.lq.dtype == torch.uint8
    lq, gt = batch.to(torch.device("cpu"))
    assert lq.dtype == torch.float32 and lq.is_contiguous()
    assert torch.equal(gt, batch.gt.float() / 255)


def test_eight_bit_beside_sixteen_bit() -> None:
    class Mixed(Numbered):
        def __getitem__(self, index: int) -> ImagePair:
            pair = super().__getitem__(index)
            assert pair.gt is not None
            if index % 2:
                return pair
            return ImagePair(
                pair.name, pair.lq.astype(np.uint16) * 257, pair.gt.astype(np.uint16) * 257, 2
            )

    mixed = next(Loader(Mixed(7), CropFlip(8, True, True), batch=7, seed=3).batches(0))
    plain = next(loader(batch=7).batches(0))
    for ours, truth in zip(
        mixed.to(torch.device("cpu")), plain.to(torch.device("cpu")), strict=True
    ):
        torch.testing.assert_close(ours, truth, rtol=1e-6, atol=0)


def test_small_image_is_named() -> None:
    small = Loader(Numbered(2, 3, 3), CropFlip(8, True, True), batch=1, seed=0, threads=2)
    with pytest.raises(
        DataError, match=r"error\[DAT07\].*\(image[01]\): got GT 6×6; expected sides"
    ):
        next(small.batches(0))
