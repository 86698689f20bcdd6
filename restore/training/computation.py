"""Floor 5. How a training step is computed: precision, memory layout, compilation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from restore.evaluation.options import Precision
from restore.evaluation.precision import autocast
from restore.training.options import CompileMode


@dataclass(frozen=True)
class Computation:
    """What a step is computed with; the weights and the optimiser are float32 in any case."""

    precision: Precision = "fp32"
    """Of matrix products and convolutions, by autocast; fp16 with a scaled loss."""
    channels_last: bool = False
    compile: CompileMode | None = None

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """The precision, for the forward pass."""
        return autocast(self.precision, device)

    def scaler(self, device: torch.device) -> GradScaler | None:
        """What keeps fp16 gradients from vanishing; None for the other precisions."""
        return GradScaler(device.type) if self.precision == "fp16" else None

    def laid_out(self, lq: Tensor) -> Tensor:
        """`lq: (B, C, h, w)` in the layout of the network."""
        return lq.contiguous(memory_format=torch.channels_last) if self.channels_last else lq

    def prepare(self, network: nn.Module) -> None:
        """Lay out and compile `network` in place; its parameters and their names stay.

        A network with a method `regions` has those modules compiled, once for all that are alike;
        any other is compiled as a whole. Each patch size of the schedule compiles once more.
        """
        if self.channels_last:
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if self.compile is None:
            return
        regions: Callable[[], Iterable[nn.Module]] | None = getattr(network, "regions", None)
        for module in [network] if regions is None else regions():
            module.compile(dynamic=False, mode=self.compile)


def use_deterministic_algorithms() -> None:
    """The same bits from the same step on a GPU; a warning where torch has no such algorithm."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def not_compiled() -> AbstractContextManager[object]:
    """Within it, compiled modules run as written: for validation, whose images all differ."""
    return torch.compiler.set_stance("force_eager")
