"""SPAN on a GPU: training step and deploy-form inference, median of synchronised runs.

python benchmarks/span_gpu.py
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import torch
from torch import nn

from restore.archs import build_network, fuse
from restore.reports.tables import text_table

from common import record
from span import branch_form, step


def milliseconds(run: Callable[[], object], rounds: int = 30) -> float:
    """Median time of one run on the device, after warming up."""
    for _ in range(5):
        run()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def inference(network: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """A forward without gradients."""

    def run() -> None:
        with torch.inference_mode():
            network(x)

    return run


def main() -> None:
    """Measure and record."""
    if not torch.cuda.is_available():
        sys.exit("no GPU: nothing measured")
    torch.manual_seed(0)
    network = build_network({"type": "SPAN", "feature_channels": 48, "upscale": 4}).cuda()
    branches, deployed = branch_form(network), fuse(network)
    lq, gt = torch.rand(16, 3, 64, 64).cuda(), torch.rand(16, 3, 256, 256).cuda()
    frame = torch.rand(1, 3, 180, 320).cuda()
    half = fuse(network).to(torch.bfloat16, memory_format=torch.channels_last)
    rows = [
        ("step, branches", milliseconds(lambda: step(branches, lq, gt))),
        ("step, merged", milliseconds(lambda: step(network, lq, gt))),
        ("1280×720 out, merged each forward", milliseconds(inference(network, frame))),
        ("1280×720 out, fused once", milliseconds(inference(deployed, frame))),
        (
            "1280×720 out, fused, bf16 channels_last",
            milliseconds(inference(half, frame.bfloat16())),
        ),
    ]
    body = text_table(["SPAN 48ch ×4", "ms"], [[name, f"{ms:.3f}"] for name, ms in rows])
    name = torch.cuda.get_device_name(0)
    record(f"SPAN on {name}", "python benchmarks/span_gpu.py", body)


if __name__ == "__main__":
    main()
