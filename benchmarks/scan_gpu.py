"""The selective scan on a GPU: Triton kernels against mamba_ssm and against the unfused path.

  python benchmarks/scan_gpu.py [--no-record]

Shapes are MaIR's on one picture. Equality comes first. The bytes are counted from the shapes, not
measured: each tensor once for each kernel that reads or writes it, and once only where programs of
one kernel share it (B and C rows, x by its directions), as the L2 cache serves the others.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.ops.selective_scan import triton_backend
from restore.ops.selective_scan.backend import MapInputs, MergeInputs, ScanInputs
from restore.ops.selective_scan.triton_backend import BACKEND, SEGMENT_TILES
from restore.ops.selective_scan.triton_problem import CHANNELS, STEPS, segmentation
from restore.reports.tables import text_table

from common import command_line, gpu_milliseconds, need_gpu, record

OFFICIAL = 83
"""Units of B·L·E·4 bytes that the official path from x to the gated, normalised sum moves."""


class Shape(NamedTuple):
    """B batch, L pixels, K directions, E channels, N states, R rank of the step."""

    name: str
    B: int
    L: int
    K: int
    E: int
    N: int
    R: int


SHAPES = [
    Shape("classic 64×64", 1, 64 * 64, 4, 360, 16, 12),
    Shape("classic 64×64, batch 8", 8, 64 * 64, 4, 360, 16, 12),
    Shape("S light 320×180", 1, 320 * 180, 4, 84, 16, 4),
    Shape("T light 320×180", 1, 320 * 180, 4, 66, 1, 4),
]


# Bytes --------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """Bytes of one pass over each tensor that the kernels move."""

    x: int
    rows: int
    y: int
    states: int
    borders: int
    segments: int
    blocks: int


def parts(shape: Shape, programs: int) -> Parts:
    _, B, L, K, E, N, R = shape
    tiles, blocks = -(-L // STEPS), -(-E // CHANNELS)
    segments, _ = segmentation(tiles, B * K * blocks, programs, SEGMENT_TILES)
    return Parts(
        4 * B * L * E, 4 * B * L * K * (R + 2 * N), 4 * B * L * K * E,
        4 * B * segments * K * N * E, 4 * B * tiles * K * (N + 1) * E, segments, blocks,
    )  # fmt: skip


def map_forward(shape: Shape, programs: int) -> int:
    """States: end states written, read to make starts, these written and read again."""
    p = parts(shape, programs)
    passes = 2 if p.segments > 1 else 1
    return passes * (p.x + p.rows) + p.y + (4 if p.segments > 1 else 0) * p.states


def map_backward(shape: Shape, programs: int) -> int:
    """du by direction and its sum over directions, slices of the gradient of projected."""
    p = parts(shape, programs)
    cut = p.segments > 1
    return (
        2 * p.x + (3 if cut else 2) * p.rows + (2 if cut else 1) * p.y
        + 2 * p.y + p.x + (2 * p.blocks + 1) * p.rows + 2 * p.borders
        + (11 if cut else 6) * p.states
    )  # fmt: skip


def scan_forward(shape: Shape, programs: int) -> int:
    """As the map, with u and delta by direction, and the transposed copies of all."""
    p = parts(shape, programs)
    more = p.y - p.x  # u of each direction
    passes = 2 if p.segments > 1 else 1
    copies = 2 * (3 * p.y + 2 * p.rows)
    return map_forward(shape, programs) + passes * (more + p.y) + copies


def scan_backward(shape: Shape, programs: int) -> int:
    p = parts(shape, programs)
    delta = (4 if p.segments > 1 else 3) * p.y
    copies = 2 * (5 * p.y + 3 * p.rows)
    return map_backward(shape, programs) + 2 * (p.y - p.x) + delta - p.y - p.x + copies


def merge_forward(shape: Shape) -> int:
    p = parts(shape, 1)
    return p.y + 2 * p.x


def merge_backward(shape: Shape) -> int:
    p = parts(shape, 1)
    return 2 * p.y + 3 * p.x


def core(shape: Shape, programs: int) -> int:
    """Forward from x to the merged map: projection, scan, merge (the gate itself is tiny)."""
    p = parts(shape, programs)
    return p.x + p.rows + map_forward(shape, programs) + merge_forward(shape)


# Problems and the paths they are compared with ----------------------------------------------------


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda")


def map_inputs(shape: Shape) -> list[Tensor]:
    _, B, L, K, E, N, R = shape
    order = torch.stack([torch.randperm(L, device="cuda") for _ in range(K)])
    return [
        numbers(B, L, E), numbers(B, L, K, R + 2 * N), order, numbers(K, E, R) / R**0.5,
        numbers(K, E) - 3, -torch.rand(K, E, N, device="cuda") * N, numbers(K, E),
    ]  # fmt: skip


def merge_inputs(shape: Shape) -> list[Tensor]:
    _, B, L, K, E, *_ = shape
    gate = torch.rand(B, K, E, device="cuda")
    return [numbers(B, L, K, E), gate, numbers(B, L, E), numbers(E), numbers(E)]


def sequences(inputs: list[Tensor]) -> list[Tensor]:
    """u, delta, A, B, C, D, delta_bias of a map's inputs: gathers, products, copies."""
    x, projected, order, step_weight, step_bias, A, D = inputs
    K, E, N = A.shape
    R = step_weight.shape[2]
    u = torch.stack([x.index_select(1, path) for path in order], 1)  # (B, K, L, E)
    rows = torch.stack(
        [projected[:, :, k].index_select(1, path) for k, path in enumerate(order)], 1
    )
    step, B, C = rows.split([R, N, N], dim=3)
    delta = torch.einsum("bklr,ker->bkel", step, step_weight).flatten(1, 2)
    return [
        u.transpose(2, 3).flatten(1, 2), delta.contiguous(), A.flatten(0, 1),
        B.transpose(2, 3).contiguous(), C.transpose(2, 3).contiguous(),
        D.flatten(), step_bias.flatten(),
    ]  # fmt: skip


