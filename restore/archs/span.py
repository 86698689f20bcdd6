"""Floor 3. SPAN, the Swift Parameter-free Attention Network (arXiv 2311.12770).

Twenty re-parameterised 3×3 units, six attention blocks without attention weights, one pixel
shuffle. The parameters are the branches of each unit, under the official key names; every forward
merges them, differentiably, into one 3×3 kernel per unit, which gives the loss and the gradients of
the branch form at a quarter of its cost. `SPAN.fused()` is the deploy form: plain convolutions.
"""

# B batch, C channels in, D channels out, P = 2C and Q = 2D inner channels, s scale

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs.layers import enlarging, mean_map
from restore.archs.options import SpanOptions
from restore.ops.devices import autocast_device

GAIN = 2
BLOCKS = 6
Unit = Callable[[int, int], nn.Module]


class ReparamUnit(nn.Module):
    """A linear 3×3 unit learnt as 1×1 → 3×3 → 1×1 beside a 1×1 skip; `x: (B, C, H, W)`."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        inner, outer = GAIN * channels, GAIN * out_channels
        self.sk = nn.Conv2d(channels, out_channels, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.Conv2d(inner, outer, 3),
            nn.Conv2d(outer, out_channels, 1),
        )
        # The official unit holds a fused copy here. Ours does not, but takes the same draws from
        # the generator, so that one seed gives the official initial weights.
        nn.Conv2d(channels, out_channels, 3)

        self.register_load_state_dict_pre_hook(_drop_fused_copy)

    def merged(self) -> tuple[Tensor, Tensor]:
        """The unit as one kernel `(D, C, 3, 3)` and bias `(D,)`, with gradients to every branch.

        Exact at the borders too: the input is padded before the first 1×1, so the padded ring
        carries that convolution's bias, which is what the merged bias adds everywhere.
        """
        first, middle, last = (cast(nn.Conv2d, layer) for layer in self.conv)
        w1 = first.weight.flatten(1)  # (P, C)
        w2 = middle.weight.flatten(2)  # (Q, P, 9)
        w3 = last.weight.flatten(1)  # (D, Q)
        rows = (w3 @ w2.flatten(1)).view(-1, *w2.shape[1:])  # (D, P, 9)
        kernel = torch.matmul(rows.transpose(1, 2), w1)  # (D, 9, C)
        kernel = kernel.transpose(1, 2).unflatten(2, (3, 3))
        kernel = kernel + F.pad(self.sk.weight, (1, 1, 1, 1))
        b1, b2, b3, skip = map(_bias, (first, middle, last, self.sk))
        bias = w3 @ (w2.sum(2) @ b1 + b2) + b3 + skip
        return kernel, bias

    def branches(self, x: Tensor) -> Tensor:
        """The unit as published, branch by branch: the slow truth."""
        return self.conv(F.pad(x, (1, 1, 1, 1))) + self.sk(x)

    def forward(self, x: Tensor) -> Tensor:
        # a kernel merged in bf16 is 3e-3 off
        with torch.autocast(autocast_device(x), enabled=False):
            kernel, bias = self.merged()
        return F.conv2d(x, kernel.to(x.dtype), bias.to(x.dtype), padding=1)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None  # every convolution of SPAN has one
    return layer.bias


def _drop_fused_copy(_unit: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Official files hold each unit's fused copy, which may be stale: it is never loaded."""
    state.pop(f"{prefix}eval_conv.weight", None)
    state.pop(f"{prefix}eval_conv.bias", None)


class Block(nn.Module):
    """Three units and the parameter-free attention; `x: (B, C, H, W)` -> (out, first feature)."""

    def __init__(self, channels: int, unit: Unit = ReparamUnit) -> None:
        super().__init__()
        self.c1_r = unit(channels, channels)
        self.c2_r = unit(channels, channels)
        self.c3_r = unit(channels, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = F.silu(self.c1_r(x))
        last = self.c3_r(F.silu(self.c2_r(first)))
        return (last + x) * (torch.sigmoid(last) - 0.5), first


class SPAN(nn.Module):
    """`lq: (B, num_in_ch, h, w)` in [0, 1] -> `(B, num_out_ch, h·s, w·s)`, about [0, 1], unclamped.

    Any size; the output is learnt as such: no mean is added back and no input is added.
    """

    def __init__(self, options: SpanOptions, unit: Unit = ReparamUnit) -> None:
        super().__init__()
        self.options = options
        width, scale = options.feature_channels, options.upscale
        self.conv_1 = unit(options.num_in_ch, width)
        for index in range(1, BLOCKS + 1):
            self.add_module(f"block_{index}", Block(width, unit))
        self.conv_cat = nn.Conv2d(4 * width, width, 1)
        self.conv_2 = unit(width, width)
        self.upsampler = enlarging(width, options.num_out_ch, [scale])
        self.mean: Tensor
        self.register_buffer("mean", mean_map(options.rgb_mean), persistent=False)

    def forward(self, lq: Tensor) -> Tensor:
        shallow = self.conv_1((lq - self.mean.to(lq.dtype)) * self.options.img_range)
        feature, first_block, inner = shallow, shallow, shallow
        for index in range(1, BLOCKS + 1):
            feature, inner = self.get_submodule(f"block_{index}")(feature)
            if index == 1:
                first_block = feature
        features = torch.cat([shallow, self.conv_2(feature), first_block, inner], dim=1)
        return self.upsampler(self.conv_cat(features))

    @torch.no_grad()
    def fused(self) -> SPAN:
        """A copy in deploy form: each unit one plain 3×3 convolution, merged in float64."""
        with torch.random.fork_rng(devices=[]):  # its first weights are thrown away
            deployed = SPAN(self.options, _plain_unit).to(self.conv_cat.weight)
        state = {
            key: value for key, value in self.state_dict().items() if not _of_unit(key)
        } | self.fused_units()
        deployed.load_state_dict(state)
        return deployed.train(self.training)

    @torch.no_grad()
    def fused_units(self) -> dict[str, Tensor]:
        """`<unit>.weight`, `<unit>.bias` of the merged kernels, contiguous, in the units' dtype."""
        merged: dict[str, Tensor] = {}
        for name, unit in self.named_modules():
            if isinstance(unit, ReparamUnit):
                dtype = unit.sk.weight.dtype
                kernel, bias = _as_double(unit).merged()
                merged[f"{name}.weight"] = kernel.to(dtype).contiguous()
                merged[f"{name}.bias"] = bias.to(dtype)
        return merged

    def official_state(self) -> dict[str, Tensor]:
        """The state dict as official tools read it strictly: with `eval_conv`, freshly fused."""
        state: dict[str, Tensor] = {}
        fused = self.fused_units()
        for key, value in self.state_dict().items():
            state[key] = value
            unit, found, _ = key.partition(".conv.2.bias")
            if found:
                state[f"{unit}.eval_conv.weight"] = fused[f"{unit}.weight"]
                state[f"{unit}.eval_conv.bias"] = fused[f"{unit}.bias"]
        return state


def _as_double(unit: ReparamUnit) -> ReparamUnit:
    channels, out_channels = unit.sk.in_channels, unit.sk.out_channels
    with torch.random.fork_rng(devices=[]):
        double = ReparamUnit(channels, out_channels).to(unit.sk.weight.device, torch.float64)
    double.load_state_dict(unit.state_dict())
    return double


def _of_unit(key: str) -> bool:
    return ".sk." in key or ".conv." in key


def _plain_unit(channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, padding=1)


def build(options: SpanOptions) -> SPAN:
    """SPAN for `options`; the builder that the table names."""
    return SPAN(options)
