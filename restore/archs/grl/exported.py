"""Floor 3. GRL for programs that leave torch: one graph for every height and width.

The eager form cuts a map into regions that share a mask, and works on a few query rows at a time;
how many regions and rows there are depends on the size. Here every cell has a mask of its own, made
in the graph by comparing region numbers, and all cells are one product: more memory, no size in the
graph. Same weights, same keys.
"""

# B batch, H x W padded map, C cells of a map, N queries, M keys, h heads, d channels of a head

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs.grl.attention import LARGEST_LOG_SCALE, CosineAttention
from restore.archs.grl.blocks import (
    MixedAttention,
    StripeAttention,
    WindowAttention,
    by_head,
    rolled,
)
from restore.archs.grl.network import GRL
from restore.archs.grl.tables import MASKED, Geometry, Grid, Pair, expanded, geometry
from restore.archs.layers import mirrored, rounded_up
from restore.errors import BackendError


class Cells(NamedTuple):
    """How one attention cuts a map whose size the graph finds out."""

    grid: Grid
    """Sizes and positions, which no map's size changes."""
    counts: tuple[Any, Any]
    """Cells along each axis: symbols."""
    of_tokens: Tensor | None
    """`(C, 1, N, M)`: what is added for token queries, anchor keys reversed; None unshifted."""
    of_anchors: Tensor | None
    """For anchor queries, reversed, and token keys."""


class _Attention(nn.Module):
    """A `CosineAttention` whose biases are known."""

    def __init__(self, eager: CosineAttention, coordinates: Tensor) -> None:
        super().__init__()
        scale = eager.logit_scale.clamp(max=LARGEST_LOG_SCALE).exp()
        self.scale: Tensor
        self.table: Tensor
        self.register_buffer("scale", scale.detach())
        self.register_buffer("table", eager.bias(coordinates).detach())  # (h, R, R')

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, sizes: tuple[Pair, Pair]
    ) -> Tensor:
        """q, k, v: `(C, h, N or M, d)` -> `(C, h, N, d)`; `sizes` of a cell's queries and keys."""
        added = expanded(self.table, *sizes, slice(0, sizes[0][0]))
        # spelt out: torch.export cannot know whether a map has one cell or more
        added = added.expand(q.shape[0], -1, -1, -1) if mask is None else added + mask
        q, k = F.normalize(q, dim=-1) * self.scale, F.normalize(k, dim=-1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=1.0)


class _Windows(nn.Module):
    """`WindowAttention`; `(1, H, W, 3C/2)` -> `(1, H, W, C/2)`."""

    def __init__(self, eager: WindowAttention, grid: Grid) -> None:
        super().__init__()
        self.heads, self.shifted = eager.heads, eager.shifted
        self.attention = _Attention(eager.attn_transform, grid.from_tokens)

    def forward(self, qkv: Tensor, cells: Cells) -> Tensor:
        grid = cells.grid
        shift = grid.shift if self.shifted else (0, 0)
        q, k, v = _cut(rolled(qkv, shift, -1), grid.cell, cells.counts).chunk(3, dim=2)
        q, k, v = (by_head(x, self.heads) for x in (q, k.flip(1), v.flip(1)))
        mask = cells.of_tokens if self.shifted else None
        out = self.attention(q, k, v, mask, (grid.cell, grid.cell))
        return rolled(_joined(out, grid.cell, cells.counts), shift, 1)


class _Stripes(nn.Module):
    """`StripeAttention`; `(1, H, W, 3C/2)`, `(1, H/r, W/r, C/2)` -> `(1, H, W, C/2)`."""

    def __init__(self, eager: StripeAttention, grid: Grid) -> None:
        super().__init__()
        self.heads, self.shifted = eager.heads, eager.shifted
        self.gathering = _Attention(eager.attn_transform1, grid.from_anchors)
        self.asking = _Attention(eager.attn_transform2, grid.from_tokens)

    def forward(self, qkv: Tensor, anchor: Tensor, cells: Cells) -> Tensor:
        grid = cells.grid
        shift = grid.shift if self.shifted else (0, 0)
        anchor_shift = grid.anchor_shift if self.shifted else (0, 0)
        q, k, v = _cut(rolled(qkv, shift, -1), grid.cell, cells.counts).chunk(3, dim=2)
        a = _cut(rolled(anchor, anchor_shift, -1), grid.anchors, cells.counts).flip(1)
        q, k, v, a = (by_head(x, self.heads) for x in (q, k, v, a))
        masks = (cells.of_tokens, cells.of_anchors) if self.shifted else (None, None)
        known = self.gathering(a, k, v, masks[1], (grid.anchors, grid.cell))
        out = self.asking(q, a, known, masks[0], (grid.cell, grid.anchors))
        return rolled(_joined(out, grid.cell, cells.counts), shift, 1)


