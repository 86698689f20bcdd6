"""Tiles: an identity network at every size, overlap and published mode; exact where they may be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs import build_network, fuse
from restore.archs.architecture import SizeRule
from restore.archs.table import ARCHS
from restore.errors import BackendError
from restore.evaluation import memory, predictor
from restore.evaluation.ledger import Ledger
from restore.evaluation.options import PredictorOptions
from restore.evaluation.predictor import Predictor
from restore.evaluation.tiles import Plan, bands, even_cut, grl_cut, mair_cut

from helpers import noise


class Enlarge(nn.Module):
    """Repeats pixels, notes the sizes that it is given, and runs out of memory above `most`."""

    def __init__(self, scale: int = 1, most: int | None = None) -> None:
        super().__init__()
        self.scale, self.most, self.sizes = scale, most, list[tuple[int, int]]()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.most is not None and height * width > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        self.sizes.append((height, width))
        return x.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def options(**given: Any) -> PredictorOptions:
    return PredictorOptions(**given)


sides = st.integers(1, 90)


@given(
    height=sides,
    width=sides,
    scale=st.sampled_from([1, 2, 3]),
    tile=st.integers(2, 60),
    overlap=st.integers(0, 30),
    step=st.sampled_from([1, 4, 6]),
    ensemble=st.sampled_from([1, 8]),
)
@settings(max_examples=100)
def test_identity_comes_back_from_blended_tiles(
    height: int, width: int, scale: int, tile: int, overlap: int, step: int, ensemble: Any
) -> None:
    how = options(tile=tile, tile_overlap=min(overlap, tile - 1), ensemble=ensemble)
    rule = SizeRule(step, step)
    image = picture(height, width)
    run = Predictor(Enlarge(scale), scale, rule, options=how, step=step).run(image)
    assert np.array_equal(run.image, image.repeat(scale, 0).repeat(scale, 1))


@given(length=st.integers(1, 500), tile=st.integers(1, 90), overlap=st.integers(0, 89))
@settings(max_examples=300)
def test_even_cut_covers_with_the_overlap_on_its_grid(length: int, tile: int, overlap: int) -> None:
    for step in (1, 4):
        pieces = even_cut(length, tile, overlap, step).pieces
        assert pieces[0].start == 0 and pieces[-1].stop == length
        assert all(piece.start % step == 0 for piece in pieces)
        rounded = -(-overlap // step) * step
        allowed = max(tile // step * step, rounded + step)
        assert all(piece.stop - piece.start <= allowed for piece in pieces)
        for before, after in zip(pieces, pieces[1:], strict=False):
            assert before.start < after.start and before.stop < after.stop
            assert before.stop - after.start == rounded
        assert len({p.stop - p.start for p in pieces[:-1]}) <= 1


@given(
    length=st.integers(1, 130),
    tile=st.integers(2, 60),
    overlap=st.integers(0, 40),
    scale=st.sampled_from([1, 3]),
)
@settings(max_examples=80)
def test_weights_sum_to_one(length: int, tile: int, overlap: int, scale: int) -> None:
    """Of each pixel, over all tiles: what a tile keeps is what later ones leave of it."""
    overlap = min(overlap, tile - 1)
    cuts = [even_cut(length, tile, overlap), mair_cut(length)]
    if length >= tile:
        cuts.append(grl_cut(length, tile, overlap))
    for cut in cuts:
        shares = np.zeros((len(cut.pieces), length * scale))
        for index, piece in enumerate(cut.pieces):
            weights = cut.weights(index, scale)
            enters = np.ones((min(piece.stop, length) - piece.start) * scale)
            if weights is not None:
                assert 0 <= weights.min() and weights.max() <= 1
                enters[: len(weights)] = weights
            at = slice(piece.start * scale, piece.start * scale + len(enters))
            shares[:, at] *= 1 - enters
            shares[index, at] = enters
        assert np.abs(shares.sum(0) - 1).max() < 1e-6
        if cut.entry == "mean":
            assert np.allclose(shares[shares > 0], 1 / (shares > 0).sum(0)[np.nonzero(shares)[1]])


@pytest.mark.parametrize("length", [1, 12, 199, 200, 399, 400, 511, 1280, 2040])
def test_mair_sections_are_the_published_ones(length: int) -> None:
    count = length // 200 + 1
    padded = -(-length // count) * count
    section, margin = padded // count, padded // count // 10
    expected = [
        (k * section - (margin if k else 0), (k + 1) * section + (margin if k < count - 1 else 0))
        for k in range(count)
    ]
    assert list(mair_cut(length).pieces) == expected


def sections(network: nn.Module, lq: Tensor, scale: int) -> Tensor:
    """MaIR's published evaluation, written out for two dimensions: pad, cut, restore, paste."""
    height, width = lq.shape[-2:]
    down, right = height // 200 + 1, width // 200 + 1
    lq = F.pad(lq, (0, -width % right, 0, -height % down), mode="reflect")
    tall, wide = lq.shape[-2] // down, lq.shape[-1] // right
    result = torch.empty(1, 3, lq.shape[-2] * scale, lq.shape[-1] * scale)
    for i in range(down):
        for j in range(right):
            above = tall // 10 if i else 0
            below = tall // 10 if i < down - 1 else 0
            before = wide // 10 if j else 0
            after = wide // 10 if j < right - 1 else 0
            part = lq[
                ..., i * tall - above : (i + 1) * tall + below,
                j * wide - before : (j + 1) * wide + after,
            ]  # fmt: skip
            inner = network(part)[..., above * scale :, before * scale :]
            result[
                ..., i * tall * scale : (i + 1) * tall * scale,
                j * wide * scale : (j + 1) * wide * scale,
            ] = inner[..., : tall * scale, : wide * scale]  # fmt: skip
    return result[..., : height * scale, : width * scale]


