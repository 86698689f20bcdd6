"""Floor 3. GRL's layers without positions: anchors, local convolutions, perceptron, heads.

Maps keep their channels last, `(B, H, W, C)`: a token is a row of a matrix, and a convolution sees
the same memory as an image with channels last. Module names are the official ones.
"""

# B batch, H x W padded map, C = embed_dim, r down factor of the anchors, s scale

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs.grl_options import CAB_REDUCTION, GrlOptions
from restore.archs.layers import bottleneck, enlarging


def convolved(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer for `(B, C, H, W)` applied to `x: (B, H, W, C)`."""
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class PooledAnchors(nn.Module):
    """Mean or maximum of r × r pixels, then a linear layer."""

    def __init__(self, channels: int, options: GrlOptions) -> None:
        super().__init__()
        self.down = options.anchor_window_down_factor
        self.pool = F.avg_pool2d if options.anchor_proj_type == "avgpool" else F.max_pool2d
        self.reduction = nn.Linear(channels, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` -> `(B, H/r, W/r, C/2)`."""
        return self.reduction(convolved(lambda y: self.pool(y, self.down), x))


class ConvolvedAnchors(nn.Conv2d):
    """A strided convolution, for `(B, H, W, C)`."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__(channels, out_channels, stride + 1, stride, padding=(stride + 1) // 2)

    def forward(self, input: Tensor) -> Tensor:
        return convolved(super().forward, input)


class MergedAnchors(nn.Module):
    """Two by two pixels side by side, then a linear layer."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` -> `(B, H/2, W/2, C/2)`; the pixels in the order of columns."""
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(torch.cat(corners, dim=-1))


def anchors(options: GrlOptions) -> nn.Sequential:
    """The anchors' projection, `(B, H, W, C)` -> `(B, H/r, W/r, C/2)`."""
    channels, down = options.embed_dim, options.anchor_window_down_factor
    kind, half = options.anchor_proj_type, options.embed_dim // 2
    if kind in ("avgpool", "maxpool"):
        return nn.Sequential(PooledAnchors(channels, options))
    halvings = 1 if options.anchor_one_stage else down.bit_length() - 1
    widths = [channels] + [half] * (halvings - 1)
    if kind == "patchmerging":
        return nn.Sequential(*(MergedAnchors(width, half) for width in widths))
    stride = down if options.anchor_one_stage else 2
    return nn.Sequential(*(ConvolvedAnchors(width, half, stride) for width in widths))


class Body(nn.Module):
    """A layer under the official key `body`."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class ChannelAttention(nn.Module):
    """Weighs each channel by what its mean over the map says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = channels // CAB_REDUCTION
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class LocalBranch(nn.Module):
    """Local: two convolutions and channel attention (CAB); `(B, H, W, C)` -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cab = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels // 4, channels, 3, padding=1),
            ChannelAttention(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return convolved(self.cab, x)


class Perceptron(nn.Module):
    """Two linear layers with a GELU between; `(B, H, W, C)` -> same."""

    def __init__(self, options: GrlOptions) -> None:
        super().__init__()
        channels = options.embed_dim
        self.fc1 = nn.Linear(channels, int(channels * options.mlp_ratio))
        self.fc2 = nn.Linear(int(channels * options.mlp_ratio), channels)
        self.drop = nn.Dropout(options.drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class PixelLinear(nn.Linear):
    """A linear layer for the channels of `(B, C, H, W)`."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def closing(options: GrlOptions) -> nn.Module:
    """What closes each stage and the body, on `(B, C, H, W)`."""
    channels = options.embed_dim
    if options.conv_type == "3conv":
        return bottleneck(channels)
    if options.conv_type == "linear":
        return PixelLinear(channels, channels)
    side = 1 if options.conv_type == "1conv1x1" else 3
    return nn.Conv2d(channels, channels, side, padding=side // 2)


class Upsample(nn.Module):
    """Convolutions and pixel shuffles under the official key `up`."""

    def __init__(self, channels: int, out_channels: int, factors: list[int]) -> None:
        super().__init__()
        self.up = enlarging(channels, out_channels, factors)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> `(B, out_channels, H·s, W·s)`."""
        return self.up(x)
