"""The selective scan by every backend that is here against the sequential loop.

  python benchmarks/scan.py [--gpu] [--quick] [--no-record]

Values and gradients are compared before anything is timed. CPU time on one thread, interleaved;
peak memory in a process of its own per backend. `--gpu` measures the backends that run on a GPU
instead, against mamba-ssm where it is installed and against the torch backend where it is not.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from restore.ops.selective_scan import available_backends, selective_scan
from restore.reports.tables import text_table

from common import (
    command_line,
    gpu_milliseconds,
    interleaved,
    need_gpu,
    peak_memory,
    ratio,
    record,
    table,
)

SEQUENTIAL = "reference"
FASTER = {"torch": 12.0, "cpu": 100.0}
"""Bar: how many times faster than the sequential loop, forward, at the classic size."""
BACKWARD = 5.0
"""Bar of the torch backend: forward and backward in units of the forward."""
LENGTHS = (4096, 8192, 16384, 32768, 65536)
MEBIBYTE = 2**20

Pass = Callable[[], object]


class Size(NamedTuple):
    """One image: G directions of D channels each, N states, L pixels."""

    name: str
    groups: int
    width: int
    states: int
    steps: int

    def __str__(self) -> str:
        return (
            f"{self.name}: G = {self.groups}, D = {self.width}, N = {self.states}, L = {self.steps}"
        )


CLASSIC = Size("MaIR", 4, 360, 16, 4096)
SMALL = Size("MaIR-S", 4, 84, 16, 4096)
TINY = Size("MaIR-T", 4, 66, 1, 4096)

MEMORY = """
import torch
from scan import Size, forward, both, inputs
torch.set_num_threads(1)
{run}("{backend}", inputs({small!r}))()
run = {run}("{backend}", inputs({size!r}))
measured()
run()
"""


def inputs(size: Size, device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """u, delta, A, B, C, D, delta_bias as a freshly initialised MaIR has them."""
    _, groups, width, states, steps = size
    channels = groups * width
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    tensors = [
        normal(1, channels, steps), 0.1 * normal(1, channels, steps),
        -torch.arange(1.0, states + 1).repeat(channels, 1), normal(1, groups, states, steps),
        normal(1, groups, states, steps), torch.ones(channels), normal(channels) - 4,
    ]  # fmt: skip
    return [t.to(device, dtype).requires_grad_() for t in tensors]


def scan(backend: str, given: list[Tensor]) -> Tensor:
    """The scan with step bias and softplus."""
    *first, bias = given
    return selective_scan(*first, delta_bias=bias, softplus=True, backend=backend)


def forward(backend: str, given: list[Tensor]) -> Pass:
    """Values only."""

    def run() -> Tensor:
        with torch.no_grad():
            return scan(backend, given)

    return run


def both(backend: str, given: list[Tensor]) -> Pass:
    """Values and all gradients."""
    dy = torch.ones_like(given[0])
    return lambda: torch.autograd.grad(scan(backend, given), given, dy)


def assert_equal(backends: list[str], size: Size, device: str = "cpu") -> str:
    """Largest difference of values and gradients from the float64 loop, over the largest value."""
    short = size._replace(steps=517)
    exact = inputs(short, dtype=torch.float64)
    y = scan(SEQUENTIAL, exact)
    dy = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).view(y.shape)
    truth = [y, *torch.autograd.grad(y, exact, dy)]
    found = []
    for backend in backends:
        given = inputs(short, device)
        own = scan(backend, given)
        results = [own, *torch.autograd.grad(own, given, dy.to(device, torch.float32))]
        worst = max(
            ((a.cpu() - b).abs().max() / b.abs().max()).item()
            for a, b in zip(results, truth, strict=True)
        )
        assert worst < 1e-4, (backend, worst)
        found.append(f"{backend} {worst:.1e}")
    return "largest relative difference from float64, values and gradients: " + ", ".join(found)


def judged(found: float, bar: float, holds: bool) -> str:
    """A bar beside what was found."""
    return f"{found:.2f}, bar {bar:g} {'holds' if holds else 'MISSED'}"


def side_by_side(size: Size, rounds: int) -> str:
    """Forward, and forward with backward, of all backends at one size."""
    backends = on_cpu()
    given = inputs(size)
    times = interleaved({b: forward(b, given) for b in backends}, rounds)
    text = [f"{size}\n{assert_equal(backends, size)}\nforward\n{table(times, SEQUENTIAL)}"]
    if size == CLASSIC:
        for backend in set(FASTER) & set(backends):
            found = ratio(times, SEQUENTIAL, backend)
            bar = FASTER[backend]
            text.append(f"{backend}: times faster {judged(found, bar, found >= bar)}")
        backends = [b for b in backends if b != SEQUENTIAL]  # its gradients take gigabytes here
    whole = interleaved({b: both(b, given) for b in backends}, rounds)
    text.append(f"forward and backward\n{table(whole, backends[0])}")
    found = statistics.median(whole["torch"]) / statistics.median(times["torch"])
    text.append(f"torch: in forwards {judged(found, BACKWARD, found <= BACKWARD)}")
    return "\n".join(text)


def memory(size: Size) -> str:
    """Peak memory above the inputs, beside the size of u and of all states."""
    u = size.groups * size.width * size.steps * 4 / MEBIBYTE
    rows = []
    for backend in on_cpu():
        row = [backend]
        for run in ("forward", "both"):
            if backend == SEQUENTIAL and run == "both":
                row.append("–")
                continue
            body = MEMORY.format(run=run, backend=backend, small=size._replace(steps=64), size=size)
            here = f"import sys; sys.path.insert(0, {str(sys.path[0])!r})\n"
            row.append(f"{peak_memory(here + body):.0f}")
        rows.append(row)
    about = f"u alone {u:.0f} MiB, all states {size.states * u:.0f} MiB"
    columns = ["variant", "forward, MiB", "with backward, MiB"]
    return f"{size}: peak memory above the inputs ({about})\n{text_table(columns, rows)}"


def linearity(rounds: int) -> str:
    """Time per step as the row grows."""
    rows = []
    for backend in on_cpu():
        if backend == SEQUENTIAL:
            continue
        for run in (forward, both):
            times = {}
            for steps in LENGTHS:
                given = inputs(SMALL._replace(steps=steps))
                measured = interleaved({backend: run(backend, given)}, rounds)
                times[steps] = 1e6 * statistics.median(measured[backend]) / steps
            rows.append([backend, run.__name__, *(f"{t:.2f}" for t in times.values())])
    columns = ["variant", "pass", *(f"L = {steps}" for steps in LENGTHS)]
    return f"MaIR-S, µs per step\n{text_table(columns, rows)}"


def on_cpu() -> list[str]:
    """The backends that compute on the CPU, the sequential loop first."""
    return [b for b in available_backends() if b in (SEQUENTIAL, "torch", "cpu")]


def on_gpu(size: Size) -> str:
    """Forward, and forward with backward, on the GPU."""
    backends = [b for b in ("mamba_ssm", "triton", "torch") if b in available_backends()]
    given = inputs(size, "cuda")
    base: tuple[float, float] | None = None
    rows = []
    for backend in backends:
        found = gpu_milliseconds(forward(backend, given)), gpu_milliseconds(both(backend, given))
        base = base or found
        ratios = [f"{slow / fast:.2f} ×" for slow, fast in zip(base, found, strict=True)]
        rows.append([backend, f"{found[0]:.3f}", ratios[0], f"{found[1]:.3f}", ratios[1]])
    columns = ["variant", "forward, ms", f"vs {backends[0]}", "with backward, ms", "ratio"]
    return f"{size}\n{assert_equal(backends, size, 'cuda')}\n{text_table(columns, rows)}"


def main() -> None:
    """Measure and record."""
    parser = command_line(__doc__, quick="one round")
    parser.add_argument("--gpu", action="store_true", help="on a GPU")
    args = parser.parse_args()
    torch.set_num_threads(1)
    title = "Selective scan by backend"
    if args.gpu:
        title += f" on {need_gpu()}"
        sizes = [s._replace(steps=n) for s in (CLASSIC, SMALL, TINY) for n in (4096, 16384)]
        body = "\n\n".join(on_gpu(size) for size in sizes)
    else:
        rounds = 1 if args.quick else 5
        parts = [side_by_side(size, rounds) for size in (CLASSIC, SMALL, TINY)]
        body = "\n\n".join([*parts, memory(CLASSIC), memory(SMALL), linearity(min(rounds, 3))])
    record(args, title, body)


if __name__ == "__main__":
    main()