class Context(nn.Module):
    """A convolution and the mean over all that it is given: every cut shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 12, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x) + x.mean((-2, -1), keepdim=True).sum(1, True), 2)


@torch.no_grad()
@pytest.mark.parametrize("size", [(150, 199), (201, 90), (403, 333), (200, 601)])
def test_mair_tiling_is_the_published_evaluation(size: tuple[int, int]) -> None:
    network, lq = Context(), noise((1, 3, *size)).float()
    found = Predictor(network, 2, SizeRule(), options=options(tiling="mair"))(lq)
    torch.testing.assert_close(found, sections(network, lq, 2), rtol=1e-6, atol=1e-6)
    if size == (403, 333):  # MaIR+: each of the 8 forms is cut for itself
        forms = []
        for swapped in (False, True):
            for dims in [(), (2,), (3,), (2, 3)]:
                x = lq.flip(dims) if dims else lq
                y = sections(network, x.mT if swapped else x, 2)
                y = y.mT if swapped else y
                forms.append(y.flip(dims) if dims else y)
        plus = Predictor(network, 2, SizeRule(), options=options(tiling="mair", ensemble=8))
        torch.testing.assert_close(plus(lq), torch.stack(forms).mean(0))
        image = (lq[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        assert plus.restore(image).shape == (806, 666, 3)


def averaged(network: nn.Module, lq: Tensor, tile: int, overlap: int, scale: int) -> Tensor:
    """GRL's published evaluation: sum and count of overlapping tiles."""
    height, width = lq.shape[-2:]
    tile = min(tile, height, width)
    total = torch.zeros(1, 3, height * scale, width * scale)
    count = torch.zeros_like(total)
    stride = tile - overlap
    for top in [*range(0, height - tile, stride), height - tile]:
        for left in [*range(0, width - tile, stride), width - tile]:
            place = (
                ..., slice(top * scale, (top + tile) * scale),
                slice(left * scale, (left + tile) * scale),
            )  # fmt: skip
            total[place] += network(lq[..., top : top + tile, left : left + tile])
            count[place] += 1
    return total / count


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (100, 65), (130, 171), (50, 200)])
def test_grl_tiling_is_the_published_evaluation(size: tuple[int, int]) -> None:
    network, lq = Context(), noise((1, 3, *size)).float()
    how = options(tiling="grl", tile=64, tile_overlap=20)
    found = Predictor(network, 2, SizeRule(), options=how)(lq)
    torch.testing.assert_close(found, averaged(network, lq, 64, 20, 2), rtol=1e-6, atol=1e-6)


# Reach --------------------------------------------------------------------------------------------


def test_span_reaches_as_far_as_its_record_says() -> None:
    torch.manual_seed(0)
    network = fuse(build_network({"type": "SPAN", "feature_channels": 8, "upscale": 2})).double()
    lq = noise((1, 3, 61, 61)).requires_grad_()
    centre = network(lq)[..., 60:62, 60:62]
    (gradient,) = torch.autograd.grad(centre.sum(), lq)
    rows = gradient[0].abs().sum((0, 2)).nonzero().flatten()
    reach = ARCHS["SPAN"].reach
    assert reach is not None
    assert (30 - rows.min(), rows.max() - 30) == (reach, reach)


