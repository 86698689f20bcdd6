"""The nested scan and sequence shuffle attention, by themselves and in another network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from restore.archs.mair import NestedScan, SequenceShuffleAttention
from restore.archs.mair.scan_order import CACHED_SIZES

from helpers import noise

MODELS = Path(__file__).parents[2] / "docs" / "models.md"

sides = st.integers(1, 23)


@st.composite
def scans(draw: st.DrawFn) -> NestedScan:
    scan_len = draw(st.integers(1, 9))
    return NestedScan(scan_len, draw(st.integers(0, scan_len - 1)))


# The order ----------------------------------------------------------------------------------------


def walked(pixels: np.ndarray, scan: NestedScan) -> np.ndarray:
    """The path over a map of pixel numbers, made as the paper draws it: cut, flip, read."""
    width = pixels.shape[1]
    if scan.shift > width:
        return pixels.flatten()
    first = scan.shift or scan.scan_len
    cuts = [*range(first, width, scan.scan_len)]
    path: list[int] = []
    for number, stripe in enumerate(np.split(pixels, cuts, axis=1)):
        rows = stripe[::-1] if number % 2 else stripe
        for line, row in enumerate(rows):
            path += row[::-1].tolist() if line % 2 else row.tolist()
    return np.array(path)


@settings(max_examples=60)
@given(sides, sides, scans())
def test_orders_are_the_drawn_ones(height: int, width: int, scan: NestedScan) -> None:
    pixels = np.arange(height * width).reshape(height, width)
    maps = (pixels, np.rot90(pixels, 2), pixels.T, np.rot90(pixels.T, 2))
    expected = np.stack([walked(image, scan) for image in maps])
    assert np.array_equal(scan.orders(height, width).numpy(), expected)


@settings(max_examples=40)
@given(sides, sides, scans())
def test_every_direction_is_a_permutation_and_undone(h: int, w: int, scan: NestedScan) -> None:
    orders, inverses = scan.orders(h, w), scan.inverses(h, w)
    assert orders.shape == inverses.shape == (4, h * w) and orders.dtype == torch.int64
    steps = torch.arange(h * w).expand(4, -1)
    assert torch.equal(orders.gather(1, inverses), steps)
    assert torch.equal(inverses.gather(1, orders), steps)


def stripes_of(side: int, scan: NestedScan) -> Tensor:
    """The stripe of each column, or row."""
    first = scan.shift or scan.scan_len
    cuts = [*range(first, side, scan.scan_len)]
    return torch.from_numpy(np.searchsorted(cuts, np.arange(side), side="right"))


@settings(max_examples=40)
@given(sides, sides, scans())
def test_inside_a_stripe_every_step_goes_to_a_neighbour(h: int, w: int, scan: NestedScan) -> None:
    """Between stripes the path jumps where the walked side is even, by at most a stripe."""
    for direction, order in enumerate(scan.orders(h, w)):
        turned = h * w - 1 - order if direction % 2 else order
        rows, columns = turned // w, turned % w
        across, length = (columns, h) if direction < 2 else (rows, w)
        side = w if direction < 2 else h
        if scan.shift > side:
            continue  # read line by line, as published
        stripe = stripes_of(side, scan)[across]
        step = rows.diff().abs() + columns.diff().abs()
        inside = stripe.diff() == 0
        assert bool((step[inside] == 1).all())
        assert bool((stripe.diff() >= 0).all())
        jumps = step[~inside]
        assert bool((jumps <= (scan.scan_len if length % 2 == 0 else 1)).all())


@settings(max_examples=40)
@given(sides, sides, st.integers(2, 9), st.data())
def test_shifted_stripes_cover_the_seams(
    h: int, w: int, scan_len: int, data: st.DataObject
) -> None:
    """Pixels on both sides of a seam of the unshifted stripes are read one after the other."""
    shift = data.draw(st.integers(1, scan_len - 1))
    along, _, across, _ = NestedScan(scan_len, shift).inverses(h, w).view(4, h, w)
    for seam in range(scan_len, w, scan_len):
        assert bool(((along[:, seam] - along[:, seam - 1]).abs() == 1).all())
    for seam in range(scan_len, h, scan_len):
        assert bool(((across[seam] - across[seam - 1]).abs() == 1).all())


CHECKED: list[tuple[tuple[int, int, int, int], str, str, tuple[int, int, int, int]]] = [
    ((7, 9, 4, 0), "0 1 2 3 12 11 10 9 18 19 20 21", "0 9 18 27 28 19 10 1 2 11 20 29",
     (65208, 59784, 78288, 46704)),
    ((7, 9, 4, 2), "0 1 10 9 18 19 28 27 36 37 46 45", "0 9 10 1 2 11 12 3 4 13 14 5",
     (64320, 60672, 78288, 46704)),
    ((8, 8, 4, 2), "0 1 9 8 16 17 25 24 32 33 41 40", "0 8 9 1 2 10 11 3 4 12 13 5",
     (65136, 65904, 83616, 47424)),
    ((6, 3, 8, 4), "0 1 2 3 4 5 6 7 8 9 10 11", "0 3 6 9 10 7 4 1 2 5 8 11",
     (1938, 969, 1818, 1089)),
    ((32, 40, 8, 0), "0 1 2 3 4 5 6 7 47 46 45 44",
     "0 40 80 120 160 200 240 280 281 241 201 161",
     (536514240, 512061120, 688127680, 360447680)),
    ((32, 40, 8, 4), "0 1 2 3 43 42 41 40 80 81 82 83", "0 40 80 120 121 81 41 1 2 42 82 122",
     (529563328, 519012032, 690005120, 358570240)),
    ((31, 45, 4, 2), "0 1 46 45 90 91 136 135 180 181 226 225",
     "0 45 46 1 2 47 48 3 4 49 50 5", (685361460, 671990280, 901349040, 456002700)),
]  # fmt: skip


@pytest.mark.parametrize("size, along, across, sums", CHECKED, ids=lambda x: str(x)[:14])
def test_orders_are_the_published_ones(
    size: tuple[int, int, int, int], along: str, across: str, sums: tuple[int, ...]
) -> None:
    height, width, scan_len, shift = size
    orders = NestedScan(scan_len, shift).orders(height, width)
    assert orders[0, :12].tolist() == [*map(int, along.split())]
    assert orders[2, :12].tolist() == [*map(int, across.split())]
    weights = torch.arange(1, height * width + 1)
    assert tuple((orders * weights).sum(1).tolist()) == sums


def test_orders_are_the_official_ones(shared: Path) -> None:
    tables = np.load(shared / "golden/mair/open_nss.npz")
    form = re.compile(r"H(\d+)_W(\d+)_s(\d+)_shift(\d+)__(ids|inv)")
    for name in tables.files:
        found = form.fullmatch(name)
        assert found is not None
        height, width, scan_len, shift = map(int, found.groups()[:4])
        scan = NestedScan(scan_len, shift)
        ours = (scan.orders if found[5] == "ids" else scan.inverses)(height, width)
        assert np.array_equal(ours.numpy(), tables[name].reshape(4, -1)), name
    assert len(tables.files) == 56


@pytest.mark.parametrize("scan_len, shift", [(0, 0), (-1, 0), (4, 4), (4, -1), (1, 1)])
def test_impossible_stripes_are_refused(scan_len: int, shift: int) -> None:
    with pytest.raises(ValueError, match="need 0 <= shift < scan_len"):
        NestedScan(scan_len, shift)


# On maps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(5, 7), (4, 6), (1, 3), (9, 1)])
def test_a_scanned_map_comes_back(size: tuple[int, int]) -> None:
    scan = NestedScan(4, 2)
    x = noise((2, 3, *size)).requires_grad_()
    sequences = scan(x)
    assert sequences.shape == (2, 4, 3, size[0] * size[1])
    for k, order in enumerate(scan.orders(*size)):
        assert torch.equal(sequences[:, k], x.flatten(2)[:, :, order])
    maps = scan.unscan(sequences, size)
    assert torch.equal(maps, x.unsqueeze(1).expand_as(maps))
    weights = noise(tuple(maps.shape), seed=1)
    (gradient,) = torch.autograd.grad((maps * weights).sum(), x)
    torch.testing.assert_close(gradient, weights.sum(1))
    assert not scan.state_dict() and repr(scan) == "NestedScan(scan_len=4, shift=2)"


def test_tables_are_made_once_and_not_for_ever() -> None:
    scan = NestedScan(4)
    first = scan.orders(20, 30)
    assert scan.orders(20, 30) is first and NestedScan(4).orders(20, 30) is first
    assert NestedScan(4, 1).orders(20, 30) is not first
    for side in range(1, CACHED_SIZES + 1):
        scan.orders(side, 30)
    assert scan.orders(20, 30) is not first


def test_tables_serve_training_after_inference_and_tracing() -> None:
    scan = NestedScan(3, 1)
    with torch.inference_mode():
        scan(torch.rand(1, 1, 6, 11))
    torch.export.export(scan, (torch.rand(1, 1, 7, 11),))
    for size in ((6, 11), (7, 11)):
        x = torch.rand(1, 1, *size, requires_grad=True)
        scan(x).square().sum().backward()
        assert x.grad is not None and torch.allclose(x.grad, 8 * x)
        assert type(scan.orders(*size)) is Tensor


# Sequence shuffle attention -----------------------------------------------------------------------


def gated_as_drawn(attention: SequenceShuffleAttention, x: Tensor) -> Tensor:
    """Shuffle the map, pool, convolve, squash, shuffle back, multiply."""
    gating, shape = attention.gating, x.shape
    shuffled = x.unflatten(1, (attention.group, -1)).transpose(1, 2).reshape(shape)
    gate = gating(shuffled)
    return x * gate.unflatten(1, (-1, attention.group)).transpose(1, 2).reshape(*shape[:2], 1, 1)


@pytest.mark.parametrize(
    "channels, group, conv_groups",
    [(8, 4, None), (24, 4, 6), (12, 3, 2), (6, 1, 1), (5, 5, 5), (16, 2, 16)],
)
def test_attention_on_a_map(channels: int, group: int, conv_groups: int | None) -> None:
    torch.manual_seed(0)
    attention = SequenceShuffleAttention(channels, group, conv_groups).double()
    assert list(attention.state_dict()) == ["gating.1.weight", "gating.1.bias"]
    x = noise((2, channels, 5, 3)).sub(0.5).mul(4).requires_grad_()
    found, expected = attention(x), gated_as_drawn(attention, x)
    assert found.shape == x.shape
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)
    weights, wanted = noise(tuple(x.shape), seed=1), [x, *attention.parameters()]
    ours = torch.autograd.grad((found * weights).sum(), wanted)
    theirs = torch.autograd.grad((expected * weights).sum(), wanted)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_attention_gives_the_official_gate(shared: Path) -> None:
    arrays = np.load(shared / "golden/mair/open_module_ssa_d6.npz")
    tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    attention = SequenceShuffleAttention(24, 4, conv_groups=6).double()
    attention.load_state_dict(
        {k.removeprefix("param__"): v for k, v in tensors.items() if k.startswith("param__")}
    )
    x = tensors["in_x"].requires_grad_()
    gate = attention.gate(x.mean(dim=(2, 3)).view(2, 4, 6)).reshape(2, 24, 1, 1)
    torch.testing.assert_close(gate, tensors["output"], rtol=1e-12, atol=0)
    gate.backward(tensors["cotangent"])
    assert x.grad is not None
    torch.testing.assert_close(x.grad, tensors["gradin_x"], rtol=1e-11, atol=1e-16)
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, tensors[f"grad__{name}"], rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("channels, group, conv_groups", [(6, 4, None), (8, 4, 3), (0, 1, 1)])
def test_groups_that_do_not_divide_are_refused(channels: int, group: int, conv_groups: int) -> None:
    with pytest.raises(ValueError, match="must divide"):
        SequenceShuffleAttention(channels, group, conv_groups)


# In another network -------------------------------------------------------------------------------


def test_the_documented_plug_in_works() -> None:
    """The example of docs/models.md, as it stands there, trains."""
    text = MODELS.read_text(encoding="utf-8")
    (example,) = (
        code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "NestedScan" in code
    )
    names: dict[str, object] = {}
    exec(compile(example, str(MODELS), "exec"), names)
    block = names["block"]
    assert isinstance(block, nn.Module)
    x = torch.rand(2, 16, 9, 12, requires_grad=True)
    y = block(x)
    assert y.shape == x.shape and not torch.equal(y, x)
    y.square().mean().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name