class ExportedGRL(GRL):
    """`lq: (1, in_channels, h, w)` -> `(1, outputs, h·s, w·s)`, any h and w, for evaluation."""

    def __init__(self, network: GRL) -> None:
        options = network.options
        if any(options.stripe_groups):
            raise BackendError.of(
                "ENV42", "this network has no form for every size", "stripe_groups",
                str(options.stripe_groups), "stripes of a given size",
                "stripes that are a share of the image cannot be exported; use restore infer",
            )  # fmt: skip
        with torch.random.fork_rng(devices=[]):  # its first weights are thrown away
            super().__init__(options)
        self.load_state_dict(network.state_dict())
        self.eval()
        # those of some map: all that is used of them holds for any
        side = options.multiple
        self.unit = options.multiple
        self._grids = geometry(options, side, side, self.conv_first.weight)
        for module in list(self.modules()):
            if isinstance(module, MixedAttention):
                stripes = self._grids.vertical if module.vertical else self._grids.horizontal
                windows = _Windows(module.window_attn, self._grids.window)
                module.window_attn = cast(WindowAttention, windows)
                module.stripe_attn = cast(StripeAttention, _Stripes(module.stripe_attn, stripes))

    def _padded(self, lq: Tensor) -> Tensor:
        height, width = lq.shape[-2:]
        multiple = self.options.multiple
        rows, columns = (
            torch.arange(rounded_up(side, multiple) * multiple, device=lq.device)
            for side in (height, width)
        )
        # zeros where mirroring cannot reach, as published
        reached = (rows[-1] < 2 * height - 1) & (columns[-1] < 2 * width - 1)
        inside = (rows < height)[:, None] & (columns < width)
        padded = mirrored(mirrored(lq, 2, rows), 3, columns)
        return padded * (inside | reached).to(lq.dtype)

    def _geometry(self, height: int, width: int) -> Any:
        """`Cells` where the eager form has grids."""
        like = self.conv_first.weight
        return Geometry(*(cast(Grid, _cells(grid, height, width, like)) for grid in self._grids))


def _cells(grid: Grid, height: int, width: int, like: Tensor) -> Cells:
    counts = height // grid.cell[0], width // grid.cell[1]
    if not any(grid.shift):
        return Cells(grid, counts, None, None)
    tokens = _regions(counts, grid.cell, grid.shift, like.device)
    anchors = _regions(counts, grid.anchors, grid.anchor_shift, like.device).flip(1)
    differ = tokens[:, None, :, None] != anchors[:, None, None, :]
    of_tokens = MASKED * differ.to(like.dtype)
    return Cells(grid, counts, of_tokens, of_tokens.transpose(2, 3))


def _regions(counts: Any, cell: Pair, shift: Pair, device: torch.device) -> Tensor:
    """`(C, tokens)`: the region of each token of each cell of a rolled map, as in `tables`."""
    labels = []
    for count, side, moved in zip(counts, cell, shift, strict=True):
        place = torch.arange(count * side, device=device)
        last = place[-1]
        label = (place > last - side).long() + (place > last - moved).long()
        labels.append(label if moved else torch.full_like(place, 2))
    both = (3 * labels[0][:, None] + labels[1])[None, :, :, None]
    return _cut(both, cell, counts)[:, :, 0]


def _cut(x: Tensor, cell: Pair, counts: Any) -> Tensor:
    """`(1, H, W, n)` -> its cells `(C, N, n)`."""
    parts = x.reshape(counts[0], cell[0], counts[1], cell[1], x.shape[3])
    return parts.transpose(1, 2).reshape(counts[0] * counts[1], cell[0] * cell[1], x.shape[3])


def _joined(x: Tensor, cell: Pair, counts: Any) -> Tensor:
    """`(C, h, N, d)` -> `(1, H, W, h·d)`."""
    heads, channels = x.shape[1], x.shape[3]
    parts = x.reshape(counts[0], counts[1], heads, cell[0], cell[1], channels)
    parts = parts.permute(0, 3, 1, 4, 2, 5)
    return parts.reshape(1, counts[0] * cell[0], counts[1] * cell[1], heads * channels)
