"""What every benchmark shares: flags, interleaved rounds, medians, ratios, a dated record."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from restore.reports.provenance import commit, versions
from restore.reports.tables import text_table

RESULTS = Path(__file__).parent / "RESULTS.md"


def command_line(about: str | None, quick: str | None = None) -> argparse.ArgumentParser:
    """The flags of all benchmarks; `quick` says what --quick leaves out, None where it is none."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--no-record", action="store_true", help="print only")
    return parser


def interleaved(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each variant, `rounds` times, in the order A B C A B C after one warm-up."""
    for run in variants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return times


def gpu_milliseconds(run: Callable[[], object], rounds: int = 30) -> float:
    """Median time of one run on the GPU, after warming up; the runs are queued, then waited for."""
    for _ in range(5):
        run()
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for start, end in marks:
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in marks)


def need_gpu(reason: str | None = None) -> str:
    """The GPU's name; ends the program where there is none, or where `reason` speaks against it."""
    if not torch.cuda.is_available():
        sys.exit("no GPU: nothing measured")
    if reason:
        sys.exit(f"nothing measured: {reason}")
    return torch.cuda.get_device_name(0)


def ratio(times: Mapping[str, list[float]], reference: str, name: str) -> float:
    """How many times faster `name` is: the median of the rounds' paired ratios."""
    pairs = zip(times[reference], times[name], strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)


PEAK = """
import re
from pathlib import Path
def resident(which):
    return int(re.search(which + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = []
def measured():
    Path("/proc/self/clear_refs").write_text("5")  # the peak falls to what is resident now
    before.append(resident("VmRSS"))
"""


def peak_memory(body: str) -> float:
    """MiB by which Python statements `body` raise the memory of a fresh process at their peak.

    `body` first sets up and then calls `measured()`; what is resident then does not count.
    Needs Linux.
    """
    program = f"{PEAK}{body}\nprint(resident('VmHWM') - before[0])"
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(run.stdout.split()[-1]) / 1024


def table(times: Mapping[str, list[float]], reference: str) -> str:
    """Median, spread and ratio of each variant, as text."""
    rows = [
        [
            name,
            f"{1e3 * statistics.median(values):.1f}",
            f"{1e3 * min(values):.1f} … {1e3 * max(values):.1f}",
            f"{ratio(times, reference, name):.2f} ×",
        ]
        for name, values in times.items()
    ]
    return text_table(["variant", "CPU ms, median", "min … max", f"vs {reference}"], rows)


def record(args: argparse.Namespace, title: str, body: str) -> None:
    """Print a result; without --no-record put it at the end of RESULTS.md too, with the command,
    date, machine and versions."""
    if args.no_record:
        print(body)
        return
    flags = ("BASICSR" if Path(word).is_dir() else word for word in sys.argv[1:])
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *flags])
    known = ", ".join(f"{name} {version}" for name, version in versions().items())
    about = (
        f"{datetime.date.today()}, {os.cpu_count()} cores ({platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}), load {os.getloadavg()[0]:.1f}, {known}, "
        f"commit {commit()[:12] or 'none'}"
    )
    text = f"\n## {title}\n`{command}` · {about}\n\n```\n{body}\n```\n"
    print(text)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(text)
