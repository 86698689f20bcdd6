"""A whole loader, hand-over included: threads over a pack against worker processes over an LMDB.

  python benchmarks/loader.py [--baseline BASICSR] [--quick] [--no-record]

SR ×4, batches of 32 GT patches of 256. The baseline is a torch DataLoader with BasicSR's default
collation over its data set (see data.py) in 1 and 2 worker processes; ours runs in this process, in
1 or 2 threads. Wall time, CPU time of this process and its workers, time to the first batch, and
time between the last batch of an epoch and the first of the next.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import torch
from basicsr_data import Pair
from data import BATCH, GT_SIZE, SEED, Baseline, Prepared, draws
from photos import SCALE
from torch.utils.data import DataLoader, Dataset

from restore.data.loader import Loader
from restore.data.stages import Stages
from restore.reports.tables import text_table

from common import command_line, record


class Drawn(Dataset[Pair]):
    """The baseline's samples of one epoch, opened in the worker that reads them."""

    def __init__(self, open_it: Callable[[], tuple[Baseline, int]], items: int) -> None:
        self._open, self._baseline = open_it, None
        self._draws = list(islice(draws(items), items))

    def __len__(self) -> int:
        return len(self._draws)

    def __getitem__(self, index: int) -> Pair:
        if self._baseline is None:
            torch.set_num_threads(1)
            self._baseline = self._open()[0]
        return self._baseline(self._draws[index], SCALE)


def cpu() -> float:
    """CPU seconds of this process and of the workers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measured(batches: Callable[[], Iterator[object]], count: int) -> tuple[float, float, float]:
    """(wall seconds and CPU seconds a sample, seconds to the first batch); workers have ended."""
    begun, used = time.perf_counter(), cpu()
    stream = batches()
    next(stream)
    first = time.perf_counter() - begun
    for _ in islice(stream, count - 1):
        pass
    wall = time.perf_counter() - begun
    del stream
    return wall / count / BATCH, (cpu() - used) / count / BATCH, first


def main() -> None:
    """Measure and record."""
    parser = command_line(__doc__, quick="fewer images and rounds")
    parser.add_argument("--baseline", type=Path, metavar="BASICSR", help="a checkout of BasicSR")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    images, rounds = (8, 3) if args.quick else (40, 5)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        made = Prepared(Path(folder), images)
        items = len(made.names)
        theirs = Drawn(lambda: made.baseline("lmdb", args.baseline), items)
        source = made.source("rows, sub")

        def processes(workers: int) -> Iterator[object]:
            # what Python would hand to spawned workers cannot be: fork, as on Linux by default
            return iter(DataLoader(theirs, BATCH, num_workers=workers, drop_last=True))

        def threads(count: int) -> Iterator[object]:
            stages = Stages.single(BATCH, GT_SIZE)
            loader = Loader(source, stages, hflip=True, rot=True, seed=SEED, workers=count)
            return loader.batches(0)

        few, many = items // BATCH, 40 * (items // BATCH)
        reference = "BasicSR, DataLoader, 1 process"
        ways = {
            reference: (lambda: processes(1), few),
            "BasicSR, DataLoader, 2 processes": (lambda: processes(2), few),
            "pack, no thread": (lambda: threads(0), many),
            "pack, 1 thread": (lambda: threads(1), many),
            "pack, 2 threads": (lambda: threads(2), many),
        }
        results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (batches, count) in ways.items():
                results[name].append(measured(batches, count))
    columns = {
        name: [list(column) for column in zip(*rows, strict=True)] for name, rows in results.items()
    }
    rows = []
    for name, (wall, used, first) in columns.items():
        ratios = [
            statistics.median(slow / fast for slow, fast in zip(other, own, strict=True))
            for other, own in zip(columns[reference], (wall, used), strict=False)
        ]
        middle = [statistics.median(values) for values in (wall, used, first)]
        rows.append(
            [name, f"{1e6 * middle[0]:.0f}", f"{ratios[0]:.1f} ×", f"{1e6 * middle[1]:.0f}",
             f"{ratios[1]:.1f} ×", f"{1e3 * middle[2]:.0f}"]
        )  # fmt: skip
    head = ["loader", "wall µs/sample", "ratio", "CPU µs/sample", "ratio", "first batch, ms"]
    against = "its own files" if args.baseline else "a plain twin of it"
    body = (
        f"BasicSR (by {against}): float32 batches; ours: uint8; an epoch of {items} sub-images\n"
        "BasicSR's loader starts its workers anew for every epoch, which then waits for its first\n"
        "batch; our stream has no end.\n\n" + text_table(head, rows)
    )
    record(args, "Loader", body)


if __name__ == "__main__":
    main()
