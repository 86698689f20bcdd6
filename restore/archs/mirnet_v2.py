"""Floor 3. MIRNet-v2, restoration at constant resolution (TPAMI 2022, arXiv 2205.01649).

Four groups of multi-scale blocks; in a block three streams (full, half, quarter resolution) run
through residual context blocks and are fused upwards, twice, with the same weights. The parameters
have the official key names.
"""

# B batch, C channels, H x W positions, L = H*W, n/m/b channels of the top/middle/bottom stream

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs.layers import fast_layout
from restore.archs.options import MirnetV2Options

GROUPS = (1, 2, 4, 4)
SLOPE = 0.2


class ContextBlock(nn.Module):
    """Adds one vector per image: the softmax-weighted mean of all positions, transformed."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.conv_mask = nn.Conv2d(channels, 1, 1, bias=bias)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=bias),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, channels, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x: (B, C, H, W)` -> same; one matrix product sums over the positions."""
        positions = x.flatten(2).transpose(1, 2)  # (B, L, C); no copy when channels are last
        weights = _linear(self.conv_mask, positions).squeeze(2).softmax(dim=1)  # (B, L)
        context = torch.bmm(weights.unsqueeze(1), positions)  # (B, 1, C)
        first, _, last = self.channel_add_conv
        added = _linear(last, F.leaky_relu(_linear(first, context), SLOPE))
        return x + added.transpose(1, 2).unsqueeze(3)


class ResidualContextBlock(nn.Module):
    """Two grouped 3×3 and the context, activated, then added; `x: (B, C, H, W)` -> same."""

    def __init__(self, channels: int, groups: int, bias: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=bias),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=bias),
        )
        self.gcnet = ContextBlock(channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.leaky_relu_(self.gcnet(self.body(x)), SLOPE)


class SelectiveFusion(nn.Module):
    """Sum of `streams` tensors `(B, C, H, W)`, weighted per image and channel (SKFF)."""

    def __init__(self, channels: int, streams: int = 2) -> None:
        super().__init__()
        squeezed = max(channels // 8, 4)
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1, bias=False), nn.LeakyReLU(SLOPE)
        )
        self.fcs = nn.ModuleList(
            nn.Conv2d(squeezed, channels, 1, bias=False) for _ in range(streams)
        )

    def weights(self, pooled: Tensor) -> list[Tensor]:
        """The streams' means, added up, `(B, C)` -> each stream's weights `(B, C, 1, 1)`.

        For every channel the weights of all streams add up to 1.
        """
        squeezed = F.leaky_relu(_linear(self.conv_du[0], pooled), SLOPE)
        scores = [_linear(layer, squeezed)[:, :, None, None] for layer in self.fcs]
        if len(scores) == 2:  # a softmax of two is the sigmoid of their difference
            first = torch.sigmoid(scores[0] - scores[1])
            return [first, 1 - first]
        return list(torch.stack(scores).softmax(dim=0))

    def forward(self, tensors: Sequence[Tensor]) -> Tensor:
        """One tensor `(B, C, H, W)` per stream -> their weighted sum."""
        pooled = sum(map(_mean, tensors))
        return cast(Tensor, sum(map(torch.mul, tensors, self.weights(cast(Tensor, pooled)))))

    def with_lower(self, stream: Tensor, lower: Tensor) -> Tensor:
        """`stream: (B, C, H, W)` fused with `lower: (B, C, H/2, W/2)` after bilinear ×2.

        The enlargement keeps every channel's mean and commutes with its weight, so both are taken
        at the lower resolution: same result, a third of the memory traffic.
        """
        own, other = self.weights(_mean(stream) + _mean(lower))
        larger = F.interpolate(lower * other, scale_factor=2, mode="bilinear")
        return torch.addcmul(larger, stream, own)


class Pointwise(nn.Module):
    """The 1×1 of a change of resolution, under the official key `body.0.bot.<index>`."""

    def __init__(self, channels: int, out_channels: int, index: int) -> None:
        super().__init__()
        layer = nn.Conv2d(channels, out_channels, 1, bias=False)
        bot = nn.ModuleDict({str(index): layer})
        self.body = nn.ModuleList([nn.ModuleDict({"bot": bot})])
        self._layer = f"body.0.bot.{index}"

    def forward(self, x: Tensor) -> Tensor:
        return _conv1x1(self.get_submodule(self._layer), x)


def _down(channels: int, out_channels: int) -> Pointwise:
    """The 1×1 after a 2×2 mean."""
    return Pointwise(channels, out_channels, 1)


def _up(channels: int, out_channels: int) -> Pointwise:
    """The 1×1 before bilinear ×2."""
    return Pointwise(channels, out_channels, 0)


