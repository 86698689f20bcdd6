"""Floor 2. The scan's operations as torch custom ops: seen whole by autograd, compile and export.

Each takes the backend's name, "auto" included: the choice falls when the op runs, so a traced
program runs on any device. An op computes in float32 (float64 if any input is float64) outside
autocast, keeps nothing but its inputs for the backward pass, and returns contiguous tensors; a
gradient has its input's precision. Second derivatives are not supported: torch refuses them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from restore.ops.selective_scan.backend import MapInputs, MergeInputs, ScanInputs
from restore.ops.selective_scan.choice import chosen


class _Work:
    """One call: its tensors in one precision, its backend, autocast off while it runs."""

    def __init__(self, backend: str, *tensors: Tensor | None) -> None:
        device = next(t.device for t in tensors if t is not None)
        self.tensors, self.dtype = tensors, _precision(*tensors)
        self.backend = chosen(backend, device, self.dtype)
        self.plain = torch.autocast(device.type, enabled=False)

    def __enter__(self) -> list[Any]:
        self.plain.__enter__()
        return [t if t is None else t.to(self.dtype).contiguous() for t in self.tensors]

    def __exit__(self, *problem: Any) -> None:
        self.plain.__exit__(*problem)


def _like(results: tuple[Tensor | None, ...], inputs: tuple[Tensor | None, ...]) -> Any:
    """Each gradient in its input's precision; an empty tensor for an absent input."""
    device = next(t.device for t in inputs if t is not None)
    return tuple(
        torch.empty(0, device=device)
        if result is None or given is None
        else result.to(given.dtype).contiguous()
        for result, given in zip(results, inputs, strict=True)
    )


def _fakes(*inputs: Tensor | None) -> Any:
    """What `_like` gives, without values."""
    device = next(t.device for t in inputs if t is not None)
    return tuple(
        torch.empty(0, device=device)
        if given is None
        else torch.empty(given.shape, dtype=given.dtype, device=device)
        for given in inputs
    )


def _precision(*tensors: Tensor | None) -> torch.dtype:
    """What a call computes in."""
    wide = any(t is not None and t.dtype == torch.float64 for t in tensors)
    return torch.float64 if wide else torch.float32


def _save(tensors: int) -> Any:
    """A `setup_context` that keeps the inputs: the first `tensors` as tensors, the others as is."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:tensors])
        ctx.settings = inputs[tensors:]

    return setup


# The scan -----------------------------------------------------------------------------------------

ScanResults = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("restore::selective_scan", mutates_args=())
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    softplus: bool,
    backend: str,
) -> Tensor:
    work = _Work(backend, u, delta, A, B, C, D, delta_bias)
    with work as tensors:
        return work.backend.scan(ScanInputs(*tensors, softplus=softplus)).to(u.dtype).contiguous()


@torch.library.custom_op("restore::selective_scan_backward", mutates_args=())
def selective_scan_backward(
    dy: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    softplus: bool,
    backend: str,
) -> ScanResults:
    inputs = (u, delta, A, B, C, D, delta_bias)
    work = _Work(backend, dy, *inputs)
    with work as (dy, *tensors):
        return _like(work.backend.scan_grads(dy, ScanInputs(*tensors, softplus=softplus)), inputs)


@selective_scan.register_fake
def _(u: Tensor, *_: Any) -> Tensor:
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


@selective_scan_backward.register_fake
def _(dy: Tensor, *inputs: Any) -> Any:
    return _fakes(*inputs[:7])


def _scan_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    grads = selective_scan_backward(dy, *ctx.saved_tensors, *ctx.settings)
    given = [g if t is not None else None for g, t in zip(grads, ctx.saved_tensors, strict=True)]
    return *given, None, None


selective_scan.register_autograd(_scan_backward, setup_context=_save(7))

# The scan over a map ------------------------------------------------------------------------------


@torch.library.custom_op("restore::map_scan", mutates_args=())
def map_scan(
    x: Tensor,
    projected: Tensor,
    order: Tensor,
    step_weight: Tensor,
    step_bias: Tensor,
    A: Tensor,
    D: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor]:
    work = _Work(backend, x, projected, step_weight, step_bias, A, D)
    with work as (x, projected, *weights):
        y, mean = work.backend.map_scan(MapInputs(x, projected, order.contiguous(), *weights))
        return y.contiguous(), mean.contiguous()


@torch.library.custom_op("restore::map_scan_backward", mutates_args=())
def map_scan_backward(
    dy: Tensor,
    dmean: Tensor,
    x: Tensor,
    projected: Tensor,
    order: Tensor,
    step_weight: Tensor,
    step_bias: Tensor,
    A: Tensor,
    D: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = (x, projected, step_weight, step_bias, A, D)
    work = _Work(backend, dy, dmean, *inputs)
    with work as (dy, dmean, x, projected, *weights):
        given = MapInputs(x, projected, order.contiguous(), *weights)
        return _like(work.backend.map_scan_grads(dy, dmean, given), inputs)


@map_scan.register_fake
def _(x: Tensor, projected: Tensor, order: Tensor, *rest: Any) -> Any:
    (batch, pixels, channels), directions = x.shape, order.shape[0]
    dtype = _precision(x, projected, *rest[:4])
    y = torch.empty((batch, pixels, directions, channels), dtype=dtype, device=x.device)
    return y, torch.empty((batch, directions, channels), dtype=dtype, device=x.device)


@map_scan_backward.register_fake
def _(dy: Tensor, dmean: Tensor, x: Tensor, projected: Tensor, order: Tensor, *rest: Any) -> Any:
    return _fakes(x, projected, *rest[:4])


def _map_backward(ctx: Any, dy: Tensor, dmean: Tensor) -> tuple[Tensor | None, ...]:
    dx, dprojected, *weights = map_scan_backward(dy, dmean, *ctx.saved_tensors, *ctx.settings)
    return dx, dprojected, None, *weights, None


map_scan.register_autograd(_map_backward, setup_context=_save(7))

# The merge of the directions ----------------------------------------------------------------------


@torch.library.custom_op("restore::merge_directions", mutates_args=())
def merge_directions(
    y: Tensor, gate: Tensor, z: Tensor, weight: Tensor, bias: Tensor, eps: float, backend: str
) -> Tensor:
    work = _Work(backend, y, gate, z, weight, bias)
    with work as tensors:
        return work.backend.merge(MergeInputs(*tensors, eps=eps)).to(z.dtype).contiguous()


@torch.library.custom_op("restore::merge_directions_backward", mutates_args=())
def merge_directions_backward(
    dout: Tensor,
    y: Tensor,
    gate: Tensor,
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = (y, gate, z, weight, bias)
    work = _Work(backend, dout, *inputs)
    with work as (dout, *tensors):
        return _like(work.backend.merge_grads(dout, MergeInputs(*tensors, eps=eps)), inputs)


@merge_directions.register_fake
def _(y: Tensor, gate: Tensor, z: Tensor, *_: Any) -> Tensor:
    return torch.empty(z.shape, dtype=z.dtype, device=z.device)


@merge_directions_backward.register_fake
def _(dout: Tensor, *inputs: Any) -> Any:
    return _fakes(*inputs[:5])


def _merge_backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    return *merge_directions_backward(dout, *ctx.saved_tensors, *ctx.settings), None, None


merge_directions.register_autograd(_merge_backward, setup_context=_save(5))
