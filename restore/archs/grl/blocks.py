"""Floor 3. GRL's blocks: regional windows, global stripes through anchors, local convolutions.

Module names are the official ones.
"""

# B batch, H x W padded map, C = embed_dim, r down factor of the anchors, G batch · cells, N tokens
# of a cell, h heads, d channels of a head

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from restore.archs.grl.attention import CosineAttention, Part
from restore.archs.grl.layers import Body, LocalBranch, Perceptron, anchors, closing, convolved
from restore.archs.grl.tables import Geometry, Grid, Pair, Region, as_cells
from restore.archs.grl_options import GrlOptions


def by_head(x: Tensor, count: int) -> Tensor:
    """`(G, N, h·d)` -> `(G, h, N, d)`."""
    return x.unflatten(2, (count, -1)).transpose(1, 2)


def _crop(x: Tensor, region: Region, cell: Pair) -> Tensor:
    rows = slice(region.top * cell[0], region.bottom * cell[0])
    return x[:, rows, region.left * cell[1] : region.right * cell[1]]


def rolled(x: Tensor, shift: Pair, sign: int) -> Tensor:
    """`x: (B, H, W, n)` rolled down and right by `shift`; up and left where `sign` is -1."""
    return torch.roll(x, (sign * shift[0], sign * shift[1]), dims=(1, 2)) if any(shift) else x


def _cells(x: Tensor, region: Region, cell: Pair) -> Tensor:
    """The cells `(G, N, n)` of a region of `x: (B, H, W, n)`."""
    return as_cells(_crop(x, region, cell), cell).flatten(3, 4).flatten(0, 2)


def _assembled(
    parts: list[Tensor], regions: tuple[Region, ...], grid: Grid, like: Tensor
) -> Tensor:
    """The results `(G, h, N, d)` of the regions as one map `(B, H, W, h·d)` in `like`'s type."""
    _, heads, _, channels = parts[0].shape
    out = like.new_empty(*like.shape[:3], heads * channels)
    for part, region in zip(parts, regions, strict=True):
        cells = as_cells(_crop(out, region, grid.cell), grid.cell).unflatten(5, (heads, channels))
        found = part.unflatten(2, grid.cell).unflatten(0, cells.shape[:3])
        cells.copy_(found.movedim(3, 5))
    return out