class MultiScaleBlock(nn.Module):
    """Three streams that are fused upwards twice (MRB); `x: (B, n, H, W)` -> same."""

    def __init__(self, widths: tuple[int, int, int], groups: int, bias: bool) -> None:
        super().__init__()
        top, mid, bot = widths
        self.dau_top = ResidualContextBlock(top, groups, bias)
        self.dau_mid = ResidualContextBlock(mid, groups, bias)
        self.dau_bot = ResidualContextBlock(bot, groups, bias)
        self.down2 = _down(top, mid)
        self.down4 = nn.Sequential(_down(top, mid), _down(mid, bot))
        self.up21_1, self.up21_2 = _up(mid, top), _up(mid, top)
        self.up32_1, self.up32_2 = _up(bot, mid), _up(bot, mid)
        self.conv_out = nn.Conv2d(top, top, 1, bias=bias)
        self.skff_top = SelectiveFusion(top)
        self.skff_mid = SelectiveFusion(mid)

    def forward(self, x: Tensor) -> Tensor:
        half = F.avg_pool2d(x, 2)
        # a mean commutes with a 1×1, so both 1×1 of down4 run at the quarter resolution
        top, mid, bot = x, self.down2(half), self.down4(F.avg_pool2d(half, 2))
        for up32, up21 in ((self.up32_1, self.up21_1), (self.up32_2, self.up21_2)):
            top, mid, bot = self.dau_top(top), self.dau_mid(mid), self.dau_bot(bot)
            mid = self.skff_mid.with_lower(mid, up32(bot))
            top = self.skff_top.with_lower(top, up21(mid))
        return _conv1x1(self.conv_out, top) + x


class Group(nn.Module):
    """Multi-scale blocks and a 3×3, added to the input (RRG); `x: (B, n, H, W)` -> same."""

    def __init__(self, options: MirnetV2Options, groups: int) -> None:
        super().__init__()
        width, bias = options.n_feat, options.bias
        blocks = [MultiScaleBlock(options.widths, groups, bias) for _ in range(options.n_MRB)]
        self.body = nn.Sequential(*blocks, nn.Conv2d(width, width, 3, padding=1, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class MIRNetV2(nn.Module):
    """`lq: (B, inp_channels, h, w)` in [0, 1] -> `(B, out_channels, h, w)`, unclamped.

    h and w are multiples of 4. Dual-pixel deblurring takes the left view's channels, then the right
    view's; its long skip adds the shallow features, otherwise the input image is added at the end.
    Training and evaluation compute the same.
    """

    def __init__(self, options: MirnetV2Options) -> None:
        super().__init__()
        self.options = options
        width, bias = options.n_feat, options.bias
        self.conv_in = nn.Conv2d(options.inp_channels, width, 3, padding=1, bias=bias)
        self.body = nn.Sequential(*(Group(options, groups) for groups in GROUPS))
        self.conv_out = nn.Conv2d(width, options.out_channels, 3, padding=1, bias=bias)

    def regions(self) -> list[nn.Module]:
        """The parts that are alike, to be compiled or shared out one by one."""
        return [m for m in self.modules() if isinstance(m, MultiScaleBlock)]

    def forward(self, lq: Tensor) -> Tensor:
        shallow = self.conv_in(fast_layout(lq))  # grouped convolutions gain most, 2 to 4 ×
        deep = self.body(shallow)
        if self.options.task == "defocus_deblurring":
            return self.conv_out(deep + shallow)
        return self.conv_out(deep) + lq


def _mean(x: Tensor) -> Tensor:
    """`(B, C, H, W)` -> `(B, C)`; as a sum, whose gradient takes no memory, unlike `mean`'s."""
    total = x.sum(dim=(2, 3), dtype=torch.promote_types(x.dtype, torch.float32))
    return (total / x[0, 0].numel()).to(x.dtype)


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A 1×1 convolution of `x: (…, C)` -> `(…, D)`, as the matrix product that it is."""
    layer = cast(nn.Conv2d, layer)
    return F.linear(x, layer.weight.flatten(1), layer.bias)


def _conv1x1(layer: nn.Module, x: Tensor) -> Tensor:
    """A 1×1 convolution of `x: (B, C, H, W)` -> `(B, D, H, W)`.

    Dilation means nothing to a 1×1, but on one CPU thread it is what makes torch choose oneDNN,
    2.3 times as fast as its own loop, forward and backward.
    """
    layer = cast(nn.Conv2d, layer)
    return F.conv2d(x, layer.weight, layer.bias, dilation=2 if x.device.type == "cpu" else 1)


def build(options: MirnetV2Options) -> MIRNetV2:
    """MIRNet-v2 for `options`; the builder that the table names."""
    return MIRNetV2(options)
