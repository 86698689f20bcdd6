"""Floor 2. The scan over a map and the merge of its directions, for backends that only scan.

Pixels are gathered and put back as whole rows of channels (`index_select` along the pixels),
which is an order of magnitude faster than permuting the last axis.
B batch, L pixels, K directions, E channels, R rank, N states, P = R + 2N.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.ops.selective_scan.backend import (
    MapGrads,
    MapInputs,
    MergeGrads,
    MergeInputs,
    ScanGrads,
    ScanInputs,
)


class Composed:
    """A whole backend (see `backend.Backend`) made of a scan and its gradients."""

    def __init__(
        self,
        scan: Callable[[ScanInputs], Tensor],
        scan_grads: Callable[[Tensor, ScanInputs], ScanGrads],
    ) -> None:
        self.scan = scan
        self.scan_grads = scan_grads

    def map_scan(self, inputs: MapInputs) -> tuple[Tensor, Tensor]:
        paths = _Paths(inputs.order)
        sequences, _ = _sequences(inputs, paths)
        y = self.scan(sequences).unflatten(1, inputs.A.shape[:2])  # (B, K, E, L)
        return paths.to_pixels(y.transpose(2, 3)), y.mean(3)

    def map_scan_grads(self, dy: Tensor, dmean: Tensor, inputs: MapInputs) -> MapGrads:
        _, _, order, step_weight, step_bias, A, D = inputs
        paths = _Paths(order)
        sequences, low_rank = _sequences(inputs, paths)
        at_steps = paths.from_pixels(dy).add_(dmean.unsqueeze(2), alpha=1 / dy.shape[1])
        at_steps = at_steps.transpose(2, 3).flatten(1, 2)
        du, ddelta, dA, dB, dC, dD, dbias = self.scan_grads(at_steps, sequences)
        assert dD is not None and dbias is not None
        ddelta = ddelta.unflatten(1, A.shape[:2])  # (B, K, E, L)
        dlow_rank = torch.matmul(ddelta.transpose(2, 3), step_weight)
        drows = torch.cat([dlow_rank, dB.transpose(2, 3), dC.transpose(2, 3)], dim=3)
        du = du.unflatten(1, A.shape[:2]).transpose(2, 3)
        return (
            paths.to_pixels(du).sum(2),
            paths.to_pixels(drows),
            torch.matmul(ddelta, low_rank).sum(0),
            dbias.view(step_bias.shape),
            dA.view(A.shape),
            dD.view(D.shape),
        )

    def merge(self, inputs: MergeInputs) -> Tensor:
        y, gate, z, weight, bias, eps = inputs
        total = _gated_sum(y, gate)
        return F.layer_norm(total, total.shape[2:], weight, bias, eps).mul_(F.silu(z))

    def merge_grads(self, dout: Tensor, inputs: MergeInputs) -> MergeGrads:
        y, gate, z, weight, bias, eps = inputs
        total = _gated_sum(y, gate)
        variance, mean = torch.var_mean(total, dim=2, correction=0, keepdim=True)
        scale = torch.rsqrt(variance + eps)
        unit = (total - mean).mul_(scale)
        sigmoid = torch.sigmoid(z)
        dz = dout * (unit * weight + bias) * sigmoid * (1 + z * (1 - sigmoid))
        dnormed = dout * (z * sigmoid)
        dunit = dnormed * weight
        along_unit = (dunit * unit).mean(2, keepdim=True)
        dtotal = (dunit - dunit.mean(2, keepdim=True) - unit * along_unit).mul_(scale)
        return (
            dtotal.unsqueeze(2) * gate.unsqueeze(1),
            torch.stack([(dtotal * y[:, :, k]).sum(1) for k in range(y.shape[2])], dim=1),
            dz,
            (dnormed * unit).sum((0, 1)),
            dnormed.sum((0, 1)),
        )


class _Paths:
    """Rows (B, L, K, F) at pixels to rows (B, K, L, F) in the order of each path, and back."""

    def __init__(self, order: Tensor) -> None:
        directions, pixels = order.shape
        number = torch.arange(directions, device=order.device)[:, None]
        steps = torch.arange(pixels, device=order.device).expand_as(order)
        step_of_pixel = torch.empty_like(order).scatter_(1, order, steps)
        self.shape = (directions, pixels)
        self.pixels = order.flatten()
        self.sources = (order * directions + number).flatten()  # rows of (L, K)
        self.targets = (step_of_pixel + number * pixels).T.flatten()  # rows of (K, L)

    def of_map(self, x: Tensor) -> Tensor:
        """(B, L, E), read once per direction: (B, K, L, E)."""
        return x.index_select(1, self.pixels).unflatten(1, self.shape)

    def from_pixels(self, rows: Tensor) -> Tensor:
        """(B, L, K, F) to (B, K, L, F)."""
        return rows.flatten(1, 2).index_select(1, self.sources).unflatten(1, self.shape)

    def to_pixels(self, rows: Tensor) -> Tensor:
        """(B, K, L, F) to (B, L, K, F)."""
        at_pixels = rows.flatten(1, 2).index_select(1, self.targets)
        return at_pixels.unflatten(1, self.shape[::-1])


def _sequences(inputs: MapInputs, paths: _Paths) -> tuple[ScanInputs, Tensor]:
    """The plain scan of K · E channels in K groups, and the low-rank step (B, K, L, R)."""
    x, projected, _, step_weight, step_bias, A, D = inputs
    states = A.shape[2]
    rows = paths.from_pixels(projected)
    low_rank, of_B, of_C = rows.split([step_weight.shape[2], states, states], dim=3)
    delta = torch.matmul(step_weight, low_rank.transpose(2, 3))  # (B, K, E, L)
    u = paths.of_map(x).transpose(2, 3).flatten(1, 2)
    B, C = of_B.transpose(2, 3).contiguous(), of_C.transpose(2, 3).contiguous()  # (B, K, N, L)
    weights = (A.flatten(0, 1), B, C, D.flatten(), step_bias.flatten())
    return ScanInputs(u, delta.flatten(1, 2), *weights, softplus=True), low_rank


def _gated_sum(y: Tensor, gate: Tensor) -> Tensor:
    """Σ_k gate[k] · y[k]: (B, L, E)."""
    total = y[:, :, 0] * gate[:, None, 0]
    for k in range(1, y.shape[2]):
        total.addcmul_(y[:, :, k], gate[:, None, k])
    return total
