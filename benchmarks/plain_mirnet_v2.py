"""MIRNet-v2 as published, written plainly: the slow truth that the fast form is compared with.

Every operation stands as the paper draws it: fusion weights by a softmax over stacked branches, the
context as a sum over positions, 1×1 convolutions on pooled maps, tensors in torch's default layout.
The state dict is that of `restore.archs.mirnet_v2`, so that weights go from one to the other.
"""

# B batch, C channels, H x W positions, S streams that are fused

from __future__ import annotations

import torch
from torch import Tensor, nn

from restore.archs.options import MirnetV2Options

GROUPS = (1, 2, 4, 4)


def activation() -> nn.LeakyReLU:
    """The network's only activation."""
    return nn.LeakyReLU(0.2)


class PlainContext(nn.Module):
    """`(B, C, H, W)` plus one vector per image: a softmax-weighted mean, through two 1×1."""

    def __init__(self, c: int, bias: bool) -> None:
        super().__init__()
        self.conv_mask = nn.Conv2d(c, 1, 1, bias=bias)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(c, c, 1, bias=bias), activation(), nn.Conv2d(c, c, 1, bias=bias)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights = self.conv_mask(x).flatten(2).softmax(dim=2)  # (B, 1, HW)
        context = torch.einsum("bcp,bop->bc", x.flatten(2), weights)
        return x + self.channel_add_conv(context[:, :, None, None])


class PlainResidual(nn.Module):
    """Two grouped 3×3 and the context, activated, then added to the input."""

    def __init__(self, c: int, groups: int, bias: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c, c, 3, padding=1, groups=groups, bias=bias),
            activation(),
            nn.Conv2d(c, c, 3, padding=1, groups=groups, bias=bias),
        )
        self.act = activation()
        self.gcnet = PlainContext(c, bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.gcnet(self.body(x)))


class PlainFusion(nn.Module):
    """S tensors `(B, C, H, W)` -> their sum weighted by a softmax over the streams."""

    def __init__(self, c: int, streams: int = 2) -> None:
        super().__init__()
        squeezed = max(int(c / 8), 4)
        self.conv_du = nn.Sequential(nn.Conv2d(c, squeezed, 1, bias=False), activation())
        self.fcs = nn.ModuleList(nn.Conv2d(squeezed, c, 1, bias=False) for _ in range(streams))

    def forward(self, tensors: list[Tensor]) -> Tensor:
        batch, channels, height, width = tensors[0].shape
        stacked = torch.cat(tensors, dim=1).view(batch, -1, channels, height, width)
        pooled = stacked.sum(dim=1).mean(dim=(2, 3), keepdim=True)
        squeezed = self.conv_du(pooled)
        scores = torch.cat([branch(squeezed) for branch in self.fcs], dim=1)
        weights = scores.view(batch, -1, channels, 1, 1).softmax(dim=1)
        return (stacked * weights).sum(dim=1)


class Nested(nn.Module):
    """A pair of layers under the published key `body.0.bot`."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        inner = nn.Module()
        inner.bot = nn.Sequential(first, second)
        self.body = nn.ModuleList([inner])

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule("body.0.bot")(x)


def down(c: int, d: int) -> Nested:
    """2×2 mean, then 1×1."""
    pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
    return Nested(pool, nn.Conv2d(c, d, 1, bias=False))


def up(c: int, d: int) -> Nested:
    """1×1, then bilinear ×2."""
    larger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return Nested(nn.Conv2d(c, d, 1, bias=False), larger)


class PlainMultiScale(nn.Module):
    """Three streams that meet twice; `(B, C, H, W)` -> same."""

    def __init__(self, widths: tuple[int, int, int], groups: int, bias: bool) -> None:
        super().__init__()
        top, mid, bot = widths
        self.dau_top = PlainResidual(top, groups, bias)
        self.dau_mid = PlainResidual(mid, groups, bias)
        self.dau_bot = PlainResidual(bot, groups, bias)
        self.down2 = down(top, mid)
        self.down4 = nn.Sequential(down(top, mid), down(mid, bot))
        self.up21_1, self.up21_2 = up(mid, top), up(mid, top)
        self.up32_1, self.up32_2 = up(bot, mid), up(bot, mid)
        self.conv_out = nn.Conv2d(top, top, 1, bias=bias)
        self.skff_top, self.skff_mid = PlainFusion(top), PlainFusion(mid)

    def forward(self, x: Tensor) -> Tensor:
        top, mid, bot = x, self.down2(x), self.down4(x)
        for up21, up32 in ((self.up21_1, self.up32_1), (self.up21_2, self.up32_2)):
            top, mid, bot = self.dau_top(top), self.dau_mid(mid), self.dau_bot(bot)
            mid = self.skff_mid([mid, up32(bot)])
            top = self.skff_top([top, up21(mid)])
        return self.conv_out(top) + x


class PlainGroup(nn.Module):
    """Multi-scale blocks and a 3×3, added to the input."""

    def __init__(self, options: MirnetV2Options, groups: int) -> None:
        super().__init__()
        n, bias = options.n_feat, options.bias
        blocks = (PlainMultiScale(options.widths, groups, bias) for _ in range(options.n_MRB))
        self.body = nn.Sequential(*blocks, nn.Conv2d(n, n, 3, padding=1, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class PlainMIRNetV2(nn.Module):
    """`lq: (B, inp_channels, h, w)` in [0, 1] -> `(B, out_channels, h, w)`; h, w multiples of 4."""

    def __init__(self, options: MirnetV2Options) -> None:
        super().__init__()
        n, bias = options.n_feat, options.bias
        self.inner_skip = options.task == "defocus_deblurring"
        self.conv_in = nn.Conv2d(options.inp_channels, n, 3, padding=1, bias=bias)
        self.body = nn.Sequential(*(PlainGroup(options, groups) for groups in GROUPS))
        self.conv_out = nn.Conv2d(n, options.out_channels, 3, padding=1, bias=bias)

    def forward(self, lq: Tensor) -> Tensor:
        shallow = self.conv_in(lq)
        deep = self.body(shallow)
        return self.conv_out(deep + shallow) if self.inner_skip else self.conv_out(deep) + lq
