"""Floor 3. MaIR: super-resolution and denoising at one resolution (CVPR 2025, arXiv 2412.20066).

A convolution, residual groups of Mamba blocks on tokens, a convolution and a head. The parameters
have the official key names; the state dict holds nothing else.
"""

# B batch, C width, H x W pixels, L = H*W, s scale

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs.layers import (
    RGB_MEAN,
    bottleneck,
    enlarging,
    factors_of,
    mean_map,
    rising,
)
from restore.archs.mair.block import ResidualMambaBlock, Size, run_blocks, to_map, to_tokens
from restore.archs.mair.scan_order import NestedScan
from restore.archs.mair_options import MairOptions
from restore.ops.selective_scan import check_override

HEAD_WIDTH = 64


class PatchEmbedding(nn.Module):
    """Map `(B, C, H, W)` -> tokens `(B, L, C)`, normalised when `norm` asks for it."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_tokens(x))


class BlockList(nn.Module):
    """The blocks of a group; every second one scans shifted stripes."""

    def __init__(self, options: MairOptions, drop_paths: list[float]) -> None:
        super().__init__()
        self.recompute = options.recomputes
        self.blocks = nn.ModuleList(
            ResidualMambaBlock(
                options.embed_dim,
                options.d_state,
                options.ssm_ratio,
                options.mlp_ratio,
                drop_path=rate,
            )
            for rate in drop_paths
        )

    def forward(self, x: Tensor, size: Size, orders: tuple[Tensor, ...]) -> Tensor:
        return run_blocks(self.blocks, x, size, orders, self.recompute)


class ResidualGroup(nn.Module):
    """Blocks and a convolution, added to the input; tokens `(B, L, C)` of `size` -> same."""

    def __init__(self, options: MairOptions, drop_paths: list[float]) -> None:
        super().__init__()
        self.residual_group = BlockList(options, drop_paths)
        self.conv = _tail(options)

    def forward(self, x: Tensor, size: Size, orders: tuple[Tensor, ...]) -> Tensor:
        return x + to_tokens(self.conv(to_map(self.residual_group(x, size, orders), size)))


def _tail(options: MairOptions) -> nn.Module:
    """The end of a group and of the body."""
    width = options.embed_dim
    if options.resi_connection == "1conv":
        return nn.Conv2d(width, width, 3, padding=1)
    return bottleneck(width)


class MaIR(nn.Module):
    """`lq: (B, in_chans, h, w)` in [0, 1] -> `(B, in_chans, h·s, w·s)`, about [0, 1], unclamped.

    Any size. Tiles are not the whole: gates and scans see all pixels of what they are given.
    """

    def __init__(self, options: MairOptions) -> None:
        super().__init__()
        self.options = options
        width, channels = options.embed_dim, options.in_chans
        self.conv_first = nn.Conv2d(channels, width, 3, padding=1)
        self.patch_embed = PatchEmbedding(width, options.patch_norm)
        drop_paths = rising(options.drop_path_rate, options.depths)
        self.layers = nn.ModuleList(ResidualGroup(options, r) for r in drop_paths)
        self.norm = nn.LayerNorm(width)
        self.conv_after_body = _tail(options)
        if options.upsampler == "pixelshuffle":
            self.conv_before_upsample = nn.Sequential(
                nn.Conv2d(width, HEAD_WIDTH, 3, padding=1), nn.LeakyReLU()
            )
            self.upsample = enlarging(HEAD_WIDTH, HEAD_WIDTH, factors_of(options.upscale))
            self.conv_last = nn.Conv2d(HEAD_WIDTH, channels, 3, padding=1)
        elif options.upsampler == "pixelshuffledirect":
            self.upsample = enlarging(width, channels, [options.upscale])
        else:
            self.conv_last = nn.Conv2d(width, channels, 3, padding=1)
        self.paths = (
            NestedScan(options.scan_len),
            NestedScan(options.scan_len, options.scan_len // 2),
        )
        self.apply(_draw)
        mean = mean_map(RGB_MEAN if channels == 3 else (0.0,) * channels)
        self.mean: Tensor
        self.register_buffer("mean", mean, persistent=False)

    def regions(self) -> list[nn.Module]:
        """The parts that are alike, to be compiled once for all."""
        return [m for m in self.modules() if isinstance(m, ResidualMambaBlock)]

    def forward(self, lq: Tensor) -> Tensor:
        mean, image_range = self.mean.to(lq.dtype), self.options.img_range
        x = ((lq - mean) * image_range).contiguous(memory_format=torch.channels_last)
        shallow = self.conv_first(x)
        restored = self._head(x, shallow + self.conv_after_body(self._deep(shallow)))
        return restored / image_range + mean

    def _deep(self, shallow: Tensor) -> Tensor:
        """First features -> those of all groups, `(B, C, H, W)`."""
        size: Size = (shallow.shape[2], shallow.shape[3])
        orders = tuple(path.orders(*size, shallow.device) for path in self.paths)
        tokens = F.dropout(self.patch_embed(shallow), self.options.drop_rate, self.training)
        for group in self.layers:
            tokens = group(tokens, size, orders)
        return to_map(self.norm(tokens), size)

    def _head(self, x: Tensor, features: Tensor) -> Tensor:
        """The mean-free input and the last features -> the mean-free output."""
        if self.options.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(self.conv_before_upsample(features)))
        if self.options.upsampler == "pixelshuffledirect":
            return self.upsample(features)
        return x + self.conv_last(features)


def _draw(layer: nn.Module) -> None:
    """The published start of linear layers; all others keep PyTorch's."""
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def build(options: MairOptions) -> MaIR:
    """MaIR for `options`; the builder that the table names. Raises BackendError ENV30."""
    check_override()
    return MaIR(options)
