"""MaIR with the compiled scan against the same network with the sequential scan.

  python benchmarks/mair.py [--quick] [--no-record]

Outputs are compared before anything is timed. The sequential scan is the plain loop over the steps
in torch (`restore/ops/selective_scan/reference.py`); its gradients are not timed at 64 × 64, where
they take minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs import build_network
from restore.archs.table import ARCHS
from restore.ops.selective_scan.choice import OVERRIDE, available

from common import command_line, interleaved, peak_memory, ratio, record, table

BARS = {"MaIR-T_x4": 6.0, "MaIR-S_x4": 30.0}
BACKENDS = ("reference", "torch", "cpu")

MEMORY = """
import torch
from restore.archs import build_network
from restore.archs.table import ARCHS
torch.set_num_threads(1)
network = build_network(ARCHS["MaIR"].presets["{preset}"])
lq = torch.rand(1, 3, {side}, {side})
with torch.inference_mode():
    network.eval()(lq[..., :8, :8])
    measured()
    network(lq)
"""


def using(backend: str, run: Callable[[], object]) -> Callable[[], object]:
    """`run` with the scan computed by `backend`."""

    def switched() -> object:
        os.environ[OVERRIDE] = backend
        return run()

    return switched


def inference(network: nn.Module, lq: Tensor) -> Tensor:
    """One forward without gradients."""
    with torch.inference_mode():
        return network(lq)


def training_step(network: nn.Module, lq: Tensor) -> Tensor:
    """Forward, L1, backward."""
    network.zero_grad(set_to_none=True)
    output = network(lq)
    loss = F.l1_loss(output, torch.zeros_like(output))
    loss.backward()
    return loss


def assert_equal(network: nn.Module, lq: Tensor, backends: list[str]) -> str:
    """Largest relative L2 difference of each backend's output from the sequential one."""
    outputs = {b: using(b, lambda: inference(network, lq))() for b in backends}
    truth = outputs["reference"]
    assert isinstance(truth, Tensor)
    found: list[str] = []
    for backend, output in outputs.items():
        assert isinstance(output, Tensor)
        difference = ((output - truth).norm() / truth.norm()).item()
        assert difference < 1e-5, (backend, difference)
        found.append(f"{backend} {difference:.1e}")
    return "relative difference of outputs: " + ", ".join(found)


def memory(preset: str, side: int, backends: list[str]) -> str:
    """Peak memory of a forward, in a process of its own for each backend."""
    found: list[str] = []
    for backend in backends:
        os.environ[OVERRIDE] = backend
        found.append(f"{backend} {peak_memory(MEMORY.format(preset=preset, side=side)):.0f} MiB")
    return "peak memory above that at 8 × 8: " + ", ".join(found)


def measure(preset: str, side: int, rounds: int) -> str:
    """Inference by all backends, and training steps by the fast ones, as text."""
    torch.manual_seed(0)
    network = build_network(ARCHS["MaIR"].presets[preset]).eval()
    backends = [b for b in BACKENDS if b in available()]
    lq = torch.rand(1, 3, side, side)
    text = [f"{preset}, {side} × {side} input, one thread", assert_equal(network, lq, backends)]
    runs = {b: using(b, lambda: inference(network, lq)) for b in backends}
    times = interleaved(runs, rounds)
    text.append("inference\n" + table(times, "reference"))
    if "cpu" in backends and side >= 64:
        found = ratio(times, "reference", "cpu")
        text.append(f"bar ≥ {BARS[preset]} × {'holds' if found >= BARS[preset] else 'MISSED'}")
    text.append(memory(preset, side, backends))
    fast = [b for b in backends if b != "reference"]
    steps = {b: using(b, lambda: training_step(network, lq)) for b in fast}
    text.append("forward, L1, backward\n" + table(interleaved(steps, rounds), fast[0]))
    return "\n".join(text)


def main() -> None:
    """Measure and record."""
    args = command_line(__doc__, quick="32 × 32, one round").parse_args()
    torch.set_num_threads(1)
    side, rounds = (32, 1) if args.quick else (64, 3)
    body = "\n\n".join(measure(preset, side, rounds) for preset in BARS)
    os.environ.pop(OVERRIDE, None)
    record(args, "MaIR: scan backends", body)


if __name__ == "__main__":
    main()
