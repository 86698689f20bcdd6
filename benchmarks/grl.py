"""GRL against its plain twin: tables, masks and biases as published, made anew at every forward.

  python benchmarks/grl.py [--quick] [--no-record]

Equality of outputs and gradients is asserted in float64 before anything is timed. Peak memory is
that of a process of its own for each form: imports, network, one forward.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from plain_grl import PlainGRL
from torch import nn
from torch.nn import functional as F

from restore.archs import build_network
from restore.archs.table import ARCHS

from common import command_line, interleaved, ratio, record, table

BARS = {"tiny": 3.5, "small": 2.4}
MEMORY_BAR = 0.7
SIDE = 64
SMALL = {"embed_dim": 16, "depths": [4, 2], "window_size": 8, "stripe_size": [8, 16]} | {
    "num_heads_window": [2, 2],
    "num_heads_stripe": [2, 2],
    "stripe_shift": True,
    "anchor_window_down_factor": 2,
}


def network(form: str, options: Any) -> nn.Module:
    """`ours` or the `plain` twin, in evaluation mode."""
    return (build_network(options) if form == "ours" else PlainGRL(options)).eval()


def pair(options: Any) -> tuple[nn.Module, nn.Module]:
    """Both forms with the same weights."""
    ours, plain = network("ours", options), network("plain", options)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def agreement() -> str:
    """Largest relative difference of output and gradients of a small network, in float64."""
    first = build_network({"type": "GRL"} | SMALL)
    forms = [form.double() for form in pair(first.options)]
    lq, gt = torch.rand(2, 1, 3, 37, 53, dtype=torch.float64)
    outputs = [form(lq) for form in forms]
    for output in outputs:
        F.l1_loss(output, gt).backward()
    found = [(outputs[0] - outputs[1]).norm() / outputs[1].norm()]
    for a, b in zip(*(form.parameters() for form in forms), strict=True):
        assert a.grad is not None and b.grad is not None
        found.append((a.grad - b.grad).norm() / b.grad.norm())
    output, *gradients = (f.item() for f in found)
    assert output < 1e-10 and max(gradients) < 1e-8, (output, max(gradients))
    return f"float64: outputs agree to {output:.1e}, gradients to {max(gradients):.1e}"


def peak(form: str, size: str) -> float:
    """Peak resident memory in MiB of a process that makes one forward."""
    command = [sys.executable, __file__, "--peak", form, size]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def print_peak(form: str, size: str) -> None:
    """What the process of `peak` does; `import` only builds the network."""
    options = ARCHS["GRL"].presets[f"sr_grl_{size}_c3x4"]
    built = network("plain" if form == "plain" else "ours", options)
    if form != "import":
        with torch.inference_mode():
            built(torch.rand(1, 3, SIDE, SIDE))
    # not ru_maxrss, which a process inherits from the one that started it
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def measured(size: str, rounds: int) -> str:
    """Time and memory of one size ×4, judged."""
    ours, plain = pair(ARCHS["GRL"].presets[f"sr_grl_{size}_c3x4"])
    lq = torch.rand(1, 3, SIDE, SIDE)

    def run(form: nn.Module) -> Callable[[], object]:
        def once() -> None:
            with torch.inference_mode():
                form(lq)

        return once

    with torch.inference_mode():
        found, expected = ours(lq), plain(lq)
    difference = ((found - expected).norm() / expected.norm()).item()
    assert difference < 1e-4, difference
    times = interleaved({"plain": run(plain), "ours": run(ours)}, rounds)
    faster = ratio(times, "plain", "ours")
    base, fast, slow = (peak(form, size) for form in ("import", "ours", "plain"))
    verdicts = [
        f"bar ≥ {BARS[size]} × {'holds' if faster >= BARS[size] else 'MISSED'}",
        f"peak memory {fast:.0f} MiB, plain {slow:.0f} MiB, before the forward {base:.0f} MiB: "
        f"{fast / slow:.2f} ×, of the forward alone {(fast - base) / (slow - base):.2f} ×",
        f"bar ≤ {MEMORY_BAR} × {'holds' if fast <= MEMORY_BAR * slow else 'MISSED'}",
    ]
    head = f"GRL {size} ×4, {SIDE}², one thread, float32 outputs agree to {difference:.1e}"
    return "\n".join([head, table(times, "plain"), *verdicts])


def main() -> None:
    """Measure and record."""
    parser = command_line(__doc__, quick="3 rounds")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.peak:
        print_peak(*args.peak)
        return
    rounds = 3 if args.quick else 9
    body = "\n\n".join([agreement(), *(measured(size, rounds) for size in BARS)])
    record(args, "GRL against its plain twin", body)


if __name__ == "__main__":
    main()
