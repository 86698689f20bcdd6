"""Floor 2. The scan's public face: checks the arguments and calls the op.

Every function is one custom op (`library`), which picks the backend (`choice`) when it runs.
B batch, E channels, G groups, L steps or pixels, N states, K directions, R rank of the step.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from restore.ops.selective_scan import choice, library, reference, standard


def available_backends() -> tuple[str, ...]:
    """Names that `backend=` takes on this machine, besides "auto"."""
    return choice.available()


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    delta_bias: Tensor | None = None,
    softplus: bool = False,
    backend: str = "auto",
) -> Tensor:
    """h[l] = exp(Δ[l] A) h[l-1] + Δ[l] B[l] u[l], y[l] = <C[l], h[l]> + D u[l].

    u, delta: (B, E, L); A: (E, N), negative for a decaying state; B, C: (B, G, N, L), channel e
    reads group e // (E / G); D, delta_bias: (E) or None. Δ = delta + delta_bias, through softplus
    if `softplus`. The state is float32 (float64 for float64 inputs) and starts at zero.
    Returns y (B, E, L) in u's dtype. Raises BackendError for a backend that is not there,
    ValueError for shapes that do not fit together.
    """
    if u.ndim != 3 or B.ndim != 4 or A.ndim != 2 or not u.numel():
        _refuse("selective_scan", u=u, A=A, B=B)
    (batch, channels, steps), groups, states = u.shape, B.shape[1], A.shape[1]
    rows = (batch, groups, states, steps)
    if (
        delta.shape != u.shape
        or A.shape != (channels, states)
        or B.shape != rows
        or C.shape != rows
        or channels % groups
        or not states
        or (D is not None and D.shape != (channels,))
        or (delta_bias is not None and delta_bias.shape != (channels,))
    ):
        _refuse("selective_scan", u=u, delta=delta, A=A, B=B, C=C, D=D, delta_bias=delta_bias)
    if standard.asked():
        return standard.selective_scan(u, delta, A, B, C, D, delta_bias, softplus)
    return library.selective_scan(u, delta, A, B, C, D, delta_bias, softplus, backend)


def map_scan(
    x: Tensor,
    projected: Tensor,
    order: Tensor,
    step_weight: Tensor,
    step_bias: Tensor,
    A: Tensor,
    D: Tensor,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Selective scans along K paths over one map, read and written in pixel order.

    x: (B, L, E), one row a pixel; projected: (B, L, K, R + 2N), for each pixel and direction the
    low-rank step, then B, then C; order: (K, L) int64, the pixel that direction k visits at each
    step, every pixel once; step_weight: (K, E, R); step_bias: (K, E); A: (K, E, N); D: (K, E).
    Δ = softplus(step_weight @ step + step_bias).
    Returns y (B, L, K, E) at its pixels, and its mean over the pixels (B, K, E), both float32
    (float64 for float64 inputs). Raises BackendError for a backend that is not there.
    """
    if x.ndim != 3 or order.ndim != 2 or step_weight.ndim != 3 or A.ndim != 3 or not x.numel():
        _refuse("map_scan", x=x, order=order, step_weight=step_weight, A=A)
    (batch, pixels, channels), directions = x.shape, order.shape[0]
    rank, states = step_weight.shape[2], A.shape[2]
    if (
        projected.shape != (batch, pixels, directions, rank + 2 * states)
        or order.shape != (directions, pixels)
        or order.dtype != torch.int64
        or step_weight.shape != (directions, channels, rank)
        or A.shape != (directions, channels, states)
        or step_bias.shape != (directions, channels)
        or D.shape != (directions, channels)
        or not states
    ):
        _refuse(
            "map_scan", x=x, projected=projected, order=order,
            step_weight=step_weight, step_bias=step_bias, A=A, D=D,
        )  # fmt: skip
    if standard.asked():
        return standard.map_scan(x, projected, order, step_weight, step_bias, A, D)
    return library.map_scan(x, projected, order, step_weight, step_bias, A, D, backend)


def merge_directions(
    y: Tensor,
    gate: Tensor,
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    backend: str = "auto",
) -> Tensor:
    """LayerNorm_E(Σ_k gate[k] · y[k]) · SiLU(z): (B, L, E).

    y: (B, L, K, E); gate: (B, K, E); z: (B, L, E); weight, bias: (E) of the LayerNorm.
    Returns z's dtype. Raises BackendError for a backend that is not there.
    """
    if y.ndim != 4 or not y.numel():
        _refuse("merge_directions", y=y)
    batch, pixels, directions, channels = y.shape
    if (
        gate.shape != (batch, directions, channels)
        or z.shape != (batch, pixels, channels)
        or weight.shape != (channels,)
        or bias.shape != (channels,)
    ):
        _refuse("merge_directions", y=y, gate=gate, z=z, weight=weight, bias=bias)
    if standard.asked():
        return reference.merge_directions(y, gate, z, weight, bias, eps)
    return library.merge_directions(y, gate, z, weight, bias, eps, backend)


def _refuse(op: str, **tensors: Tensor | None) -> NoReturn:
    """Tell the shapes of a call that makes no sense."""
    shapes = ", ".join(
        f"{name} {str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}"
        for name, t in tensors.items()
        if t is not None
    )
    raise ValueError(f"{op}: shapes do not fit together (see its docstring): {shapes}")
