"""GRL's attention as published, written plainly: the slow truth for the fast form.

At every forward the thirteen tables are made anew: coordinates, index tables, masks of a map's
every window. Biases come from the perceptron by a gather, logits and weights stand in memory whole.
Convolutions, norms and perceptrons are those of `restore.archs.grl`; so is the state dict.
"""

# a, b sides of a window or stripe; r down factor; N tokens of a cell, M anchors

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs.grl.blocks import Block
from restore.archs.grl.layers import convolved
from restore.archs.grl.network import GRL
from restore.archs.grl_options import GrlOptions

Pair = tuple[int, int]


def coordinate_table(cell: Pair, down: int, pretrained: Pair = (0, 0)) -> Tensor:
    """`(1, a + a/r - 1, b + b/r - 1, 2)` float32 log-spaced offsets."""
    few = [side // down for side in cell]
    axes, largest = [], []
    for side, anchors in zip(cell, few, strict=True):
        middle = (side - anchors) // 2
        axes.append(torch.arange(1 - anchors - middle, side - middle, dtype=torch.float32))
        largest.append(side - 1 - middle)
    known = pretrained[0] - 1 - (pretrained[0] - pretrained[0] // down) // 2
    if known > 0:
        largest = [known, known]
    table = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    for axis in (0, 1):
        table[..., axis] /= largest[axis]
    table *= 8
    return (table.sign() * torch.log2(table.abs() + 1) / 3).unsqueeze(0)


def index_tables(cell: Pair, down: int) -> tuple[Tensor, Tensor]:
    """Which entry of the flattened table a pair takes: (N, M) from tokens, (M, N) from anchors."""
    few = (cell[0] // down, cell[1] // down)
    tokens = torch.cartesian_prod(torch.arange(cell[0]), torch.arange(cell[1]))
    anchors = torch.cartesian_prod(torch.arange(few[0]), torch.arange(few[1]))
    row = cell[1] + few[1] - 1
    there = tokens[:, None] - anchors + torch.tensor(few) - 1
    back = anchors[:, None] - tokens + torch.tensor(cell) - 1
    return there[..., 0] * row + there[..., 1], back[..., 0] * row + back[..., 1]


def regions(size: Pair, cell: Pair, shift: Pair) -> Tensor:
    """`(windows, tokens)`: the region of every pixel of the rolled map."""
    axes = []
    for length, side, moved in zip(size, cell, shift, strict=True):
        place = torch.arange(length)
        label = (place >= length - side).long() + (place >= length - moved).long()
        axes.append(label if moved else torch.full_like(place, 2))
    return windows((3 * axes[0][:, None] + axes[1])[None, :, :, None], cell).squeeze(-1)


def mask_table(queries: Tensor, keys: Tensor) -> Tensor:
    """`(windows, N, M)`: -100 where the regions differ."""
    return -100.0 * (queries[:, :, None] != keys[:, None, :])


def windows(x: Tensor, cell: Pair) -> Tensor:
    """`(B, H, W, n)` -> `(B · windows, a · b, n)`."""
    batch, height, width, n = x.shape
    x = x.reshape(batch, height // cell[0], cell[0], width // cell[1], cell[1], n)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, cell[0] * cell[1], n)


def back(x: Tensor, cell: Pair, size: Pair) -> Tensor:
    """The inverse of `windows`."""
    x = x.reshape(-1, size[0] // cell[0], size[1] // cell[1], cell[0], cell[1], x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size[0], size[1], x.shape[-1])


class Tables(NamedTuple):
    """What one way of cutting the map needs."""

    cell: Pair
    shift: Pair
    down: int
    table: Tensor
    to_anchors: Tensor
    from_anchors: Tensor
    mask: Tensor
    mask_back: Tensor


def tables(size: Pair, cell: Pair, shift: Pair, down: int, known: Pair, like: Tensor) -> Tables:
    """All tables of windows (`down` 1) or stripes, for a padded map of `size`."""
    tokens = regions(size, cell, shift)
    few, small = (cell[0] // down, cell[1] // down), (size[0] // down, size[1] // down)
    anchors = regions(small, few, (shift[0] // down, shift[1] // down))
    masks = (mask_table(tokens, anchors).to(like), mask_table(anchors, tokens).to(like))
    table = coordinate_table(cell, down, known).to(like)
    there, back_again = (index.to(like.device) for index in index_tables(cell, down))
    return Tables(cell, shift, down, table, there, back_again, *masks)


class PlainTransform(nn.Module):
    """Cosine attention with continuous position bias, step by step."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.log(10 * torch.ones(heads, 1, 1)))
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False)
        )

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, table: Tensor, index: Tensor, mask: Tensor | None
    ) -> Tensor:
        logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        logits = logits * self.logit_scale.clamp(max=math.log(100)).exp()
        bias = self.cpb_mlp(table).flatten(0, 2)[index.flatten()]
        bias = bias.view(*index.shape, -1).permute(2, 0, 1)
        logits = logits + 16 * torch.sigmoid(bias)
        if mask is not None:
            logits = logits.unflatten(0, (-1, len(mask))) + mask[:, None]
            logits = logits.flatten(0, 1)
        return logits.softmax(dim=-1) @ v


def heads_of(x: Tensor, count: int) -> Tensor:
    """`(G, N, h·d)` -> `(G, h, N, d)`."""
    return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


class PlainWindows(nn.Module):
    """Window attention, shifted or not."""

    def __init__(self, heads: int, shifted: bool) -> None:
        super().__init__()
        self.heads, self.shifted = heads, shifted
        self.attn_transform = PlainTransform(heads)

    def forward(self, qkv: Tensor, t: Tables) -> Tensor:
        size = (qkv.shape[1], qkv.shape[2])
        if self.shifted:
            qkv = qkv.roll((-t.shift[0], -t.shift[1]), (1, 2))
        q, k, v = (heads_of(x, self.heads) for x in windows(qkv, t.cell).chunk(3, -1))
        mask = t.mask if self.shifted else None
        out = self.attn_transform(q, k, v, t.table, t.to_anchors, mask)
        out = back(out.transpose(1, 2).flatten(2), t.cell, size)
        return out.roll(t.shift, (1, 2)) if self.shifted else out


class PlainStripes(nn.Module):
    """Anchored stripe attention, shifted or not."""

    def __init__(self, heads: int, shifted: bool) -> None:
        super().__init__()
        self.heads, self.shifted = heads, shifted
        self.attn_transform1 = PlainTransform(heads)
        self.attn_transform2 = PlainTransform(heads)

    def forward(self, qkv: Tensor, anchor: Tensor, t: Tables) -> Tensor:
        size = (qkv.shape[1], qkv.shape[2])
        if self.shifted:
            qkv = qkv.roll((-t.shift[0], -t.shift[1]), (1, 2))
            anchor = anchor.roll((-(t.shift[0] // t.down), -(t.shift[1] // t.down)), (1, 2))
        q, k, v = (heads_of(x, self.heads) for x in windows(qkv, t.cell).chunk(3, -1))
        few = (t.cell[0] // t.down, t.cell[1] // t.down)
        a = heads_of(windows(anchor, few), self.heads)
        masks = (t.mask_back, t.mask) if self.shifted else (None, None)
        z = self.attn_transform1(a, k, v, t.table, t.from_anchors, masks[0])
        out = self.attn_transform2(q, a, z, t.table, t.to_anchors, masks[1])
        out = back(out.transpose(1, 2).flatten(2), t.cell, size)
        return out.roll(t.shift, (1, 2)) if self.shifted else out


def running(size: int | None, groups: int | None, length: int) -> tuple[int, int]:
    """Side and shift of the stripes along an axis of `length`."""
    if groups is None:
        assert size is not None
        return size, size // 2
    return length // groups, 0 if groups == 1 else length // groups // 2


class PlainGRL(GRL):
    """The network of `restore.archs.grl` with the attention as published."""

    def __init__(self, options: GrlOptions) -> None:
        super().__init__(options)
        for block in self.modules():
            if isinstance(block, Block):
                window, stripe = block.attn.window_attn, block.attn.stripe_attn
                plain: Any = block.attn
                plain.window_attn = PlainWindows(window.heads, window.shifted)
                plain.stripe_attn = PlainStripes(stripe.heads, stripe.shifted)

    def _body(self, features: Tensor) -> Tensor:
        size = (features.shape[2], features.shape[3])
        x = self.pos_drop(self.norm_start(features.permute(0, 2, 3, 1)))
        made = self.tables(size)
        for layer in self.layers:
            stage: Any = layer
            out = x
            for block in stage.blocks:
                out = block(out, made)
            x = x + convolved(stage.conv, out)
        return self.norm_end(x).permute(0, 3, 1, 2)

    def tables(self, size: Pair) -> Any:
        """The official tables for a padded map, as the three fields that the blocks look for."""
        o, like = self.options, self.conv_first.weight.detach()
        side, half = o.window_size, o.window_size // 2
        made = [tables(size, (side, side), (half, half), 1, o.pretrained_window_size, like)]
        for turn in (1, -1):
            axes = zip(o.stripe_size[::turn], o.stripe_groups[::turn], size, strict=True)
            (a, moved), (b, moved_too) = (running(*axis) for axis in axes)
            down, known = o.anchor_window_down_factor, o.pretrained_stripe_size
            made.append(tables(size, (a, b), (moved, moved_too), down, known, like))
        return PlainGeometry(*made)


class PlainGeometry(NamedTuple):
    """The tables of the three ways in which the blocks cut a map."""

    window: Tables
    horizontal: Tables
    vertical: Tables
