"""Floor 4. What a network costs: counted operation by operation, and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from restore.evaluation.ledger import Ledger
from restore.evaluation.memory import taken
from restore.evaluation.options import Precision
from restore.evaluation.precision import autocast


@dataclass(frozen=True)
class Cost:
    """Of one forward pass over one image."""

    parameters: int
    macs: dict[str, int]
    """Multiply-adds by kind of operation (see `ledger`)."""
    activations: int
    """Elements that the counted operations give."""
    memory: int
    """Bytes of the tensors alive at once, in float32, input and weights aside."""

    @property
    def total(self) -> int:
        """MACs of all kinds."""
        return sum(self.macs.values())


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated forward passes, and the bytes that one takes at its peak."""

    seconds: tuple[float, ...]
    memory: int | None
    """Measured on a GPU; None elsewhere."""

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)


@torch.no_grad()
def count(network: nn.Module, shape: tuple[int, int, int, int]) -> Cost:
    """The cost of `network`, in its deploy form, for an input `shape` (B, C, h, w).

    A network on `meta` is counted at any size in no time; on another device the pass is run.
    """
    parameters = list(network.parameters())
    lq = torch.zeros(shape, device=parameters[0].device)
    with Ledger() as ledger:
        output = network.eval()(lq)
    del output
    number = sum(p.numel() for p in parameters)
    return Cost(number, dict(ledger.macs), ledger.activations, ledger.peak)


def timed(
    network: nn.Module, lq: Tensor, runs: int, precision: Precision = "fp32", warm_up: int = 2
) -> Timing:
    """`runs` forward passes over `lq: (B, C, h, w)`, each waited for, after `warm_up` others."""
    device = lq.device
    network.eval()

    @torch.inference_mode()
    def forward() -> None:
        with autocast(precision, device):
            network(lq)

    for _ in range(warm_up):
        forward()
    seconds = tuple(_seconds(forward, device) for _ in range(runs))
    return Timing(seconds, taken(forward, device) if device.type == "cuda" else None)


def _seconds(run: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
