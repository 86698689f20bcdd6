"""Floor 2. Backend `reference`: the definition's values, and its gradients by autograd.

`torch.func.vjp` differentiates also inside a custom op, where plain autograd is switched off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from restore.ops.selective_scan import reference
from restore.ops.selective_scan.backend import MapGrads, MergeGrads, ScanGrads


def unavailable() -> str | None:
    """Why this backend cannot be used: it always can."""
    return None


class ReferenceBackend:
    """The truth as a backend (see `backend.Backend`)."""

    def scan(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        delta_bias: Tensor | None,
        softplus: bool,
    ) -> Tensor:
        return reference.selective_scan(u, delta, A, B, C, D, delta_bias, softplus)

    def scan_grads(
        self,
        dy: Tensor,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        delta_bias: Tensor | None,
        softplus: bool,
    ) -> ScanGrads:
        optional = [t for t in (D, delta_bias) if t is not None]

        def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Tensor) -> Any:
            given = iter(rest)
            skip = None if D is None else next(given)
            bias = None if delta_bias is None else next(given)
            return reference.selective_scan(u, delta, A, B, C, skip, bias, softplus)

        du, ddelta, dA, dB, dC, *rest = _gradients(scan, dy, u, delta, A, B, C, *optional)
        found = iter(rest)
        dD = None if D is None else next(found)
        return du, ddelta, dA, dB, dC, dD, None if delta_bias is None else next(found)

    def map_scan(
        self,
        x: Tensor,
        projected: Tensor,
        order: Tensor,
        step_weight: Tensor,
        step_bias: Tensor,
        A: Tensor,
        D: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return reference.map_scan(x, projected, order, step_weight, step_bias, A, D)

    def map_scan_grads(
        self,
        dy: Tensor,
        dmean: Tensor,
        x: Tensor,
        projected: Tensor,
        order: Tensor,
        step_weight: Tensor,
        step_bias: Tensor,
        A: Tensor,
        D: Tensor,
    ) -> MapGrads:
        def scan(x: Tensor, projected: Tensor, *rest: Tensor) -> Any:
            return reference.map_scan(x, projected, order, *rest)

        return _gradients(scan, (dy, dmean), x, projected, step_weight, step_bias, A, D)

    def merge(
        self, y: Tensor, gate: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        return reference.merge_directions(y, gate, z, weight, bias, eps)

    def merge_grads(
        self,
        dout: Tensor,
        y: Tensor,
        gate: Tensor,
        z: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> MergeGrads:
        def merge(*tensors: Tensor) -> Any:
            return reference.merge_directions(*tensors, eps=eps)

        return _gradients(merge, dout, y, gate, z, weight, bias)


def _gradients(function: Callable[..., Any], cotangent: Any, *inputs: Tensor) -> Any:
    """The gradient of each input, as autograd finds it."""
    return torch.func.vjp(function, *inputs)[1](cotangent)


BACKEND = ReferenceBackend()
