"""Does a set's size cost anything? Indexing 100,000 pairs, and a sample of 100 to 100,000.

  python benchmarks/many_images.py [--quick] [--no-record]

Files are hard links to one tiny PNG, in memory (/dev/shm) where there is such a folder, so that
what is measured is ours. Each opening is a process of its own; memory is what its peak grows by.
The smallest packs lie in the processor's cache, which the largest cannot.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from restore import images
from restore.data.loader import Loader
from restore.data.options import BACKEND, PairedImageDataset
from restore.data.sources import open_source
from restore.data.stages import Stages
from restore.data.stores.pack_writer import write_pack
from restore.reports.tables import text_table

from common import command_line, record

SIDE, SCALE, GT_SIZE, BATCH = 96, 2, 64, 32
OPENING = """
import re, sys, time
from restore.data.options import PairedImageDataset
from restore.data.sources import check_source, open_source
options = PairedImageDataset(dataroot_gt=sys.argv[1], dataroot_lq=sys.argv[2])
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
before, wall, used = peak(), time.perf_counter(), time.process_time()
check_source(open_source(options, 2, channels=3, training=True))
print(time.perf_counter() - wall, time.process_time() - used, peak() - before)
"""


def write_links(folder: Path, count: int) -> tuple[Path, Path]:
    """`count` pairs: (GT, LQ) folders."""
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    for side, pixels in (("gt", image), ("lq", image[::SCALE, ::SCALE])):
        (folder / side).mkdir()
        first = folder / side / "000000.png"
        images.write(first, pixels)
        for number in range(1, count):
            os.link(first, folder / side / f"{number:06d}.png")
    return folder / "gt", folder / "lq"


def opened_twice(gt: Path, lq: Path) -> list[list[str]]:
    """A row for each of two openings."""
    rows = []
    for which in ("first", "second"):
        words = [sys.executable, "-c", OPENING, str(gt), str(lq)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        wall, used, memory = map(float, done.stdout.split())
        rows.append([which, f"{wall:.2f}", f"{used:.2f}", f"{memory:.0f}"])
    return rows


def cost_of_a_sample(folder: Path, count: int, rounds: int) -> list[str]:
    """CPU time of a sample from a pack of `count` pairs."""
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, (16, SIDE, SIDE, 3), dtype=np.uint8)
    names = [f"{number:06d}.png" for number in range(count)]
    for side, step in (("gt", 1), ("lq", SCALE)):
        shrunk = pool[:, ::step, ::step]
        write_pack(folder / f"{count}.{side}", names, lambda i, p=shrunk: p[i % 16], tiles=False)
    options = PairedImageDataset(
        dataroot_gt=str(folder / f"{count}.gt"),
        dataroot_lq=str(folder / f"{count}.lq"),
        io_backend=BACKEND.validate({"type": "pack"}),
    )
    source = open_source(options, SCALE, channels=3, training=True)
    stages = Stages.single(BATCH, GT_SIZE)
    stream = Loader(source, stages, hflip=True, rot=True, seed=0, workers=0).batches(0)
    times = []
    for _ in range(rounds + 1):
        start = time.process_time()
        for _ in islice(stream, 500):
            pass
        times.append((time.process_time() - start) / 500 / BATCH * 1e6)
    middle = statistics.median(times[1:])
    return [f"{count}", f"{middle:.1f}", f"{min(times[1:]):.1f} … {max(times[1:]):.1f}"]


def main() -> None:
    """Measure and record."""
    args = command_line(__doc__, quick="10,000 instead of 100,000").parse_args()
    torch.set_num_threads(1)
    most, rounds = (10_000, 3) if args.quick else (100_000, 5)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        openings = opened_twice(*write_links(folder, most))
        counts = [count for count in (100, 1000, 10_000, 100_000) if count <= most]
        samples = [cost_of_a_sample(folder, count, rounds) for count in counts]
    body = "\n\n".join(
        [
            f"opening a folder of {most} pairs and looking at 256 of them; nothing is cached\n"
            + text_table(["opening", "wall s", "CPU s", "peak grows by, MiB"], openings),
            f"a sample of a pack, GT patches of {GT_SIZE}, batches of {BATCH}\n"
            + text_table(["pairs", "CPU µs/sample", "min … max"], samples),
        ]
    )
    record(args, "Large sets", body)


if __name__ == "__main__":
    main()
