"""Random problems for backends of the selective scan, and their comparison with the truth.

The truth is `reference`, differentiated by autograd in float64; a backend gets the same numbers in
float32 on any device. An error is ‖found - truth‖ / ‖truth‖ of one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from restore.ops.selective_scan import reference
from restore.ops.selective_scan.backend import MapInputs, MergeInputs, ScanInputs

SCAN = ("y", "u", "delta", "A", "B", "C", "D", "delta_bias")
MAP = ("y", "mean", "x", "projected", "step_weight", "step_bias", "A", "D")
MERGE = ("out", "y", "gate", "z", "weight", "bias")


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def decays(*shape: int) -> Tensor:
    """A of a decaying state, from slow to fast."""
    return -torch.exp(gaussian(*shape, seed=7))


def scan_inputs(
    B: int, G: int, E: int, N: int, L: int, skip: bool = True, bias: bool = True
) -> list[Tensor | None]:
    """u, delta, A, B, C, D, delta_bias of G groups of E channels."""
    u, delta = gaussian(B, G * E, L), gaussian(B, G * E, L, seed=1)
    rows = [gaussian(B, G, N, L, seed=seed) for seed in (2, 3)]
    D, delta_bias = gaussian(G * E, seed=4), gaussian(G * E, seed=5) - 2
    return [u, delta, decays(G * E, N), *rows, D if skip else None, delta_bias if bias else None]


def map_inputs(B: int, L: int, K: int, E: int, N: int, R: int) -> list[Tensor]:
    """x, projected, order, step_weight, step_bias, A, D."""
    generator = torch.Generator().manual_seed(L)
    order = torch.stack([torch.randperm(L, generator=generator) for _ in range(K)])
    return [
        gaussian(B, L, E), gaussian(B, L, K, R + 2 * N), order, gaussian(K, E, R),
        gaussian(K, E) - 2, decays(K, E, N), gaussian(K, E, seed=1),
    ]  # fmt: skip


def merge_inputs(B: int, L: int, K: int, E: int) -> list[Tensor]:
    """y, gate, z, weight, bias."""
    y, gate, z = gaussian(B, L, K, E), torch.sigmoid(gaussian(B, K, E)), 4 * gaussian(B, L, E)
    return [y, gate, z, gaussian(E), gaussian(E, seed=1)]


def errors(
    names: Sequence[str], found: Sequence[Tensor | None], truth: Sequence[Tensor | None]
) -> dict[str, float]:
    """Of each tensor; infinite where one is not finite, or only one of the two is there."""
    result = {}
    for name, ours, exact in zip(names, found, truth, strict=True):
        if ours is None or exact is None:
            result[name] = 0.0 if ours is exact else float("inf")
            continue
        assert ours.shape == exact.shape, f"{name}: {tuple(ours.shape)}, not {tuple(exact.shape)}"
        error = (ours.double().cpu() - exact).norm() / exact.norm().clamp_min(1e-8)
        result[name] = float(error) if error.isfinite() else float("inf")
    return result


def check(names: Sequence[str], found: Sequence[Any], truth: Sequence[Any], limit: float) -> None:
    wrong = {name: e for name, e in errors(names, found, truth).items() if e > limit}
    assert not wrong, wrong


def truth_of(
    op: Callable[..., Any], inputs: Sequence[Any], settings: Sequence[Any]
) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
    """Outputs of an op of `reference`, gradients given to them, gradients of its inputs."""
    leaves = [
        t.clone().requires_grad_() if t is not None and t.is_floating_point() else t for t in inputs
    ]
    outputs = op(*leaves, *settings)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    given = [gaussian(*y.shape, seed=9) for y in outputs]
    wanted = [t for t in leaves if t is not None and t.requires_grad]
    gradients = iter(torch.autograd.grad(outputs, wanted, given))
    found = [
        next(gradients) if t is not None and t.requires_grad else None
        for t in leaves
        if t is None or t.is_floating_point()
    ]
    return [y.detach() for y in outputs], given, found


def single(tensors: Sequence[Tensor | None], device: str) -> list[Any]:
    """In float32 on a device; integers as they are."""
    return [
        t if t is None else (t.float() if t.is_floating_point() else t).to(device) for t in tensors
    ]


def check_scan(
    backend: Any, inputs: Sequence[Any], softplus: bool, device: str = "cpu", limit: float = 2e-6
) -> None:
    outputs, given, gradients = truth_of(reference.selective_scan, inputs, [softplus])
    ours, dy = single(inputs, device), single(given, device)
    problem = ScanInputs(*ours, softplus)
    found = [backend.scan(problem), *backend.scan_grads(*dy, problem)]
    check(SCAN, found, [*outputs, *gradients], limit)


def check_map(
    backend: Any, inputs: Sequence[Any], device: str = "cpu", limit: float = 2e-6
) -> None:
    outputs, given, gradients = truth_of(reference.map_scan, inputs, [])
    ours, dy = MapInputs(*single(inputs, device)), single(given, device)
    found = [*backend.map_scan(ours), *backend.map_scan_grads(*dy, ours)]
    check(MAP, found, [*outputs, *gradients], limit)


def check_merge(
    backend: Any, inputs: Sequence[Any], device: str = "cpu", limit: float = 2e-6
) -> None:
    outputs, given, gradients = truth_of(reference.merge_directions, inputs, [1e-5])
    ours, dout = MergeInputs(*single(inputs, device), 1e-5), single(given, device)
    found = [backend.merge(ours), *backend.merge_grads(*dout, ours)]
    check(MERGE, found, [*outputs, *gradients], limit)
