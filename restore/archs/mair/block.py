"""Floor 3. MaIR's block: a Mamba that scans a map along four nested S-shaped paths, and an MLP.

The parameters have the official key names. Features are tokens `(B, L, C)`, which are maps with
channels last, so that linear layers, scans and convolutions meet without a permutation.
Source: arXiv 2412.20066, section 3.
"""

# B batch, C width, D inner width, H x W pixels, L = H*W, K = 4 directions, N states, R step rank

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from restore.archs.mair.scan_order import DIRECTIONS
from restore.archs.mair.shuffle_attention import SequenceShuffleAttention
from restore.ops.devices import autocast_device
from restore.ops.selective_scan import map_scan, merge_directions

STEP_RANGE = (1e-3, 1e-1)
SMALLEST_STEP = 1e-4
Size = tuple[int, int]


def to_tokens(x: Tensor) -> Tensor:
    """Map `(B, C, H, W)` -> tokens `(B, H*W, C)`; no copy when channels are last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def to_map(x: Tensor, size: Size) -> Tensor:
    """Tokens `(B, H*W, C)` -> map `(B, C, H, W)` with channels last; no copy."""
    return x.unflatten(1, size).permute(0, 3, 1, 2)


class VisionMamba(nn.Module):
    """Four selective scans over one map, gated, added, normalised and gated again (VMM).

    Tokens `(B, L, C)` -> same. `order: (K, L)`: the pixel that each direction visits at each step.
    """

    def __init__(self, width: int, states: int, ssm_ratio: float) -> None:
        super().__init__()
        inner, rank = int(ssm_ratio * width), math.ceil(width / 16)
        self.inner = inner
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, rank + 2 * states, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(DIRECTIONS, inner))
        self.A_logs = nn.Parameter(torch.empty(DIRECTIONS * inner, states))
        self.Ds = nn.Parameter(torch.ones(DIRECTIONS * inner))
        self._draw()
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, width, bias=False)
        # a group holds the four directions of one channel
        self.gating = SequenceShuffleAttention(DIRECTIONS * inner, DIRECTIONS, conv_groups=inner)

    @torch.no_grad()
    def _draw(self) -> None:
        """Steps start log-uniform in STEP_RANGE, states decay with rates 1, 2, …, N."""
        nn.init.uniform_(self.x_proj_weight, -(self.inner**-0.5), self.inner**-0.5)
        spread = self.dt_projs_weight.shape[2] ** -0.5
        nn.init.uniform_(self.dt_projs_weight, -spread, spread)
        low, high = map(math.log, STEP_RANGE)
        step = torch.rand_like(self.dt_projs_bias).mul_(high - low).add_(low).exp_()
        step = step.clamp_(min=SMALLEST_STEP)
        self.dt_projs_bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus, inverted
        rates = torch.arange(1, self.A_logs.shape[1] + 1, dtype=self.A_logs.dtype)
        self.A_logs.copy_(rates.log().expand_as(self.A_logs))

    def forward(self, x: Tensor, size: Size, order: Tensor) -> Tensor:
        # two products with the halves of the weight: cutting their product in two would copy it
        into_scan, into_gate = self.in_proj.weight.split(self.inner)
        u = to_tokens(F.silu(self.conv2d(to_map(F.linear(x, into_scan), size))))
        # projecting commutes with permuting, so one product serves all directions
        projected = F.linear(u, self.x_proj_weight.flatten(0, 1)).unflatten(2, (DIRECTIONS, -1))
        scanned = self._scanned(u, projected, F.linear(x, into_gate), order)
        return self.out_proj(scanned.to(u.dtype))

    def _scanned(self, u: Tensor, projected: Tensor, z: Tensor, order: Tensor) -> Tensor:
        """u, z: `(B, L, D)`, projected: `(B, L, K, R + 2N)` -> `(B, L, D)`.

        A long recurrence in half precision loses its digits: it runs in float32 at least.
        """
        exact = torch.promote_types(u.dtype, torch.float32)
        u, projected, z = u.to(exact), projected.to(exact), z.to(exact)
        with torch.autocast(autocast_device(u), enabled=False):
            y, mean = map_scan(
                u,
                projected,
                order,
                self.dt_projs_weight.to(exact),
                self.dt_projs_bias.to(exact),
                -self.A_logs.to(exact).exp().unflatten(0, (DIRECTIONS, -1)),
                self.Ds.to(exact).unflatten(0, (DIRECTIONS, -1)),
            )
            weight, bias = self.out_norm.weight.to(exact), self.out_norm.bias.to(exact)
            gate = self.gating.gate(mean)
            return merge_directions(y, gate, z, weight, bias, self.out_norm.eps)


class Mlp(nn.Module):
    """Two linear layers around a GELU; `x: (B, L, C)` -> same."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, int(width * ratio))
        self.fc2 = nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ResidualMambaBlock(nn.Module):
    """VMM and MLP, each normalised before and with a learnt weight on its shortcut (RMB).

    Tokens `(B, L, C)` of a map of `size` -> same. `drop_path`: the rate at which an image's VMM
    branch is left out in training. `mlp`: the name of the MLP in the state dict.
    """

    def __init__(
        self,
        width: int,
        states: int,
        ssm_ratio: float,
        mlp_ratio: float,
        *,
        drop_path: float = 0.0,
        mlp: str = "conv_blk",
    ) -> None:
        super().__init__()
        self._drops, self._mlp = drop_path > 0, mlp
        # a tensor, so that blocks of other rates run the same compiled code
        self.kept_share: Tensor
        self.register_buffer("kept_share", torch.tensor(1 - drop_path), persistent=False)
        self.skip_scale = nn.Parameter(torch.ones(width))
        self.skip_scale2 = nn.Parameter(torch.ones(width))
        self.ln_1 = nn.LayerNorm(width)
        self.self_attention = VisionMamba(width, states, ssm_ratio)
        self.add_module(mlp, Mlp(width, mlp_ratio))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, size: Size, order: Tensor) -> Tensor:
        branch = self.self_attention(self.ln_1(x), size, order)
        if self.training and self._drops:
            branch = _with_dropped_images(branch, self.kept_share)
        x = x * self.skip_scale + branch
        return x * self.skip_scale2 + self.get_submodule(self._mlp)(self.ln_2(x))


def _with_dropped_images(branch: Tensor, kept_share: Tensor) -> Tensor:
    """`branch: (B, L, C)`: some images' are 0, the others grow so that the mean stays."""
    kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) < kept_share
    return branch * (kept / kept_share).to(branch.dtype)


def run_blocks(
    blocks: Iterable[nn.Module], x: Tensor, size: Size, orders: tuple[Tensor, ...], recompute: bool
) -> Tensor:
    """Tokens `(B, L, C)` through `blocks`, which take `orders` in turn.

    With `recompute`, a block's inner features are thrown away and made again in the backward pass.
    """
    for index, block in enumerate(blocks):
        order = orders[index % len(orders)]
        if recompute and torch.is_grad_enabled():
            x = cast(Tensor, checkpoint(block, x, size, order, use_reentrant=False))
        else:
            x = block(x, size, order)
    return x
