"""SPAN on a GPU: training step and deploy-form inference, median of queued runs.

python benchmarks/span_gpu.py [--no-record]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from restore.archs import build_network, fuse
from restore.reports.tables import text_table

from common import command_line, gpu_milliseconds, need_gpu, record
from span import branch_form, step


def inference(network: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """A forward without gradients."""

    def run() -> None:
        with torch.inference_mode():
            network(x)

    return run


def main() -> None:
    """Measure and record."""
    args, name = command_line(__doc__).parse_args(), need_gpu()
    torch.manual_seed(0)
    network = build_network({"type": "SPAN", "feature_channels": 48, "upscale": 4}).cuda()
    branches, deployed = branch_form(network), fuse(network)
    lq, gt = torch.rand(16, 3, 64, 64).cuda(), torch.rand(16, 3, 256, 256).cuda()
    frame = torch.rand(1, 3, 180, 320).cuda()
    half = fuse(network).to(torch.bfloat16, memory_format=torch.channels_last)
    rows = [
        ("step, branches", gpu_milliseconds(lambda: step(branches, lq, gt))),
        ("step, merged", gpu_milliseconds(lambda: step(network, lq, gt))),
        ("1280×720 out, merged each forward", gpu_milliseconds(inference(network, frame))),
        ("1280×720 out, fused once", gpu_milliseconds(inference(deployed, frame))),
        (
            "1280×720 out, fused, bf16 channels_last",
            gpu_milliseconds(inference(half, frame.bfloat16())),
        ),
    ]
    body = text_table(["SPAN 48ch ×4", "ms"], [[name, f"{ms:.3f}"] for name, ms in rows])
    record(args, f"SPAN on {name}", body)


if __name__ == "__main__":
    main()
