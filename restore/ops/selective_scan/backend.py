"""Floor 2. What a backend of the selective scan offers: values and gradients of three operations.

All tensors arrive checked, contiguous and in agreeing precision (float32, or float64 where the
backend takes it), without autograd and outside autocast; shapes are those of the public functions
in `dispatch`. Gradients come back as new tensors in the order of the inputs, recomputed from them:
nothing but the inputs is kept between forward and backward.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class ScanInputs(NamedTuple):
    """What `dispatch.selective_scan` takes."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    delta_bias: Tensor | None
    softplus: bool


class MapInputs(NamedTuple):
    """What `dispatch.map_scan` takes."""

    x: Tensor
    projected: Tensor
    order: Tensor
    step_weight: Tensor
    step_bias: Tensor
    A: Tensor
    D: Tensor


class MergeInputs(NamedTuple):
    """What `dispatch.merge_directions` takes."""

    y: Tensor
    gate: Tensor
    z: Tensor
    weight: Tensor
    bias: Tensor
    eps: float


ScanGrads = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]
"""Of u, delta, A, B, C, D, delta_bias; None for an absent input."""
MapGrads = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Of x, projected, step_weight, step_bias, A, D."""
MergeGrads = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Of y, gate, z, weight, bias."""


class Backend(Protocol):
    """One way to compute the scan."""

    def scan(self, inputs: ScanInputs) -> Tensor: ...

    def scan_grads(self, dy: Tensor, inputs: ScanInputs) -> ScanGrads: ...

    def map_scan(self, inputs: MapInputs) -> tuple[Tensor, Tensor]: ...

    def map_scan_grads(self, dy: Tensor, dmean: Tensor, inputs: MapInputs) -> MapGrads: ...

    def merge(self, inputs: MergeInputs) -> Tensor: ...

    def merge_grads(self, dout: Tensor, inputs: MergeInputs) -> MergeGrads: ...
