"""Floor 3. Where tokens stand: GRL's coordinates, and its regions after a shift (section 3.3).

Nothing here belongs to the weights. Tables are made for the size at hand and remembered, a bounded
number of them, so that sizes that alternate cost a look-up.

Offsets as sums. A bias depends on the difference of two positions. With one side of every attention
in reverse order that difference becomes a sum, so all biases of a cell are overlapping views of one
small table (`expanded`): no index table, and a tenth of the cost of a gather.
"""

# cell: (rows, columns) of a window or stripe; anchors: its (rows, columns) of anchors
# Q queries, K keys, R = Q + K - 1 offsets, on each axis; h heads

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from restore.archs.grl_options import GrlOptions

Pair = tuple[int, int]
MASKED = -100.0
"""What is added between regions. Not -inf: logits reach 116, so a little leaks, as published."""


class Mask(NamedTuple):
    """Which keys a query may see, `rows[labels]: (N, M)`, without its 4 MB a cell."""

    labels: Tensor
    """`(N,)` region of each query, 0 to 8."""
    rows: Tensor
    """`(9, M)`: for a query of each region, 0 for its own keys, -100 for others."""


class Region(NamedTuple):
    """Neighbouring cells of a map that share one mask."""

    top: int
    bottom: int
    left: int
    right: int
    """Which cells: rows [top, bottom), columns [left, right), counted in cells."""
    of_tokens: Mask | None
    """For token queries, anchor keys reversed."""
    of_anchors: Mask | None
    """For anchor queries, reversed, and token keys."""


@dataclass(frozen=True, eq=False)
class Grid:
    """How one attention cuts a map of a given size, and what it knows about positions."""

    cell: Pair
    anchors: Pair
    """Anchors of a cell; the cell itself for windows."""
    shift: Pair
    """By how much a shifted map is rolled up and left."""
    anchor_shift: Pair
    from_tokens: Tensor
    """`(R, R', 2)` coordinates of token queries, anchor keys reversed."""
    from_anchors: Tensor
    """`(R, R', 2)` coordinates of anchor queries, reversed, and token keys."""
    whole: tuple[Region, ...]
    """The map unshifted: one region, no mask."""
    regions: tuple[Region, ...]
    """The shifted map, rolled: up to four regions."""


class Geometry(NamedTuple):
    """The three ways in which the blocks cut a map."""

    window: Grid
    horizontal: Grid
    vertical: Grid


