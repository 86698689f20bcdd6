"""The stream of samples: pure, sharded without overlap, the same from any start on any threads."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restore import images
from restore.commands.shared import read_tree
from restore.data.augment import Draw, Turn, sample_words
from restore.data.batches import turned
from restore.data.loader import Loader, order
from restore.data.pair import ImagePair
from restore.data.source import Extended, Source
from restore.data.stages import Share, Stage, Stages
from restore.errors import DataError
from restore.recipes.build_trainer import build_trainer
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

    def __getitem__(self, index: int) -> ImagePair:
        y, x = np.mgrid[: self._height, : self._width]
        lq = np.stack([np.full_like(x, index), y, x], axis=2).astype(np.uint8)
        gt = lq.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
        return ImagePair(self.name(index), lq, gt, SCALE)


STAGED = Stages([3, 2, 4], [4, 2, 1], [4, 8, 12])


def loader(count: int = 7, batch: int = 4, stages: Stages | None = None, **more: Any) -> Loader:
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
    truth = list(islice(loader(workers=2).batches(2), 5))
    for a, b in zip(truth, islice(loader(workers=threads).batches(2), 5), strict=True):
        assert a.names == b.names and torch.equal(a.gt, b.gt)


def test_ranks_share_the_global_batch() -> None:
    alone = list(islice(loader(batch=6).batches(0), 4))
    ranks = [islice(loader(batch=2, share=Share(r, 3, 1, 3)).batches(0), 4) for r in range(3)]
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


def drawn(index: int, size: int, hflip: bool = True, rot: bool = True):
    """(lq, gt) of sample `index` of Numbered(256), as the loader cuts and turns them."""
    words = sample_words(0, np.array([1]), np.array([index]))[0].tolist()
    draw = Draw((0, 1, index), words, size)
    pair = Numbered(256).part(index, draw)
    crops = []
    for crop in (pair.lq, pair.gt):
        assert crop is not None
        out = np.empty(crop.shape, crop.dtype)
        draw._replace(hflip=hflip, rot=rot).turn().of(crop, out)
        crops.append(out)
    return crops


@given(
    index=st.integers(0, 200),
    size=st.sampled_from([2, 4, 10, 24]),
    flips=st.tuples(*[st.booleans()] * 2),
)
@settings(max_examples=60)
def test_crops_stay_aligned(index: int, size: int, flips: tuple[bool, bool]) -> None:
    lq, gt = drawn(index, size, *flips)
    assert lq.shape == (size // SCALE, size // SCALE, 3) and gt.shape == (size, size, 3)
    assert np.array_equal(lq.repeat(SCALE, axis=0).repeat(SCALE, axis=1), gt)
    assert (lq[..., 0] == index).all()
    if not any(flips):
        assert (np.diff(lq[:, 0, 1].astype(int)) == 1).all()


def test_every_place_and_all_eight_orientations_are_reached() -> None:
    words = sample_words(5, np.zeros(4000, int), np.arange(4000)).tolist()
    draws = [Draw((5, 0, i), w, 10) for i, w in enumerate(words)]
    boxes = [draw.box("x", 12, 17, SCALE) for draw in draws]
    corners, counts = np.unique([(b.top, b.left) for b in boxes], axis=0, return_counts=True)
    assert len(corners) == 8 * 13 and counts.max() < 3 * counts.min()
    turns, counts = np.unique([draw.turn() for draw in draws], axis=0, return_counts=True)
    assert len(turns) == 8 and counts.max() < 1.3 * counts.min()


@given(
    side=st.integers(1, 9),
    channels=st.sampled_from([(), (3,), (6,)]),
    kind=st.sampled_from([np.uint8, np.uint16]),
    turn=st.builds(Turn, st.booleans(), st.booleans(), st.booleans()),
)
@settings(max_examples=60)
def test_turning_here_or_on_the_device(
    side: int, channels: tuple[int, ...], kind: type, turn: Turn
) -> None:
    image = np.random.default_rng(side).integers(0, 256, (side, side, *channels)).astype(kind)
    truth = image[:, ::-1] if turn.hflip else image
    truth = truth[::-1] if turn.vflip else truth
    truth = truth.swapaxes(0, 1) if turn.transposed else truth
    out = np.empty_like(image)
    turn.of(image, out)
    assert np.array_equal(out, truth)
    planes = torch.from_numpy(image[..., None] if image.ndim == 2 else image).permute(2, 0, 1)
    there = turned(planes[None], torch.tensor([turn]))[0].permute(1, 2, 0)
    assert np.array_equal(there.reshape(image.shape).numpy(), truth)


@given(seed=st.integers(0, 2**70), epoch=st.integers(0, 2**40), index=st.integers(0, 2**40))
def test_the_words_of_a_sample_depend_on_nothing_else(seed: int, epoch: int, index: int) -> None:
    many = sample_words(seed, np.array([3, epoch]), np.array([9, index]))
    alone = sample_words(seed, np.array([epoch]), np.array([index]))
    assert np.array_equal(many[1], alone[0])
    assert not np.array_equal(alone, sample_words(seed + 1, np.array([epoch]), np.array([index])))


CPU = torch.device("cpu")


def test_integers_become_floats_on_the_device() -> None:
    batch = next(loader().batches(0))
    assert batch.lq.dtype == torch.uint8
    lq, gt = batch.to(CPU)
    assert lq.dtype == torch.float32 and lq.is_contiguous()
    assert torch.equal(gt, batch.gt.float() / 255)


def test_a_cpu_gets_the_same_floats_made_by_the_workers() -> None:
    stored, made = (islice(loader(device=device).batches(0), 5) for device in (None, CPU))
    for ours, truth in zip(made, stored, strict=True):
        assert ours.gt.dtype == torch.float32 and ours.gt.is_contiguous()
        for a, b in zip(ours.to(CPU), truth.to(CPU), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("device", [None, CPU])
def test_eight_bit_beside_sixteen_bit(device: torch.device | None) -> None:
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
    mixed = next(Loader(Mixed(7), stages, hflip=True, rot=True, seed=3, device=device).batches(0))
    plain = next(loader(batch=7).batches(0))
    for ours, truth in zip(mixed.to(CPU), plain.to(CPU), strict=True):
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

        def __getitem__(self, index: int) -> ImagePair:
            self.reads += 1
            return super().__getitem__(index)

    source = Counting(7)
    stream = Loader(source, STAGED, hflip=True, rot=True, seed=3, workers=0).batches(0)
    used = sum(len(batch.names) for batch in islice(stream, 9))
    assert source.reads == used == 3 * 4 + 2 * 2 + 4 * 1


def test_ranks_change_stage_together() -> None:
    ranks = [islice(loader(stages=STAGED, share=Share(r, 2, 1, 2)).batches(0), 9) for r in range(2)]
    names = []
    for parts in zip(*ranks, strict=True):
        assert parts[0].gt.shape == parts[1].gt.shape and parts[0].end == parts[1].end
        names += [name for part in parts for name in part.names]
    for epoch in range(len(names) // 7):
        assert len(set(names[epoch * 7 : epoch * 7 + 7])) == 7


STAGE_LISTS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 64)), min_size=1, max_size=5
)  # steps, batch, gt_size


@given(stages=STAGE_LISTS, step=st.integers(0, 60))
def test_a_step_has_its_stage_and_its_place(stages: list[tuple[int, int, int]], step: int) -> None:
    """As in a list of all steps, one after the other, the last stage going on."""
    staged = Stages(*zip(*stages, strict=True))
    plain: list[Stage] = []
    for steps, batch, gt_size in stages:
        plain += [Stage(len(plain), batch, gt_size)] * steps
    plain += [plain[-1]] * step
    assert staged.at(step) == plain[step]
    assert staged.position(step) == sum(stage.batch for stage in plain[:step])


@given(
    stages=STAGE_LISTS, ranks=st.integers(1, 12), recipe=st.none() | st.integers(1, 12),
    more=st.integers(0, 2),
)  # fmt: skip
def test_ranks_share_a_global_batch_out(
    stages: list[tuple[int, int, int]], ranks: int, recipe: int | None, more: int
) -> None:
    """Every sample of every stage's batch once, in blocks of one size; or nobody gets a share."""
    batches = [batch for _, batch, _ in stages]
    asked = None if recipe is None else recipe * batches[0] + more
    shares = [Share.of(rank, ranks, batches, asked) for rank in range(ranks)]
    if None in shares:
        assert set(shares) == {None} and asked is not None
        assert asked % (ranks * batches[0]) or asked == 0  # one batch a rank is always even
        return
    for stage in Stages(*zip(*stages, strict=True)):
        taken: list[int] = []
        for share in shares:
            assert share is not None
            for part in range(share.parts):
                first = share.first(stage, part)
                taken += range(first, first + share.size(stage))
        whole = stage.batch * (ranks if asked is None else asked // batches[0])
        assert sorted(taken) == list(range(whole))


def test_small_images_are_extended_with_black_or_refused() -> None:
    small = Numbered(3, 5, 4)
    draw = Draw((0, 0, 2), [0, 0, 0], 12)
    with pytest.raises(DataError, match=r"DAT07.*set pad_small"):
        small.part(2, draw)
    pair, part = small[2], Extended(small).part(2, draw)
    assert pair.gt is not None and part.gt is not None
    assert part.lq.shape == (6, 6, 3) and part.gt.shape == (12, 12, 3)
    assert np.array_equal(part.lq[:5, :4], pair.lq) and np.array_equal(part.gt[:10, :8], pair.gt)
    assert not part.lq[5:].any() and not part.lq[:, 4:].any()
    assert not part.gt[10:].any() and not part.gt[:, 8:].any()
    large = Numbered(3)
    same = Extended(large).part(1, draw), large.part(1, draw)
    assert all(np.array_equal(a, b) for a, b in zip(*[(p.lq, p.gt) for p in same], strict=True))


@pytest.mark.parametrize("bits", range(8))
def test_a_turn_is_undone(bits: int) -> None:
    turn = Draw((0, 0, 0), [0, 0, bits << 61], 4).turn()
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(turn.undone().turned(turn.turned(image)), image)


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
    assert (
        batch.gt.shape == (1, 3, 32, 32)
        and int((batch.gt * 255).round().eq(200).sum()) == 3 * 20 * 32
    )
