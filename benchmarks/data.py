"""What a training sample costs, by where the images lie, against BasicSR's way.

  python benchmarks/data.py [--baseline BASICSR] [--cold] [--quick] [--no-record]

SR ×4, GT patches of 256, flips and quarter turns, one thread. BasicSR's recommended way is an LMDB
of 480 × 480 sub-images; `--baseline` names a checkout of it, else a plain twin with the same calls
stands for it (basicsr_data.py). First all must give the same samples, bit for bit, for the same
draws; then rounds A B C A B C, CPU time of this process. The images lie in memory (/dev/shm);
--cold puts them on disk, drops their pages before every round and measures wall time and what is
read.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from basicsr_data import Pair, Plain, Real, cut_up, make_lmdb
from photos import HEIGHT, SCALE, WIDTH, drop, files_of, resident, size_of, write_photos

from restore.data.augment import Draw, sample_words
from restore.data.batches import Batch
from restore.data.loader import Loader, order
from restore.data.options import BACKEND, PairedImageDataset
from restore.data.prepare.stores import prepare
from restore.data.source import Source
from restore.data.sources import open_source
from restore.data.stages import Stages
from restore.reports.tables import text_table

from common import command_line, ratio, record

GT_SIZE, BATCH, SEED = 256, 32, 7
FLOOR = "floor: copying the crops, uint8"
CPU = torch.device("cpu")
Baseline = Callable[[Draw, int], Pair]


def source_of(gt: Path, lq: Path, backend: dict[str, Any]) -> Source:
    """Ours, as an option file would name it."""
    section = BACKEND.validate(backend)
    options = PairedImageDataset(dataroot_gt=str(gt), dataroot_lq=str(lq), io_backend=section)
    return open_source(options, SCALE, channels=3, training=True)


def stream(source: Source, batch: int = BATCH, *, floats: bool = False) -> Iterator[Batch]:
    """Endless batches, made when they are asked for; as stored, or as float32."""
    stages, device = Stages.single(batch, GT_SIZE), CPU if floats else None
    return Loader(
        source, stages, hflip=True, rot=True, seed=SEED, workers=0, device=device
    ).batches(0)


def draws(items: int) -> Iterator[Draw]:
    """The draws of the same stream."""
    epoch = 0
    while True:
        indices = order(SEED, epoch, items)
        words = sample_words(SEED, np.full(items, epoch), indices).tolist()
        for index, word in zip(indices.tolist(), words, strict=True):
            yield Draw((SEED, epoch, index), word, GT_SIZE)
        epoch += 1


class Way:
    """One way of feeding: something to time, the samples it makes, and the files it reads."""

    def __init__(self, run: Callable[[], object], samples: int, *folders: Path) -> None:
        self.run, self.samples, self.folders = run, samples, folders
        self.times: list[float] = []

    def time(self, clock: Callable[[], float]) -> None:
        """Run once; seconds a sample."""
        start = clock()
        self.run()
        self.times.append((clock() - start) / self.samples)


def ours(source: Source, samples: int, floats: bool, *folders: Path, batch: int = BATCH) -> Way:
    """Batches of a source, left as integers or made floats."""
    batches = stream(source, batch, floats=floats)

    count = max(1, samples // batch)
    return Way(lambda: deque(islice(batches, count), maxlen=0), count * batch, *folders)


def theirs(baseline: Baseline, items: int, samples: int, *folders: Path) -> Way:
    """Samples of a baseline."""
    chance = draws(items)
    return Way(
        lambda: [baseline(draw, SCALE) for draw in islice(chance, samples)], samples, *folders
    )


def floor(source: Source, samples: int) -> Way:
    """Copying the crops out of decoded images into a batch, and nothing else."""
    pairs = [source[index] for index in range(len(source))]
    side = GT_SIZE // SCALE
    gt = np.empty((BATCH, GT_SIZE, GT_SIZE, 3), np.uint8)
    lq = np.empty((BATCH, side, side, 3), np.uint8)
    chance = draws(len(source))
    places = [
        (draw.key[2], draw.box("", HEIGHT // SCALE, WIDTH // SCALE, SCALE))
        for draw in islice(chance, samples)
    ]

    def run() -> None:
        for number, (index, box) in enumerate(places):
            pair = pairs[index]
            assert pair.gt is not None
            lq[number % BATCH] = pair.lq[box.slices]
            gt[number % BATCH] = pair.gt[box.times(SCALE).slices]

    return Way(run, samples)


def refuse_difference(source: Source, baseline: Baseline, count: int) -> None:
    """Raises SystemExit unless both give the same floats for the same draws."""
    batches, chance, seen = stream(source, 8, floats=True), draws(len(source)), 0
    while seen < count:
        for lq, gt in zip(*next(batches).to(CPU), strict=True):
            theirs = baseline(next(chance), SCALE)
            if not (torch.equal(lq, theirs[0]) and torch.equal(gt, theirs[1])):
                raise SystemExit(f"sample {seen} differs from the baseline's")
            seen += 1


class Prepared:
    """Everything on disk, and the CPU seconds that each store took."""

    def __init__(self, root: Path, count: int) -> None:
        self.root, self.count = root, count
        self.hr, self.lr = write_photos(root, count)
        self.seconds: dict[str, float] = {}
        self.names: list[str] = []
        self._timed("sub-images", self._sub_images)
        self._timed("LMDB", self._lmdb)
        sides = {"gt": self.hr, "lq": self.lr}
        for layout in ("rows", "tiles"):
            make = partial(prepare, "pack", sides, root / layout, layout=layout)
            self._timed(layout, make)
        subs = {side: root / "sub" / side for side in sides}  # a process opens an LMDB only once
        self._timed("our LMDB", partial(prepare, "lmdb", subs, root / "our lmdb"))

    def _timed(self, what: str, make: Callable[[], object]) -> None:
        start = time.process_time()
        make()
        self.seconds[what] = (time.process_time() - start) / self.count

    def _sub_images(self) -> None:
        (self.root / "sub").mkdir()
        self.names = cut_up(self.hr, self.root / "sub/gt", 480, 240)
        cut_up(self.lr, self.root / "sub/lq", 480 // SCALE, 240 // SCALE)

    def _lmdb(self) -> None:
        (self.root / "lmdb").mkdir()
        for side in ("gt", "lq"):
            make_lmdb(self.root / "sub" / side, self.root / f"lmdb/{side}.lmdb")

    def baseline(self, kind: str, checkout: Path | None) -> tuple[Baseline, int]:
        """(samples by draw, how many images): `whole`, `sub` or `lmdb`."""
        names = self.names if kind != "whole" else sorted(f.stem for f in self.hr.iterdir())
        gt, lq = {
            "whole": (self.hr, self.lr),
            "sub": (self.root / "sub/gt", self.root / "sub/lq"),
            "lmdb": (self.root / "lmdb/gt.lmdb", self.root / "lmdb/lq.lmdb"),
        }[kind]
        backend = "lmdb" if kind == "lmdb" else "disk"
        if checkout is None:
            return Plain(gt, lq, sorted(names), backend=backend), len(names)
        made = Real(checkout, gt, lq, backend=backend, scale=SCALE, gt_size=GT_SIZE)
        return made, len(names)

    def source(self, kind: str) -> Source:
        """Ours: `whole`, `sub`, `our lmdb`, `rows`, `tiles`; `rows, sub`: its sub-images."""
        if kind == "whole":
            return source_of(self.hr, self.lr, {"type": "disk"})
        folder, _, cut = kind.partition(", ")
        if folder == "sub":
            return source_of(self.root / "sub/gt", self.root / "sub/lq", {"type": "disk"})
        backend: dict[str, Any] = {"type": "lmdb" if folder == "our lmdb" else "pack"}
        if cut:
            backend["sub_images"] = {"crop_size": 480, "step": 240}
        store = self.root / folder
        return source_of(*(store / f"{side}.{backend['type']}" for side in ("gt", "lq")), backend)


def warm(made: Prepared, checkout: Path | None, rounds: int, few: int) -> str:
    """The table of CPU time with all files in memory."""
    for kind, base in (("rows, sub", "lmdb"), ("tiles, sub", "sub"), ("whole", "whole"),
                       ("our lmdb", "lmdb"), ("sub", "sub")):  # fmt: skip
        refuse_difference(made.source(kind), made.baseline(base, checkout)[0], 2 * few)
    many, root, r = 64 * few, made.root, made.source
    base = partial(made.baseline, checkout=checkout)
    reference = "BasicSR, LMDB of sub-images, float32"
    stored = root / "lmdb", root / "sub", root / "our lmdb"
    ways = {
        reference: theirs(*base("lmdb"), 4 * few, stored[0]),
        "BasicSR, PNG of sub-images, float32": theirs(*base("sub"), 4 * few, stored[1]),
        "BasicSR, PNG of 2K images, float32": theirs(*base("whole"), few, made.hr, made.lr),
        "LMDB of sub-images, float32": ours(r("our lmdb"), 4 * few, True, stored[2], batch=few),
        "PNG of sub-images, float32": ours(r("sub"), 4 * few, True, stored[1], batch=few),
        "PNG of 2K images, float32": ours(r("whole"), few, True, made.hr, made.lr, batch=few),
        "pack in tiles, uint8": ours(r("tiles"), many, False, root / "tiles"),
        "pack in rows, float32": ours(r("rows"), many, True, root / "rows"),
        "pack in rows, uint8": ours(r("rows"), many, False, root / "rows"),
        "pack in rows, sub-images, uint8": ours(r("rows, sub"), many, False, root / "rows"),
        FLOOR: floor(r("rows"), many),
    }
    for way in ways.values():
        way.run()
    for _ in range(rounds):
        for way in ways.values():
            way.time(time.process_time)
    pixels = made.count * HEIGHT * WIDTH
    lines = [
        [
            name,
            f"{1e6 * statistics.median(way.times):.0f}",
            f"{1e6 * min(way.times):.0f} … {1e6 * max(way.times):.0f}",
            f"{paired(ways[reference], way):.2f} ×",
            f"{size_of(*way.folders) / pixels:.2f}" if way.folders else "",
            f"{100 * resident(files_of(*way.folders)):.0f} %" if way.folders else "",
        ]
        for name, way in ways.items()
    ]
    head = ["way", "CPU µs/sample", "min … max", "vs LMDB", "B/HR px", "in memory"]
    ends = [
        f"PNG of {what} against BasicSR's: "
        f"{paired(ways[f'BasicSR, PNG of {what}, float32'], ways[f'PNG of {what}, float32']):.2f} ×"
        for what in ("sub-images", "2K images")
    ]
    fast, took = ways["pack in rows, uint8"], {k: 1e3 * v for k, v in made.seconds.items()}
    slow = took["sub-images"] + took["LMDB"]
    ends += [
        f"pack in rows, uint8: {paired(fast, ways[FLOOR]):.2f} × the floor",
        f"preparation, CPU ms an image: sub-images {took['sub-images']:.0f} + LMDB "
        f"{took['LMDB']:.0f}; pack in rows {took['rows']:.0f}, {slow / took['rows']:.1f} × faster; "
        f"in tiles {took['tiles']:.0f}",
    ]
    return "\n".join([text_table(head, lines), "", *ends])


def paired(slow: Way, fast: Way) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(slow.times, fast.times, strict=True))


def cold(made: Prepared, checkout: Path | None, rounds: int, few: int) -> str:
    """The table of wall time from a disk whose pages have been dropped.

    A store is opened anew for every round: the system keeps what a process has mapped.
    """
    refuse_difference(made.source("tiles, sub"), made.baseline("lmdb", checkout)[0], 2 * few)
    root, samples, reference = made.root, 4 * few, "BasicSR, LMDB of sub-images"

    def pack(layout: str) -> Way:
        return ours(made.source(layout), samples, True, root / layout, batch=samples)

    openings = {
        reference: lambda: theirs(*made.baseline("lmdb", checkout), samples, root / "lmdb"),
        "pack in rows": lambda: pack("rows"),
        "pack in tiles": lambda: pack("tiles"),
    }
    folders = dict(zip(openings, (root / "lmdb", root / "rows", root / "tiles"), strict=True))
    times: dict[str, list[float]] = {name: [] for name in openings}
    read: dict[str, list[float]] = {name: [] for name in openings}
    left = 0.0
    for _ in range(rounds):
        for name, opening in openings.items():
            gc.collect()
            files = files_of(folders[name])
            drop(files)
            left = max(left, resident(files))
            way, before = opening(), _read_from_disk()
            way.time(time.perf_counter)
            times[name] += way.times
            read[name].append((_read_from_disk() - before) / samples)
            del way
    lines = [
        [
            name,
            f"{1e3 * statistics.median(own):.2f}",
            f"{1e3 * min(own):.2f} … {1e3 * max(own):.2f}",
            f"{ratio(times, reference, name):.1f} ×",
            f"{statistics.median(read[name]) / 1e6:.2f}",
        ]
        for name, own in times.items()
    ]
    head = ["way, float32", "wall ms/sample", "min … max", "vs LMDB", "MB read/sample"]
    return text_table(head, lines) + f"\n\nin memory after dropping: at most {100 * left:.0f} %"


def _read_from_disk() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def main() -> None:
    """Prepare, compare, measure and record."""
    parser = command_line(__doc__, quick="fewer images and rounds")
    parser.add_argument("--baseline", type=Path, metavar="BASICSR", help="a checkout of BasicSR")
    parser.add_argument("--cold", action="store_true", help="from disk, pages dropped")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    count, rounds, few = (8, 3, 8) if args.quick else (40, 5, 16)
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and not args.cold else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        made = Prepared(Path(folder), count)
        body = (cold if args.cold else warm)(made, args.baseline, rounds, few)
    against = "its own files" if args.baseline else "a plain twin of it"
    about = f"{count} images of {WIDTH}×{HEIGHT}; BasicSR by {against}; samples equal bit for bit"
    body = f"{about}\n\n{body}"
    record(args, "Training samples" + (", cold disk" if args.cold else ""), body)


if __name__ == "__main__":
    main()
