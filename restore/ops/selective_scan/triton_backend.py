"""Floor 2. The selective scan by Triton kernels, for NVIDIA GPUs; made with Hopper in mind.

A sequence is cut into segments, as many as fill the multiprocessors: each segment's end state from
zero, then what each starts from, then the outputs; with one segment the first two fall away.
Backward, the first pass also leaves the state before each tile, from which the last pass forms all
states of the tile again. All in float32, sums always in the same order. `TRITON_INTERPRET=1` runs
the kernels without a GPU, for tests. `benchmarks/scan_gpu.py` counts the bytes that move.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from restore.catalog import locate
from restore.ops.selective_scan.backend import (
    MapGrads,
    MapInputs,
    MergeGrads,
    MergeInputs,
    ScanGrads,
    ScanInputs,
)
from restore.ops.selective_scan.triton_problem import (
    CHANNELS,
    STEPS,
    Problem,
    as_rows,
    as_sequences,
    map_problem,
    plain_problem,
    segmentation,
)

WARPS_WANTED = 8
"""Programs for each multiprocessor."""
SEGMENT_TILES = 4
"""The least that makes a segment worth its start and its end state."""
SEGMENTS_AT_ONCE = 16
MERGED_ELEMENTS = 2048
"""Of a program of the merge."""


def unavailable() -> str | None:
    """Why this backend cannot be used here, and the way out; None when it can."""
    if find_spec("triton") is None:
        return "triton is not installed; pip install triton"
    if os.environ.get("TRITON_INTERPRET") != "1" and not torch.cuda.is_available():
        return "torch sees no CUDA device; use a machine and a torch build with one"
    return None


def _kernel(name: str) -> Any:
    """A kernel `module.name` of this folder, imported when first asked for: triton is optional."""
    module, _, function = name.partition(".")
    return locate(f"restore.ops.selective_scan.{module}:{function}")


@dataclass(frozen=True)
class TritonBackend:
    """`backend.Backend`; `programs` is how many should run at once, None: as the device likes."""

    programs: int | None = None
    segment_tiles: int = SEGMENT_TILES

    def scan(self, inputs: ScanInputs) -> Tensor:
        y, _ = self._forward(plain_problem(inputs))
        return as_sequences(y)

    def scan_grads(self, dy: Tensor, inputs: ScanInputs) -> ScanGrads:
        problem = plain_problem(inputs)
        batch, _, groups, channels, states, _ = problem.sizes
        found = self._backward(problem, as_rows(dy, groups), dy.new_zeros(batch, groups, channels))
        dB, dC = found.projected.permute(0, 2, 3, 1).split(states, dim=2)
        return (
            as_sequences(found.u),
            as_sequences(found.delta),
            found.a.transpose(1, 2).flatten(0, 1),
            dB.contiguous(),
            dC.contiguous(),
            None if inputs.D is None else found.d.flatten(),
            None if inputs.delta_bias is None else found.bias.flatten(),
        )

    def map_scan(self, inputs: MapInputs) -> tuple[Tensor, Tensor]:
        y, total = self._forward(map_problem(inputs))
        return y, total / y.shape[1]

    def map_scan_grads(self, dy: Tensor, dmean: Tensor, inputs: MapInputs) -> MapGrads:
        found = self._backward(map_problem(inputs), dy.contiguous(), dmean / dy.shape[1])
        return (
            found.u.sum(2),
            found.projected,
            found.weight.transpose(1, 2).contiguous(),
            found.bias,
            found.a.transpose(1, 2).contiguous(),
            found.d,
        )

    def merge(self, inputs: MergeInputs) -> Tensor:
        y, gate, z, weight, bias, eps = inputs
        batch, pixels, directions, channels = y.shape
        out = torch.empty_like(z)
        rows, width = merge_tile(channels)
        with torch.cuda.device_of(y):
            _kernel("triton_kernels_merge.merge_kernel")[(batch * -(-pixels // rows),)](
                y, gate, z, weight, bias, out, pixels, directions, eps, E=channels,
                ROWS=rows, BE=width, num_warps=4,
            )  # fmt: skip
        return out

    def merge_grads(self, dout: Tensor, inputs: MergeInputs) -> MergeGrads:
        y, gate, z, weight, bias, eps = inputs
        batch, pixels, directions, channels = y.shape
        rows, width = merge_tile(channels)
        parts = max(1, min(-(-pixels // rows), self.wanted(y.device) // 2 // batch))
        dy, dz = torch.empty_like(y), torch.empty_like(z)
        dgate = y.new_zeros(batch, parts, directions, channels)
        dweight, dbias = (y.new_empty(batch, parts, channels) for _ in range(2))
        with torch.cuda.device_of(y):
            _kernel("triton_kernels_merge.merge_gradient_kernel")[(batch * parts,)](
                dout, y, gate, z, weight, bias, dy, dgate, dz, dweight, dbias,
                pixels, directions, eps, parts, E=channels, ROWS=rows, BE=width, num_warps=4,
            )  # fmt: skip
        return dy, dgate.sum(1), dz, dweight.sum((0, 1)), dbias.sum((0, 1))

    def wanted(self, device: torch.device) -> int:
        """How many programs of one warp should run at once."""
        if self.programs is not None or device.type != "cuda":
            return self.programs or 1
        return WARPS_WANTED * torch.cuda.get_device_properties(device).multi_processor_count

    def _cut(self, problem: Problem) -> tuple[int, int]:
        """Segments of a sequence, and tiles of a segment (of all but the last)."""
        batch, steps, directions, *_ = problem.sizes
        chains = batch * directions * problem.blocks
        wanted = self.wanted(problem.u.device)
        return segmentation(-(-steps // STEPS), chains, wanted, self.segment_tiles)

    def _forward(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """y (B, L, K, E), and its sum over the steps (B, K, E)."""
        batch, steps, directions, channels, states, _ = problem.sizes
        segments, tiles = self._cut(problem)
        cut = (batch, segments, directions)
        state = problem.new(*cut, states, channels)
        with torch.cuda.device_of(problem.u):
            if segments > 1:
                time = problem.new(*cut, channels)
                _scan(problem, segments, tiles, state, from_zero=True, time=time)
                state = _starts(problem, state, time)
            y = problem.new(batch, steps, directions, channels)
            total = problem.new(*cut, channels)
            _scan(problem, segments, tiles, state, from_zero=segments == 1, y=y, total=total)
        return y, total.sum(1)

    def _backward(self, problem: Problem, dy: Tensor, dmean: Tensor) -> _Gradients:
        """All gradients, of dy (B, L, K, E) and what each pixel has besides, dmean (B, K, E)."""
        batch, steps, directions, channels, states, rank = problem.sizes
        segments, tiles = self._cut(problem)
        cut, in_all = (batch, segments, directions), -(-steps // STEPS)
        border = problem.new(batch, in_all, directions, states, channels)
        border_time = problem.new(batch, in_all, directions, channels)
        time = problem.new(*cut, channels)
        start, adjoint = (problem.new(*cut, states, channels) for _ in range(2))
        sizes = (steps, channels, directions, problem.blocks, segments, tiles)
        slices = _Gradients(
            u=torch.empty_like(dy),
            delta=dy if problem.delta is None else torch.empty_like(dy),
            projected=problem.new(problem.blocks, *problem.projected.shape),
            weight=problem.new(*cut, rank, channels),
            bias=problem.new(*cut, channels),
            a=problem.new(*cut, states, channels),
            d=problem.new(*cut, channels),
        )
        grid = (problem.blocks * directions * segments * batch,)
        with torch.cuda.device_of(problem.u):
            borders = (border, border_time)
            _scan(problem, segments, tiles, start, from_zero=True, time=time, borders=borders)
            if segments > 1:
                start = _starts(problem, start, time)
                _kernel("triton_kernels_backward.adjoint_kernel")[grid](
                    dy, dmean, *problem.inputs, problem.a, adjoint, *sizes, **problem.constants
                )
                adjoint = _starts(problem, adjoint, time, backwards=True)
            else:
                start.zero_()
                adjoint.zero_()
            _kernel("triton_kernels_backward.gradient_kernel")[grid](
                dy, dmean, problem.u, *problem.inputs, problem.a, problem.d,
                start, border, border_time, adjoint,
                slices.u, slices.delta, slices.projected, slices.weight, slices.bias,
                slices.a, slices.d, batch, *sizes, SHARED=problem.shared, **problem.constants,
            )  # fmt: skip
        return slices.summed()


@dataclass(frozen=True)
class _Gradients:
    """In the kernels' layouts; of each slice until `summed`."""

    u: Tensor
    delta: Tensor
    projected: Tensor
    weight: Tensor
    bias: Tensor
    a: Tensor
    d: Tensor

    def summed(self) -> _Gradients:
        """Over blocks of channels, or over batch and segments."""
        weight, bias, a, d = (t.sum((0, 1)) for t in (self.weight, self.bias, self.a, self.d))
        return _Gradients(self.u, self.delta, self.projected.sum(0), weight, bias, a, d)