class Scan(torch.autograd.Function):
    """Our plain scan as a step of autograd, for the unfused path."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return BACKEND.scan(ScanInputs(*inputs, softplus=True))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        inputs = ScanInputs(*ctx.saved_tensors, softplus=True)
        return BACKEND.scan_grads(grad_outputs[0].contiguous(), inputs)


def unfused_map(inputs: list[Tensor], scan: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """`map_scan` by torch's own operations around a plain scan."""
    K, E, _ = inputs[5].shape
    y = scan(*sequences(inputs)).unflatten(1, (K, E))  # (B, K, E, L)
    back = inputs[2].argsort(dim=1)
    y = torch.stack([y[:, k].index_select(2, path) for k, path in enumerate(back)], 1)
    return y.permute(0, 3, 1, 2).contiguous(), y.mean(3)


def unfused_merge(inputs: list[Tensor]) -> Tensor:
    y, gate, z, weight, bias = inputs
    return F.layer_norm((y * gate[:, None]).sum(2), z.shape[2:], weight, bias, 1e-5) * F.silu(z)


def mamba() -> Callable[..., Tensor] | None:
    """mamba_ssm's scan with our arguments, or None where it is not installed."""
    if find_spec("mamba_ssm") is None:
        return None
    theirs = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn

    def run(*inputs: Tensor) -> Tensor:
        return theirs(*inputs[:6], delta_bias=inputs[6], delta_softplus=True)

    return run


def both(op: Callable[[list[Tensor]], Any], inputs: list[Tensor], given: list[Tensor]) -> list[Any]:
    """Outputs of a differentiable op, and gradients of its floating inputs."""
    leaves = [t.clone().requires_grad_() if t.is_floating_point() else t for t in inputs]
    outputs = op(leaves)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    return outputs + list(
        torch.autograd.grad(outputs, [t for t in leaves if t.requires_grad], given)
    )


def assert_equal(name: str, ours: list[Any], theirs: list[Any]) -> None:
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        error = float((a - b).norm() / b.norm())
        assert error < 1e-4, f"{name}, tensor {i}: the paths differ by {error:.1e}"


# Timing -------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One operation: ours, and by other ways; bytes of ours or 0."""

    name: str
    moved: int
    ways: dict[str, Callable[[], object]]


