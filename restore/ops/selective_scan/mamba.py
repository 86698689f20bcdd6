"""Floor 2. Backend `mamba_ssm`: the CUDA kernels of the mamba-ssm package, when the user has it.

Its autograd function is taken apart: the forward half is run again in the backward pass, for the
states it keeps, since nothing is held between the two. The halves' argument order is that of all
releases, which the compiled extension's is not. float32 only, at most 256 states.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor

from restore.catalog import locate
from restore.errors import BackendError
from restore.ops.selective_scan.backend import ScanGrads, ScanInputs
from restore.ops.selective_scan.composed import Composed

INTERFACE = "mamba_ssm.ops.selective_scan_interface"
MOST_STATES = 256


def unavailable() -> str | None:
    """Why this backend cannot be used: no package, or no GPU that it runs on."""
    try:
        importlib.import_module(INTERFACE)
    except ImportError as error:
        return f"mamba-ssm cannot be imported: {error}"
    return None if torch.cuda.is_available() else "there is no GPU"


class _Context:
    """What an autograd function writes on between its halves."""

    saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors


@cache
def _function() -> Any:
    return locate(f"{INTERFACE}:SelectiveScanFn")


def _forward(context: _Context, inputs: ScanInputs) -> Tensor:
    *tensors, delta_bias, softplus = inputs
    states = inputs.A.shape[1]
    if states > MOST_STATES:
        raise BackendError.of(
            "ENV31", "selective-scan backend does not take these tensors", "backend",
            f"mamba_ssm for {states} states", f"at most {MOST_STATES} states",
            "backend=triton or backend=torch",
        )  # fmt: skip
    gate = None
    return _function().forward(context, *tensors, gate, delta_bias, softplus)


def selective_scan(inputs: ScanInputs) -> Tensor:
    """y (B, E, L); see `restore.ops.selective_scan.selective_scan`."""
    return _forward(_Context(), inputs)


def selective_scan_grads(dy: Tensor, inputs: ScanInputs) -> ScanGrads:
    """Gradients of all inputs."""
    context = _Context()
    _forward(context, inputs)
    grads = _function().backward(context, dy.contiguous())
    du, ddelta, dA, dB, dC, dD, _, dbias = grads[:8]
    return du, ddelta, dA, dB, dC, dD, dbias


BACKEND = Composed(selective_scan, selective_scan_grads)
