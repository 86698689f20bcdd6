"""The stream of samples: pure, sharded without overlap, the same from any start on any threads."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restore import images
from restore.commands.shared import read_tree
from restore.data.augment import CropFlip, sample_rng
from restore.data.loader import Loader, order
from restore.data.pair import ImagePair
from restore.data.sources import Source
from restore.data.stages import Stage, Stages
from restore.errors import DataError
from restore.recipes.build import build_trainer
from restore.recipes.checks import check_train
from restore.recipes.trees import TrainTree
from restore.training.trainer import Trainer
from restore.world import World

SCALE = 2


class Numbered(Source):
    """A source whose pixels tell which image, row and column they come from."""

    def __init__(self, count: int, height: int = 12, width: int = 17) -> None:
        self._count, self._height, self._width = count, height, width

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        return f"image{index}"

    def files(self, index: int) -> tuple[Path, ...]:
        return (Path(f"image{index}.png"),)

    def check(self, index: int) -> tuple[int, int]:
        return self._height * SCALE, self._width * SCALE

    def sample(self, index: int, rng: np.random.Generator) -> ImagePair:
        return self[index]

    def __getitem__(self, index: int) -> ImagePair:
        y, x = np.mgrid[: self._height, : self._width]
        lq = np.stack([np.full_like(x, index), y, x], axis=2).astype(np.uint8)
        gt = lq.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        return ImagePair(self.name(index), lq, gt, SCALE)


STAGED = Stages([3, 2, 4], [4, 2, 1], [4, 8, 12])


def loader(count: int = 7, batch: int = 4, stages: Stages | None = None, **more: int) -> Loader:
    stages = stages or Stages.single(batch, 8)
    return Loader(Numbered(count), stages, hflip=True, rot=True, seed=3, **more)


@pytest.mark.parametrize("stages", [None, STAGED])
@pytest.mark.parametrize("start", [1, 3, 4, 5, 8])
def test_any_start_continues_the_same_stream(stages: Stages | None, start: int) -> None:
    whole = list(islice(loader(stages=stages).batches(0), 12))
    resumed = list(islice(loader(stages=stages).batches(start), 12 - start))
    for a, b in zip(whole[start:], resumed, strict=True):
        assert a.names == b.names and a.end == b.end
        assert torch.equal(a.lq, b.lq) and torch.equal(a.gt, b.gt)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_change_nothing(threads: int) -> None:
    truth = list(islice(loader(threads=2).batches(2), 5))
    for a, b in zip(truth, islice(loader(threads=threads).batches(2), 5), strict=True):
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

    stages = Stages.single(7, 8)
    mixed = next(Loader(Mixed(7), stages, hflip=True, rot=True, seed=3).batches(0))
    plain = next(loader(batch=7).batches(0))
    for ours, truth in zip(
        mixed.to(torch.device("cpu")), plain.to(torch.device("cpu")), strict=True
    ):
        torch.testing.assert_close(ours, truth, rtol=1e-6, atol=0)


def test_small_image_is_named() -> None:
    small = Loader(Numbered(2, 3, 3), Stages.single(1, 8), hflip=True, rot=True, seed=0)
    with pytest.raises(
        DataError, match=r"error\[DAT07\].*\(image[01]\): got GT 6×6; expected sides"
    ):
        next(small.batches(0))


def test_a_stage_decides_patch_and_batch() -> None:
    batches = list(islice(loader(stages=STAGED).batches(0), 11))
    assert [tuple(b.gt.shape[:3:2]) for b in batches] == (
        [(4, 4)] * 3 + [(2, 8)] * 2 + [(1, 12)] * 6  # the last stage goes on
    )
    assert [b.end for b in batches] == [4, 8, 12, 14, 16, 17, 18, 19, 20, 21, 22]


def test_no_more_is_decoded_than_is_used() -> None:
    class Counting(Numbered):
        reads = 0

        def sample(self, index: int, rng: np.random.Generator) -> ImagePair:
            self.reads += 1
            return self[index]

    source = Counting(7)
    stream = Loader(source, STAGED, hflip=True, rot=True, seed=3, threads=0).batches(0)
    used = sum(len(batch.names) for batch in islice(stream, 9))
    assert source.reads == used == 3 * 4 + 2 * 2 + 4 * 1


def test_ranks_change_stage_together() -> None:
    ranks = [islice(loader(stages=STAGED, rank=r, ranks=2).batches(0), 9) for r in range(2)]
    names = []
    for parts in zip(*ranks, strict=True):
        assert parts[0].gt.shape == parts[1].gt.shape and parts[0].end == parts[1].end
        names += [name for part in parts for name in part.names]
    for epoch in range(len(names) // 7):
        assert len(set(names[epoch * 7 : epoch * 7 + 7])) == 7


@given(
    stages=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 5), st.just(8)), min_size=1, max_size=5
    ),
    step=st.integers(0, 60),
)
def test_position_is_the_sum_of_the_batches(stages: list[tuple[int, int, int]], step: int) -> None:
    staged = Stages(*zip(*stages, strict=True))
    plain = [batch for steps, batch, _ in stages for _ in range(steps)]
    plain += [stages[-1][1]] * step
    assert staged.position(step) == sum(plain[:step])
    assert staged.at(step) == Stage(
        staged.at(step).first, plain[step] if step < len(plain) else stages[-1][1], 8
    )


def test_small_images_are_extended_with_black_or_refused() -> None:
    pair = Numbered(3, 5, 4)[2]
    assert pair.gt is not None
    with pytest.raises(DataError, match=r"DAT07.*set pad_small"):
        CropFlip(12, False, False)(pair, sample_rng(0, 0, 0))
    lq, gt = CropFlip(12, False, False, pad=True)(pair, sample_rng(0, 0, 0))
    assert lq.shape == (6, 6, 3) and gt.shape == (12, 12, 3)
    assert np.array_equal(lq[:5, :4], pair.lq) and np.array_equal(gt[:10, :8], pair.gt)
    assert not lq[5:].any() and not lq[:, 4:].any() and not gt[10:].any() and not gt[:, 8:].any()
    gray = ImagePair("gray", pair.lq[..., 1], pair.gt[..., 1], SCALE)
    assert CropFlip(12, True, True, pad=True)(gray, sample_rng(0, 0, 0))[0].shape == (6, 6)


def test_padding_changes_no_image_that_is_large_enough() -> None:
    stages = Stages.single(2, 8)
    plain, padded = (
        Loader(Numbered(3), stages, hflip=True, rot=True, seed=1, pad=pad) for pad in (False, True)
    )
    for place in range(6):
        for one, other in zip(plain.sample(place, 8)[:2], padded.sample(place, 8)[:2], strict=True):
            assert np.array_equal(one, other)


def test_the_option_reaches_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gt").mkdir()
    images.write(tmp_path / "gt/a.png", np.full((20, 60), 200, np.uint8))
    file = Path(__file__).parents[2] / "options/train_SPAN_demo.yml"
    monkeypatch.chdir(tmp_path)

    def trainer(pad: str) -> Trainer:
        kind = "type: DegradedImageDataset, dataroot_gt: gt, gt_size: 32, batch_size_per_gpu: 1"
        sets = f"datasets={{train: {{{kind}, pad_small: {pad}}}}}"
        tree = read_tree(TrainTree, str(file), [sets, "num_gpu=0"], check_train)
        run = build_trainer(tree, World(), resume=False, overwrite=True)
        run.sinks.close()
        return run.trainer

    with pytest.raises(DataError, match="DAT07"):
        trainer("false")
    batch = next(trainer("true").loader.batches(0))
    assert batch.gt.shape == (1, 3, 32, 32) and int((batch.gt == 200).sum()) == 3 * 20 * 32
