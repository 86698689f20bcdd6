"""Floor 2. The scan as standard operators, for programs that leave this package.

While a network is traced inside `standard_operators()`, its scans become torch's own operators
around one recurrence over the steps: a loop in TorchScript, a Scan in ONNX (`onnx_form`). Any
number of steps, float32 or wider, no gradients of its own; to compute with, take a backend.
"""

# B batch, E channels, G groups of W channels, K directions, L steps, N states, R step rank

from __future__ import annotations

import functools
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_asked = [False]  # a list that torch.compile reads and guards, as it cannot a ContextVar


@contextmanager
def standard_operators() -> Generator[None, None, None]:
    """While a network is traced inside, its scans become standard operators."""
    before, _asked[0] = _asked[0], True
    try:
        yield
    finally:
        _asked[0] = before


def asked() -> bool:
    """Whether scans are to be standard operators."""
    return _asked[0]


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
    """y (B, E, L); see `restore.ops.selective_scan.selective_scan`. float32 or wider."""
    groups = B.shape[1]
    step = delta if delta_bias is None else delta + delta_bias[:, None]
    step = F.softplus(step) if softplus else step
    rows = [x.unflatten(1, (groups, -1)).movedim(3, 0) for x in (step, u)]  # (L, B, G, W)
    y = _scanned(rows[0], rows[1], A.unflatten(0, (groups, -1)), B.movedim(3, 0), C.movedim(3, 0))
    y = y.movedim(0, 3).flatten(1, 2)
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
    directions, _, states = A.shape
    pixels = torch.arange(x.shape[1], device=x.device)
    which = torch.arange(directions, device=x.device)
    path = order.t()  # (L, K)
    u = x[:, path].transpose(0, 1)  # (L, B, K, E)
    rows = projected.flatten(1, 2)[:, path * directions + which].transpose(0, 1)
    low_rank, inputs, outputs = rows.split([step_weight.shape[2], states, states], dim=3)
    steps = torch.matmul(low_rank.unsqueeze(3), step_weight.transpose(1, 2)).squeeze(3)
    y = _scanned(F.softplus(steps + step_bias), u, A, inputs, outputs)
    back = torch.zeros_like(order).scatter(1, order, pixels.expand_as(order)).t()
    y = y.permute(1, 0, 2, 3).flatten(1, 2)[:, back * directions + which]  # (B, L, K, E)
    y = y + D * x.unsqueeze(2)
    return y, y.mean(1)


def _looped(step: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """`recurrence`, in the part of Python that TorchScript keeps as a loop."""
    state = torch.zeros_like(step[0]).unsqueeze(3) * A
    found = torch.zeros_like(u)
    for index in range(step.shape[0]):
        kept = torch.exp(step[index].unsqueeze(3) * A)
        state = kept * state + (step[index] * u[index]).unsqueeze(3) * B[index].unsqueeze(2)
        found[index] = torch.matmul(state, C[index].unsqueeze(3)).squeeze(3)
    return found


@torch.library.custom_op("restore::recurrence", mutates_args=())
def recurrence(step: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """y (L, B, G, W) of step, u: (L, B, G, W), A: (G, W, N), B, C: (L, B, G, N).

    What an exporter replaces by its own loop; `onnx_form` has ONNX's.
    """
    return _looped(step, u, A, B, C)


@recurrence.register_fake
def _(step: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    return torch.empty(u.shape, dtype=u.dtype, device=u.device)


@functools.cache
def _scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(_looped)


def _scanned(step: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return _scripted()(step, u, A, B, C)
    return recurrence(step, u, A, B, C)