def _scan(
    problem: Problem,
    segments: int,
    tiles: int,
    states: Tensor,
    *,
    from_zero: bool,
    time: Tensor | None = None,
    y: Tensor | None = None,
    total: Tensor | None = None,
    borders: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Advance `states`, writing what was asked for (see `scan_kernel`)."""
    batch, steps, directions, channels, *_ = problem.sizes
    written = [states if t is None else t for t in (time, y, total, *(borders or (None, None)))]
    _kernel("triton_kernels.scan_kernel")[(problem.blocks * directions * segments * batch,)](
        problem.u, *problem.inputs, problem.a, problem.d, states, *written,
        steps, channels, directions, problem.blocks, segments, tiles,
        SHARED=problem.shared, FROM_ZERO=from_zero, OUTPUT=y is not None,
        BORDERS=borders is not None, **problem.constants,
    )  # fmt: skip


def _starts(problem: Problem, end: Tensor, time: Tensor, backwards: bool = False) -> Tensor:
    """What each segment starts from, of what each ends with when started from zero."""
    batch, segments, directions, states, channels = end.shape
    start = torch.empty_like(end)
    _kernel("triton_kernels.start_kernel")[(problem.blocks * directions * states * batch,)](
        end, time, problem.a, start, channels, directions, problem.blocks, segments,
        STATES=states, BACKWARDS=backwards, ROWS=SEGMENTS_AT_ONCE, BE=CHANNELS, num_warps=1,
    )  # fmt: skip
    return start


def merge_tile(channels: int) -> tuple[int, int]:
    """Pixels of a program, and its width: the power of two that holds all channels."""
    width = 1 << (channels - 1).bit_length()
    return max(1, min(16, MERGED_ELEMENTS // width)), width


BACKEND = TritonBackend()