def geometry(options: GrlOptions, height: int, width: int, like: Tensor) -> Geometry:
    """The grids for a padded map, on the device and in the precision of `like`."""
    size, where = (height, width), (like.device, like.dtype)
    stripe, stripe_shift = _stripes(options.stripe_size, options.stripe_groups, size)
    # the vertical stripes are those of the exchanged options, on the same map
    turned, turned_shift = _stripes(options.stripe_size[::-1], options.stripe_groups[::-1], size)
    window, half = (options.window_size,) * 2, (options.window_size // 2,) * 2
    down, known = options.anchor_window_down_factor, options.pretrained_stripe_size
    return Geometry(
        grid(size, window, half, 1, options.pretrained_window_size, *where),
        grid(size, stripe, stripe_shift, down, known, *where),
        grid(size, turned, turned_shift, down, known, *where),
    )


def _stripes(
    sizes: tuple[int | None, ...], groups: tuple[int | None, ...], size: Pair
) -> tuple[Pair, Pair]:
    """Size and shift of the stripes on a map of `size`; a single group is not shifted."""
    cell, shift = [], []
    for side, number, length in zip(sizes, groups, size, strict=True):
        own = length // number if number else side
        assert own is not None  # the options say one or the other
        cell.append(own)
        shift.append(0 if number == 1 else own // 2)
    return (cell[0], cell[1]), (shift[0], shift[1])


@functools.lru_cache(maxsize=64)
def grid(
    size: Pair,
    cell: Pair,
    shift: Pair,
    down: int,
    pretrained: Pair,
    device: torch.device,
    dtype: torch.dtype,
) -> Grid:
    """The grid of cells of a map of `size` whose sides are multiples of the cell's."""
    anchors = (cell[0] // down, cell[1] // down)
    from_tokens, from_anchors = _both_ways(
        cell, anchors, _longest(pretrained[0], pretrained[0] // down), device, dtype
    )
    cells = (size[0] // cell[0], size[1] // cell[1])
    anchor_shift = (shift[0] // down, shift[1] // down)
    with torch.inference_mode(False):  # what is remembered serves training too
        regions = _regions(cells, (cell, shift), (anchors, anchor_shift), from_tokens)
    whole = Region(0, cells[0], 0, cells[1], None, None)
    return Grid(
        cell, anchors, shift, anchor_shift, from_tokens, from_anchors, (whole,), tuple(regions)
    )


@functools.lru_cache(maxsize=64)
def _both_ways(
    cell: Pair, anchors: Pair, longest: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """A grid's coordinates, the same objects for maps of any size: biases are known by them."""
    with torch.inference_mode(False):
        table = coordinates(cell, anchors, longest).to(device, dtype)
        return table, table.flip(0, 1)


def _longest(fine: int, anchors: int) -> int:
    """The largest offset of `fine` tokens to `anchors`, which lie centred and one token apart."""
    return fine - 1 - (fine - anchors) // 2


def coordinates(cell: Pair, anchors: Pair, longest: int = 0) -> Tensor:
    """`(R, R', 2)` float32: each offset of a token to an anchor, log-spaced, in ±1.057.

    Anchors count as a block one token apart in the middle of the cell, as published, not as where
    they were pooled. `longest` > 0 is the offset to measure by, instead of the axis' own.
    float32 arithmetic in this order: it is part of the published network.
    """
    axes = []
    for fine, few in zip(cell, anchors, strict=True):
        offsets = torch.arange(fine + few - 1, dtype=torch.float32, device="cpu")
        offsets = offsets - (few - 1) - (fine - few) // 2
        scaled = offsets / (longest if longest > 0 else _longest(fine, few)) * 8
        axes.append(scaled.sign() * torch.log2(scaled.abs() + 1) / 3)
    return torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1)


def _regions(
    cells: Pair, tokens: tuple[Pair, Pair], anchors: tuple[Pair, Pair], like: Tensor
) -> list[Region]:
    """The parts of a rolled map whose cells share a mask: the last row and column, and the rest."""
    found = []
    for top, bottom in _parts(cells[0]):
        for left, right in _parts(cells[1]):
            last = (bottom == cells[0], right == cells[1])
            axes = [
                [_axis(*axis) for axis in zip(*side, last, strict=True)]
                for side in (tokens, anchors)
            ]
            # one region on either side: a mask that is the same everywhere moves no weight
            alike = all(len(set(axis)) == 1 for side in axes for axis in side)
            own, other = (_labels(*side) for side in axes)
            other = other.flip(0)
            masks = (None, None) if alike else (_mask(own, other, like), _mask(other, own, like))
            found.append(Region(top, bottom, left, right, *masks))
    return found


def _mask(queries: Tensor, keys: Tensor, like: Tensor) -> Mask:
    rows = MASKED * (torch.arange(9, device="cpu")[:, None] != keys)
    return Mask(queries.to(like.device), rows.to(like))


def _parts(count: int) -> list[Pair]:
    return [(0, count - 1), (count - 1, count)] if count > 1 else [(0, 1)]


def _axis(side: int, shift: int, last: bool) -> list[int]:
    """Labels along one axis of a cell: 0; in the last cell 1, and 2 for what was rolled in.

    Without a shift all are 2. Anchors are shifted by less than one of them when the shift is
    smaller than the down factor: they are then all 2 beside tokens of 0, 1 and 2, as published.
    """
    if not shift:
        return [2] * side
    return [1] * (side - shift) + [2] * shift if last else [0] * side


def _labels(rows: list[int], columns: list[int]) -> Tensor:
    """`(tokens,)`: the region of each token, from the labels of its row and column."""
    down, across = (torch.tensor(axis, device="cpu") for axis in (rows, columns))
    return (3 * down[:, None] + across).flatten()


def expanded(table: Tensor, queries: Pair, keys: Pair, rows: slice) -> Tensor:
    """`(h, R, R')` values per offset -> `(1, h, queries of these rows, keys)`.

    One side is in reverse order, so query (i, j) and key (m, n) meet at offset (i + m, j + n).
    """
    needed = table[:, rows.start : rows.stop + keys[0] - 1]
    views = needed.unfold(1, keys[0], 1).unfold(2, keys[1], 1)  # (h, rows, Q', K, K')
    return views.reshape(1, len(table), -1, keys[0] * keys[1])


def as_cells(x: Tensor, cell: Pair) -> Tensor:
    """A view of `(B, H, W, n)` as `(B, H/rows, W/columns, rows, columns, n)`."""
    return x.unflatten(1, (-1, cell[0])).unflatten(3, (-1, cell[1])).transpose(2, 3)