def operations(shape: Shape, programs: int) -> list[Row]:
    """Every operation on one shape, after comparing the ways."""
    theirs = mamba()
    on_map, on_merge = map_inputs(shape), merge_inputs(shape)
    plain = [t.contiguous() for t in sequences(on_map)]
    dy, dmean, dout = numbers(*on_merge[0].shape), numbers(*on_merge[1].shape), on_merge[2]
    dseq = numbers(*plain[0].shape)

    def ours(inputs: list[Tensor]) -> Tensor:
        return Scan.apply(*inputs)

    ways: dict[str, Callable[[list[Tensor]], Any]] = {"ours": ours}
    if theirs is not None:
        ways["mamba_ssm"] = lambda inputs: theirs(*inputs)
        assert_equal("scan", both(ours, plain, [dseq]), both(ways["mamba_ssm"], plain, [dseq]))
    around = theirs or Scan.apply
    of_map, of_merge = MapInputs(*on_map), MergeInputs(*on_merge, eps=1e-5)
    fused = [*BACKEND.map_scan(of_map), *BACKEND.map_scan_grads(dy, dmean, of_map)]
    assert_equal("map_scan", fused, both(lambda i: unfused_map(i, around), on_map, [dy, dmean]))
    merged = [BACKEND.merge(of_merge), *BACKEND.merge_grads(dout, of_merge)]
    assert_equal("merge", merged, both(unfused_merge, on_merge, [dout]))

    def fused_map() -> None:
        BACKEND.map_scan(of_map)
        BACKEND.map_scan_grads(dy, dmean, of_map)

    def fused_merge() -> None:
        BACKEND.merge(of_merge)
        BACKEND.merge_grads(dout, of_merge)

    there, back = scan_forward(shape, programs), scan_backward(shape, programs)
    on_the_map, off_the_map = map_forward(shape, programs), map_backward(shape, programs)
    return [
        Row("scan", there, {n: lambda w=w: w(plain) for n, w in ways.items()}),
        Row("scan, there and back", there + back,
            {n: lambda w=w: both(w, plain, [dseq]) for n, w in ways.items()}),
        Row("map_scan", on_the_map, {
            "ours": lambda: BACKEND.map_scan(of_map),
            "unfused": lambda: unfused_map(on_map, around)}),
        Row("map_scan, there and back", on_the_map + off_the_map, {
            "ours": fused_map,
            "unfused": lambda: both(lambda i: unfused_map(i, around), on_map, [dy, dmean])}),
        Row("merge", merge_forward(shape), {
            "ours": lambda: BACKEND.merge(of_merge),
            "unfused": lambda: unfused_merge(on_merge)}),
        Row("merge, there and back", merge_forward(shape) + merge_backward(shape), {
            "ours": fused_merge,
            "unfused": lambda: both(unfused_merge, on_merge, [dout])}),
    ]  # fmt: skip


def main() -> None:
    """Measure and record."""
    args, name = command_line(__doc__).parse_args(), need_gpu(triton_backend.unavailable())
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    programs = BACKEND.wanted(torch.device("cuda"))
    lines = []
    for shape in SHAPES:
        for row in operations(shape, programs):
            times = {name: gpu_milliseconds(run) for name, run in row.ways.items()}
            other = next((name for name in times if name != "ours"), None)
            lines.append([
                shape.name, row.name, f"{times['ours']:.3f}", f"{row.moved / 1e6:.0f}",
                f"{row.moved / times['ours'] / 1e6:.0f}",
                "" if other is None else f"{times[other]:.3f} {other}",
                "" if other is None else f"{times[other] / times['ours']:.2f} ×",
            ])  # fmt: skip
        share = core(shape, programs) / (4 * shape.B * shape.L * shape.E)
        lines.append(
            [shape.name, f"core: {share:.1f} units of B·L·E·4 bytes, official {OFFICIAL}"]
            + [""] * 5
        )
    head = ["MaIR", "operation", "ms", "MB", "GB/s", "other way, ms", "gain"]
    record(args, f"Selective scan on {name}", text_table(head, lines))


if __name__ == "__main__":
    main()