def test_tiles_are_exact_when_the_overlap_covers_the_reach() -> None:
    torch.manual_seed(0)
    network = fuse(build_network({"type": "SPAN", "feature_channels": 8, "upscale": 2}))
    record, image = ARCHS["SPAN"], picture(190, 211)

    def run(**more: Any) -> predictor.Restoration:
        how = options(tile=100, tile_difference=True, **more)
        return Predictor(network, 2, record.size, options=how, reach=record.reach).run(image)

    exact = run()
    assert (exact.overlap, exact.tiles) == (50, 12) and exact.tile <= 100
    assert exact.difference < 1e-6
    assert run(tile_overlap=8).difference > 100 * max(exact.difference, 1e-7)


def test_tiles_meet_the_grid_of_the_whole_image() -> None:
    class Pooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.interpolate(F.avg_pool2d(x, 4), scale_factor=4)

    how = options(tile=30, tile_overlap=9, tile_difference=True)
    rule = SizeRule(4, 4)
    run = Predictor(Pooled(), 1, rule, options=how, step=rule.multiple).run(picture(77, 91))
    assert run.tiles > 9 and run.difference == 0


# Memory -------------------------------------------------------------------------------------------


def test_auto_halves_its_tiles_when_memory_runs_out() -> None:
    network = Enlarge(2, most=20_000)
    image = picture(300, 400)
    restorer = Predictor(network, 2, SizeRule(), options=options(tile_overlap=16))
    run = restorer.run(image)
    assert np.array_equal(run.image, image.repeat(2, 0).repeat(2, 1))
    assert run.tiles > 1 and run.tile <= 200 // 2 and run.overlap == 16
    network.sizes.clear()
    again = restorer.run(image)  # what did not fit is remembered
    assert again.tile == run.tile and len(network.sizes) == run.tiles


@pytest.mark.parametrize("how", [{"tile": "none"}, {"tile": 150}, {}])
def test_no_memory_at_all_is_an_error(how: dict[str, Any]) -> None:
    network = Enlarge(most=50)
    with pytest.raises(BackendError, match="DEV05"):
        Predictor(network, 1, SizeRule(), options=options(**how)).run(picture(200, 200))


def test_other_errors_are_not_taken_for_full_memory() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        Predictor(Broken(), 1, SizeRule()).run(picture(20, 20))


def test_auto_fits_its_tiles_to_a_byte_budget() -> None:
    torch.manual_seed(0)
    network = fuse(build_network({"type": "SPAN", "feature_channels": 16, "upscale": 2}))
    record, image = ARCHS["SPAN"], picture(400, 420)
    tiles = []
    for budget in (None, 0.02, 0.01):
        how = options(tile_memory=budget)
        restorer = Predictor(network, 2, record.size, options=how, reach=record.reach)
        run = restorer.run(image)
        tiles.append(run.tile)
        if budget is not None:
            lq = torch.rand(1, 3, run.tile, run.tile)
            with torch.no_grad():
                assert memory.taken(lambda x=lq: network(x), torch.device("cpu")) < budget * 2**30
    assert tiles[0] == 0 and tiles[1] > tiles[2] > 0


def test_free_ram_heeds_the_container(tmp_path: Any) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    assert memory.free_ram(meminfo, tmp_path) == 4000 << 10
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert memory.free_ram(meminfo, tmp_path) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_ram(meminfo, tmp_path) == 4000 << 10


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_changes_the_output_a_little(precision: Any) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 3, padding=1)
    lq = noise((1, 3, 20, 20)).float()
    exact = Predictor(network, 1, SizeRule())(lq)
    half = Predictor(network, 1, SizeRule(), options=options(precision=precision))(lq)
    assert 0 < (half.float() - exact).abs().max() < 0.02


def test_only_one_row_of_tiles_is_held() -> None:
    plan = Plan(even_cut(1000, 100, 20), even_cut(1000, 100, 20))
    rows = []
    with Ledger() as ledger:  # counts living bytes
        for _, band in bands(plan, 1, lambda r, c: torch.zeros(
            1, 1, r.stop - r.start, c.stop - c.start)):  # fmt: skip
            rows.append(band.shape[-2])
            del band
    assert sum(rows) == 1000 and max(rows) <= 100
    assert ledger.peak < 1.7 * 4 * max(rows) * 1000  # what is shared with the next row aside


@pytest.mark.parametrize(
    "wrong",
    [
        {"tile": 64, "tile_overlap": 64},
        {"tiling": "mair", "tile": 64},
        {"tiling": "mair", "tile_overlap": 8},
        {"tiling": "grl"},
        {"tiling": "grl", "tile": 64, "tile_overlap": None},
        {"tile": 0},
        {"tile": "all"},
        {"tile_memory": 0},
    ],
)
def test_what_cannot_be_tiled_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options(**wrong)


def test_nan_without_a_request() -> None:
    assert math.isnan(Predictor(Enlarge(), 1, SizeRule()).run(picture(9, 9)).difference)
