"""Floor 2. Backend "cpu": compiled kernels, several threads, float32.

One vector holds 16 (AVX-512) or 8 channels, the state stays in registers, time goes in tiles of 64
steps; the gradients recompute the states of a tile from the one before it, so that nothing of the
size steps × states is held. The sources are in `kernels/`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int, c_long, c_void_p
from functools import cache

import torch
from torch import Tensor

from restore.ops.selective_scan import cpu_build
from restore.ops.selective_scan.backend import (
    MapGrads,
    MapInputs,
    MergeGrads,
    MergeInputs,
    ScanGrads,
    ScanInputs,
)


@cache
def unavailable() -> str | None:
    """Why this machine has no such backend, with the remedy; None where it works."""
    try:
        cpu_build.library()
    except cpu_build.BuildError as error:
        return f"{error}; {cpu_build.REMEDY}"
    return None


class _CpuBackend:
    """Float32 tensors on the CPU, values and gradients by compiled kernels."""

    def scan(self, inputs: ScanInputs) -> Tensor:
        *tensors, softplus = inputs
        y = torch.empty_like(inputs.u, memory_format=torch.contiguous_format)
        shape = _scan_shape(inputs)
        parts = _parts(2, shape[0] * shape[1], shape[2])
        _call("scan_forward", shape, tensors, (y,), parts=parts, softplus=softplus)
        return y

    def scan_grads(self, dy: Tensor, inputs: ScanInputs) -> ScanGrads:
        u, _, A, B, C, D, delta_bias, softplus = inputs
        shape = batch, groups, channels, _, _ = _scan_shape(inputs)
        parts = _parts(1, batch * groups, channels)
        du, ddelta = u.new_empty(u.shape), u.new_empty(u.shape)
        dA = u.new_empty(batch, *A.shape)
        dB, dC = u.new_empty(parts, *B.shape), u.new_empty(parts, *C.shape)
        dD, dbias = u.new_empty(batch, u.shape[1]), u.new_empty(batch, u.shape[1])
        tensors, outputs = (dy, *inputs[:-1]), (du, ddelta, dA, dB, dC, dD, dbias)
        _call("scan_backward", shape, tensors, outputs, parts=parts, softplus=softplus)
        of_D = None if D is None else dD.sum(0)
        of_bias = None if delta_bias is None else dbias.sum(0)
        return du, ddelta, dA.sum(0), dB.sum(0), dC.sum(0), of_D, of_bias

    def map_scan(self, inputs: MapInputs) -> tuple[Tensor, Tensor]:
        _check_order(inputs.order)
        shape = batch, pixels, channels, directions, _, _ = _map_shape(inputs)
        y = inputs.x.new_empty(batch, pixels, directions, channels)
        mean = inputs.x.new_empty(batch, directions, channels)
        parts = _parts(2, batch * directions, channels)
        _call("map_scan_forward", shape, inputs, (y, mean), parts=parts)
        return y, mean

    def map_scan_grads(self, dy: Tensor, dmean: Tensor, inputs: MapInputs) -> MapGrads:
        x, projected, order, *weights = inputs
        _check_order(order)
        shape = batch, _, channels, _, _, _ = _map_shape(inputs)
        parts = _parts(1, batch, channels)
        dx, dprojected = x.new_empty(x.shape), x.new_empty(parts, *projected.shape)
        of_batch = [x.new_empty(batch, *t.shape) for t in weights]
        tensors, outputs = (dy, dmean, *inputs), (dx, dprojected, *of_batch)
        _call("map_scan_backward", shape, tensors, outputs, parts=parts)
        dweight, dbias, dA, dD = (t.sum(0) for t in of_batch)
        return dx, dprojected.sum(0), dweight, dbias, dA, dD

    def merge(self, inputs: MergeInputs) -> Tensor:
        *tensors, eps = inputs
        out = torch.empty_like(inputs.z, memory_format=torch.contiguous_format)
        _call("merge_forward", tuple(inputs.y.shape), tensors, (out,), eps=eps)
        return out

    def merge_grads(self, dout: Tensor, inputs: MergeInputs) -> MergeGrads:
        y, gate, z, weight, bias, eps = inputs
        parts = min(torch.get_num_threads(), max(1, y.shape[1]))
        dy, dz = y.new_empty(y.shape), z.new_empty(z.shape)
        dgate, dweight, dbias = (y.new_empty(parts, *t.shape) for t in (gate, weight, bias))
        tensors, outputs = (dout, *inputs[:-1]), (dy, dgate, dz, dweight, dbias)
        _call("merge_backward", tuple(y.shape), tensors, outputs, parts=parts, eps=eps)
        return dy, dgate.sum(0), dz, dweight.sum(0), dbias.sum(0)


BACKEND = _CpuBackend()


def _scan_shape(inputs: ScanInputs) -> tuple[int, ...]:
    """Batch, groups, channels of a group, steps, states."""
    (batch, channels, steps), groups = inputs.u.shape, inputs.B.shape[1]
    return batch, groups, channels // groups, steps, inputs.A.shape[1]


def _map_shape(inputs: MapInputs) -> tuple[int, ...]:
    """Batch, pixels, channels, directions, rank, states."""
    directions, _, states = inputs.A.shape
    return *inputs.x.shape, directions, inputs.step_weight.shape[2], states


def _check_order(order: Tensor) -> None:
    """The kernels read at these places without looking."""
    if order.numel() and not 0 <= int(order.min()) <= int(order.max()) < order.shape[1]:
        raise IndexError(f"order names pixels outside 0 … {order.shape[1] - 1}")


def _parts(per_thread: int, independent: int, channels: int) -> int:
    """Pieces to cut the channels into, so that every thread finds work."""
    threads = torch.get_num_threads()
    blocks = -(-channels // cpu_build.library().scan_lanes())
    wanted = 1 if threads == 1 else -(-per_thread * threads // max(1, independent))
    return max(1, min(blocks, wanted))


def _call(
    name: str,
    shape: tuple[int, ...],
    inputs: Sequence[Tensor | None],
    outputs: Sequence[Tensor],
    *,
    parts: int | None = None,
    eps: float | None = None,
    softplus: bool | None = None,
) -> None:
    """Call a kernel: threads, then parts, shape, eps, inputs, softplus, outputs, as it has them."""
    kept = [None if t is None else t.contiguous() for t in inputs]
    getattr(cpu_build.library(), name)(
        c_int(torch.get_num_threads()),
        *([] if parts is None else [c_long(parts)]),
        *map(c_long, shape),
        *([] if eps is None else [c_float(eps)]),
        *map(_pointer, kept),
        *([] if softplus is None else [c_int(softplus)]),
        *map(_pointer, outputs),
    )


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return c_void_p(None if tensor is None else tensor.data_ptr())
