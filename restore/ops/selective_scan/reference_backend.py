"""Floor 2. Backend `reference`: the definition's values, and its gradients by autograd.

`torch.func.vjp` differentiates also inside a custom op, where plain autograd is switched off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from restore.ops.selective_scan import reference
from restore.ops.selective_scan.backend import (
    MapGrads,
    MapInputs,
    MergeGrads,
    MergeInputs,
    ScanGrads,
    ScanInputs,
)


def unavailable() -> str | None:
    """Why this backend cannot be used: it always can."""
    return None


class ReferenceBackend:
    """The truth as a backend (see `backend.Backend`)."""

    def scan(self, inputs: ScanInputs) -> Tensor:
        return reference.selective_scan(*inputs)

    def scan_grads(self, dy: Tensor, inputs: ScanInputs) -> ScanGrads:
        given = {name: t for name, t in inputs._asdict().items() if isinstance(t, Tensor)}

        def scan(*tensors: Tensor) -> Tensor:
            replaced = dict(zip(given, tensors, strict=True))
            return reference.selective_scan(*inputs._replace(**replaced))

        found = dict(zip(given, _gradients(scan, dy, *given.values()), strict=True))
        return cast(ScanGrads, tuple(map(found.get, inputs._fields[:-1])))

    def map_scan(self, inputs: MapInputs) -> tuple[Tensor, Tensor]:
        return reference.map_scan(*inputs)

    def map_scan_grads(self, dy: Tensor, dmean: Tensor, inputs: MapInputs) -> MapGrads:
        x, projected, order, *weights = inputs

        def scan(x: Tensor, projected: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
            return reference.map_scan(x, projected, order, *weights)

        return _gradients(scan, (dy, dmean), x, projected, *weights)

    def merge(self, inputs: MergeInputs) -> Tensor:
        return reference.merge_directions(*inputs)

    def merge_grads(self, dout: Tensor, inputs: MergeInputs) -> MergeGrads:
        *tensors, eps = inputs

        def merge(*tensors: Tensor) -> Tensor:
            return reference.merge_directions(*tensors, eps=eps)

        return _gradients(merge, dout, *tensors)


def _gradients(function: Callable[..., Any], cotangent: Any, *inputs: Tensor) -> Any:
    """The gradient of each input, as autograd finds it."""
    return torch.func.vjp(function, *inputs)[1](cotangent)


BACKEND = ReferenceBackend()