class WindowAttention(nn.Module):
    """Regional: attention inside square windows, shifted by half a window or not."""

    def __init__(self, heads: int, shifted: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.shifted = heads, shifted
        self.attn_transform = CosineAttention(heads, dropout)

    def forward(self, qkv: Tensor, grid: Grid) -> Tensor:
        """`qkv: (B, H, W, 3C/2)` -> `(B, H, W, C/2)`."""
        shift = grid.shift if self.shifted else (0, 0)
        regions = grid.regions if self.shifted else grid.whole
        qkv = rolled(qkv, shift, -1)
        parts = []
        for region in regions:
            q, k, v = _cells(qkv, region, grid.cell).chunk(3, dim=2)
            k, v = k.flip(1), v.flip(1)
            q, k, v = (by_head(x, self.heads) for x in (q, k, v))
            parts.append(Part(q, k, v, region.of_tokens))
        found = self.attn_transform(parts, grid.from_tokens, grid.cell, grid.cell)
        return rolled(_assembled(found, regions, grid, qkv), shift, 1)


class StripeAttention(nn.Module):
    """Global: anchors gather from the tokens of their stripe, and tokens from the anchors."""

    def __init__(self, heads: int, shifted: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.shifted = heads, shifted
        self.attn_transform1 = CosineAttention(heads, dropout)
        self.attn_transform2 = CosineAttention(heads, dropout)

    def forward(self, qkv: Tensor, anchor: Tensor, grid: Grid) -> Tensor:
        """`qkv: (B, H, W, 3C/2)`, `anchor: (B, H/r, W/r, C/2)` -> `(B, H, W, C/2)`."""
        shift = grid.shift if self.shifted else (0, 0)
        regions = grid.regions if self.shifted else grid.whole
        qkv = rolled(qkv, shift, -1)
        anchor = rolled(anchor, grid.anchor_shift, -1) if self.shifted else anchor
        gathering, asking = [], []
        for region in regions:
            q, k, v = _cells(qkv, region, grid.cell).chunk(3, dim=2)
            q, k, v = (by_head(x, self.heads) for x in (q, k, v))
            a = by_head(_cells(anchor, region, grid.anchors).flip(1), self.heads)
            gathering.append(Part(a, k, v, region.of_anchors))
            asking.append(Part(q, a, a, region.of_tokens))
        known = self.attn_transform1(gathering, grid.from_anchors, grid.anchors, grid.cell)
        asking = [part._replace(v=z) for part, z in zip(asking, known, strict=True)]
        found = self.attn_transform2(asking, grid.from_tokens, grid.cell, grid.anchors)
        return rolled(_assembled(found, regions, grid, qkv), shift, 1)


class MixedAttention(nn.Module):
    """Half of the channels through windows, half through stripes; `(B, H, W, C)` -> same."""

    def __init__(self, options: GrlOptions, stage: int, index: int) -> None:
        super().__init__()
        channels, dropout = options.embed_dim, options.attn_drop_rate
        self.vertical = index % 2 == 1
        self.qkv = Body(nn.Linear(channels, 3 * channels, bias=options.qkv_bias))
        self.anchor = Body(anchors(options))
        self.window_attn = WindowAttention(
            options.num_heads_window[stage], index % 2 == 0, dropout
        )  # even blocks shift, the reverse of Swin
        self.stripe_attn = StripeAttention(
            options.num_heads_stripe[stage], options.stripe_shift and index % 4 >= 2, dropout
        )
        self.proj = nn.Linear(channels, channels)
        self.proj_drop = nn.Dropout(options.drop_rate)

    def forward(self, x: Tensor, geometry: Geometry) -> Tensor:
        regional, wide = self.qkv(x).chunk(2, dim=-1)
        stripes = geometry.vertical if self.vertical else geometry.horizontal
        found = [
            self.window_attn(regional, geometry.window),
            self.stripe_attn(wide, self.anchor(x), stripes),
        ]
        return self.proj_drop(self.proj(torch.cat(found, dim=-1)))


class Block(nn.Module):
    """Attention and perceptron, each normalised, then added; `(B, H, W, C)` -> same.

    `index` counts the blocks of the stage; `left_out` is the share of samples whose branches are
    skipped in training.
    """

    def __init__(self, options: GrlOptions, stage: int, index: int, left_out: float) -> None:
        super().__init__()
        channels = options.embed_dim
        self.left_out = left_out
        self.residual = 0.1 if options.init_method == "r" else 1.0
        self.attn = MixedAttention(options, stage, index)
        self.norm1 = nn.LayerNorm(channels)
        self.conv = LocalBranch(channels) if options.local_connection else None
        self.mlp = Perceptron(options)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, geometry: Geometry) -> Tensor:
        attended = x + self._branch(self.norm1(self.attn(x, geometry)))
        if self.conv is not None:
            attended = attended + self.conv(x)
        return attended + self._branch(self.norm2(self.mlp(attended)))

    def _branch(self, branch: Tensor) -> Tensor:
        """A residual branch, scaled, and in training left out of some samples (drop path)."""
        if self.residual != 1:
            branch = branch * self.residual
        if not self.training or self.left_out == 0:
            return branch
        kept = branch.new_empty(len(branch), 1, 1, 1).bernoulli_(1 - self.left_out)
        return branch * (kept / (1 - self.left_out))


class Stage(nn.Module):
    """Blocks and a convolution, added to the input; `(B, H, W, C)` -> same."""

    def __init__(self, options: GrlOptions, stage: int, left_out: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(options, stage, index, rate) for index, rate in enumerate(left_out)
        )
        self.conv = closing(options)
        self.use_checkpoint = options.use_checkpoint

    def forward(self, x: Tensor, geometry: Geometry) -> Tensor:
        out = x
        for block in self.blocks:
            if self.use_checkpoint and torch.is_grad_enabled():
                out = checkpoint(block, out, geometry, use_reentrant=False)
            else:
                out = block(out, geometry)
        return x + convolved(self.conv, out)
