"""Floor 2. The selective scan as its definition reads: one loop over the steps, the truth.

B batch, E channels, G groups of E / G channels, L steps, N states, K directions, R step rank.
Everything is differentiated by autograd and computed in the inputs' own precision.
Source: Mamba (arXiv 2312.00752), section 3; MaIR (arXiv 2412.20066), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    softplus: bool,
) -> Tensor:
    """y (B, E, L) of u, delta (B, E, L), A (E, N), B and C (B, G, N, L), D and delta_bias (E)."""
    channels_of_a_group = u.shape[1] // B.shape[1]
    step = delta if delta_bias is None else delta + delta_bias[:, None]
    step = F.softplus(step) if softplus else step
    of_channel_B = B.repeat_interleave(channels_of_a_group, dim=1)  # (B, E, N, L)
    of_channel_C = C.repeat_interleave(channels_of_a_group, dim=1)
    state = u.new_zeros(u.shape[0], u.shape[1], A.shape[1])
    outputs: list[Tensor] = []
    by_step = (step.unbind(2), u.unbind(2), of_channel_B.unbind(3), of_channel_C.unbind(3))
    for step_t, u_t, B_t, C_t in zip(*by_step, strict=True):
        kept = torch.exp(step_t[:, :, None] * A)
        state = kept * state + (step_t * u_t)[:, :, None] * B_t
        outputs.append((state * C_t).sum(2))
    y = torch.stack(outputs, dim=2)
    return y if D is None else y + D[:, None] * u


def map_scan(
    x: Tensor,
    projected: Tensor,
    order: Tensor,
    step_weight: Tensor,
    step_bias: Tensor,
    A: Tensor,
    D: Tensor,
) -> tuple[Tensor, Tensor]:
    """The scan along K paths over one map; see `restore.ops.selective_scan.map_scan`."""
    directions, channels, states = A.shape
    rank = step_weight.shape[2]
    batch, pixels, _ = x.shape
    u = torch.stack([x[:, path] for path in order], dim=1)  # (B, K, L, E)
    rows = torch.stack([projected[:, path, k] for k, path in enumerate(order)], dim=1)
    low_rank, inputs, outputs = rows.split([rank, states, states], dim=3)
    delta = torch.einsum("bklr,ker->bkle", low_rank, step_weight)
    y = selective_scan(
        u.transpose(2, 3).reshape(batch, directions * channels, pixels),
        delta.transpose(2, 3).reshape(batch, directions * channels, pixels),
        A.flatten(0, 1),
        inputs.transpose(2, 3),
        outputs.transpose(2, 3),
        D.flatten(),
        step_bias.flatten(),
        True,
    ).unflatten(1, (directions, channels))
    back = torch.argsort(order, dim=1)
    at_pixels = torch.stack([y[:, k][:, :, path] for k, path in enumerate(back)], dim=1)
    return at_pixels.permute(0, 3, 1, 2), at_pixels.mean(3)


def merge_directions(
    y: Tensor, gate: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """LayerNorm of the gated sum over directions, times SiLU(z): (B, L, E)."""
    total = (y * gate[:, None]).sum(2)
    return F.layer_norm(total, total.shape[2:], weight, bias, eps) * F.silu(z)
