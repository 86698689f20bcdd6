"""Floor 2. The scan's public face: checks the arguments, picks a backend.

B batch, E channels, G groups, L steps or pixels, N states, K directions, R rank of the step.
"""

from __future__ import annotations

from torch import Tensor

from restore.errors import BackendError
from restore.ops.selective_scan import reference


def available_backends() -> tuple[str, ...]:
    """Names that `backend=` takes on this machine, besides "auto"."""
    return ("reference",)


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
    Returns y (B, E, L) in u's dtype. Raises BackendError for a backend that is not there.
    """
    _known(backend)
    return reference.selective_scan(u, delta, A, B, C, D, delta_bias, softplus)


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
    low-rank step, then B, then C; order: (K, L), the pixel that direction k visits at each step;
    step_weight: (K, E, R); step_bias: (K, E); A: (K, E, N); D: (K, E).
    Δ = softplus(step_weight @ step + step_bias).
    Returns y (B, L, K, E) at its pixels, and its mean over the pixels (B, K, E), both float32
    (float64 for float64 inputs). Raises BackendError for a backend that is not there.
    """
    _known(backend)
    return reference.map_scan(x, projected, order, step_weight, step_bias, A, D)


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
    """
    _known(backend)
    return reference.merge_directions(y, gate, z, weight, bias, eps)


def _known(backend: str) -> None:
    if backend not in ("auto", *available_backends()):
        raise BackendError.of(
            "ENV30",
            "selective-scan backend not available",
            "backend",
            backend,
            ", ".join(("auto", *available_backends())),
            "name one of these",
        )
