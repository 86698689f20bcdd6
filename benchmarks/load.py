"""Large loads: 100,000 images, 50 validation sets, 108 megapixels, 1,000 readers, a week of log,
10,000 experiments.

  python benchmarks/load.py [--case NAME …] [--quick] [--no-record]

Every case is real commands or objects in processes of their own, their answers asserted. CPU and
wall time are those of a whole process, imports included, and so is the peak of resident memory.
`--quick` is a tenth or less of each load: whether it works, not what it takes.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from restore import images
from restore.archs.build import build_network, network_options
from restore.archs.weights import describe, write_safetensors
from restore.data.stores.pack_writer import write_pack
from restore.reports.tables import text_table

from common import command_line, record
from load_programs import LOGS, PROLOGUE, READERS
from many_images import opened_twice, write_links

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "from restore.commands.main import main\nsys.exit(main(sys.argv[1:]))"
HEAD = ["what", "CPU s", "wall s", "peak MiB"]
NETWORK = {"type": "SPAN", "feature_channels": 16, "upscale": 2}


@dataclass(frozen=True)
class Taken:
    """What a process took, and what it printed."""

    cpu: float
    wall: float
    peak: float
    out: str

    def row(self, what: str) -> list[str]:
        return [what, f"{self.cpu:.1f}", f"{self.wall:.1f}", f"{self.peak:.0f}"]


def taken(place: Path, body: str, *words: str, files: int | None = None, code: int = 0) -> Taken:
    """Run Python statements in `place`; `files`: how many they may hold open; `code`: of exit."""
    report = place / ".peak"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PEAK": str(report)}
    program, started = [sys.executable, "-c", PROLOGUE + body, *words], time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if files is not None:
        program = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *program]
    done = subprocess.run(program, cwd=place, env=env, capture_output=True, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, done.stderr[-3000:]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(cpu, wall, int(report.read_text()) / 1024, done.stdout)


def command(place: Path, *words: str, code: int = 0) -> Taken:
    """Run `restore WORDS`."""
    return taken(place, COMMAND, *words, code=code)


def bar(what: str, value: float, most: float, unit: str) -> str:
    """A line that says whether a figure holds."""
    return f"{what} {value:.1f} {unit}, bar ≤ {most:g}: {'holds' if value <= most else 'MISSED'}"


def weights(place: Path) -> Path:
    """An untrained SPAN ×2 of 16 channels, as the demo trains."""
    file, options = place / "span.safetensors", network_options(NETWORK)
    torch.manual_seed(0)
    write_safetensors(file, build_network(options).state_dict(), describe(options, 2))
    return file


def training(place: Path, name: str, **sections: object) -> Path:
    """An option file of a run of 4 steps on the pairs in gt and lq."""
    options: dict[str, object] = {
        "name": name,
        "scale": 2,
        "num_gpu": 0,
        "datasets": {"train": {**pairs("gt", "lq"), "gt_size": 32, "batch_size_per_gpu": 1}},
        "network_g": NETWORK,
        "train": {
            "total_iter": 4,
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "pixel_opt": {"type": "L1Loss"},
        },
        "logger": {"use_tb_logger": False},
    }
    file = place / f"{name}.yml"
    file.write_text(json.dumps(options | sections))  # JSON is YAML
    return file


def pairs(gt: str, lq: str) -> dict[str, object]:
    """A data set of pairs."""
    return {"type": "PairedImageDataset", "dataroot_gt": gt, "dataroot_lq": lq}


# Cases --------------------------------------------------------------------------------------------


def folder(place: Path, quick: bool) -> str:
    """A training folder of 100,000 pairs: opening it, a run of 4 steps on it, and the doctor."""
    count = 10_000 if quick else 100_000
    gt, lq = write_links(place, count)
    openings = opened_twice(gt, lq)
    rows = [[f"{which} opening", cpu, wall, peak] for which, wall, cpu, peak in openings]
    file = training(place, "run")
    run = command(place, "train", "-opt", str(file))
    rows.append(run.row("restore train, 4 steps"))
    assert f"on {count} training images" in (place / "experiments/run/train.log").read_text()
    shrunk = place / "DIV2K_train_LR_bicubic/X2"
    shrunk.mkdir(parents=True)
    for number in range(count):
        os.rename(lq / f"{number:06d}.png", shrunk / f"{number:06d}x2.png")
    gt.rename(place / "DIV2K_train_HR")
    looked = command(place, "prepare", "doctor", "div2k", "--out", ".", code=1)  # 800 it would be
    rows.append(looked.row(f"restore prepare doctor, {2 * count:,} files"))
    assert "every file has its partner" in looked.out and f"{count} of 8 bit" in looked.out
    (_, first, _, peak), (_, second, _, _) = rows[:2]
    return "\n".join(
        [
            f"{count:,} pairs; an opening's memory is what it adds to the process",
            text_table(HEAD, rows),
            bar("first opening", float(first), 10, "s CPU"),
            bar("its memory", float(peak), 200, "MiB"),
            bar("second opening", float(second), 2, "s CPU"),
        ]
    )


def sets(place: Path, quick: bool) -> str:
    """1, 10 and 50 validation sets of 4 images of 64²; then a test of as many."""
    counts, rows, file = ([1, 10] if quick else [1, 10, 50]), [], weights(place)
    write_links(place, 4)
    for count in counts:
        several = {f"val_{k}": {**pairs("gt", "lq"), "name": f"Set{k:02d}"} for k in range(count)}
        train = {"train": {**pairs("gt", "lq"), "gt_size": 32, "batch_size_per_gpu": 1}}
        options = training(
            place,
            f"train{count}",
            datasets=train | several,
            val={"val_freq": 2, "protocol": "sr-y"},
        )
        run = command(place, "train", "-opt", str(options))
        rows.append(run.row(f"train, 2 validations of {count}"))
        lines = (place / f"experiments/train{count}/log.jsonl").read_text().splitlines()
        scored = [line for line in lines if "val/Set" in line]
        assert len(scored) == 2 * count
    for count in counts[-1:] if quick else counts:
        several = {f"test_{k}": {**pairs("gt", "lq"), "name": f"Set{k:02d}"} for k in range(count)}
        options = {
            "name": f"test{count}", "scale": 2, "num_gpu": 0, "datasets": several,
            "network_g": NETWORK, "path": {"pretrain_network_g": str(file)},
            "val": {"protocol": "sr-y"},
        }  # fmt: skip
        (place / "test.yml").write_text(json.dumps(options))
        rows.append(command(place, "test", "-opt", "test.yml").row(f"test of {count}"))
        scored = (place / f"experiments/test{count}/results/rows.jsonl").read_text().splitlines()
        assert len(scored) == 4 * count
    page = (place / f"experiments/test{counts[-1]}/results/report/index.html").read_text()
    assert all(f"Set{k:02d}" in page for k in range(counts[-1]))
    return text_table(HEAD, rows) + f"\npage of {counts[-1]} sets: {len(page) >> 10} KiB"


def large(place: Path, quick: bool) -> str:
    """One image of 12,000 × 9,000 through `restore infer`, ×2: 432 megapixels out."""
    width, height = (2000, 1500) if quick else (12_000, 9000)
    rng, source, target = np.random.default_rng(0), place / "in.png", place / "out.png"
    coarse = rng.integers(0, 256, (height // 100, width // 100, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for top in range(0, height, 500):
        rows = image[top : top + 500]
        cv2.add(rows, rng.integers(0, 8, rows.shape, dtype=np.uint8), dst=rows)
    images.write(source, image)
    pixels = image.nbytes / 2**20
    words = ["infer", "--weights", str(weights(place)), "--num_gpu", "0", "--tile-memory", "0.25"]
    run = command(place, *words, "--max-pixels", "200000000", str(source), str(target))
    corner = place / "corner.png"  # the last tile, by itself
    images.write(corner, image[-400:, -400:])
    command(place, *words, str(corner), str(place / "corner_out.png"))
    shrunk = images.read(place / "corner_out.png")[200:, 200:]  # beyond the network's reach
    del image
    restored = images.read(target, max_pixels=10**9)
    assert restored.shape == (2 * height, 2 * width, 3)
    differ = np.abs(restored[-600:, -600:].astype(int) - shrunk).max()
    assert differ <= 1, differ
    return "\n".join(
        [
            text_table(HEAD, [run.row(f"infer, SPAN 16ch ×2, {width} × {height}")]),
            f"decoded, the input is {pixels:.0f} MiB and the result {4 * pixels:.0f} MiB; "
            f"--tile-memory 0.25; the PNG has {target.stat().st_size >> 20} MiB",
            bar("peak", run.peak, 1536, "MiB"),
        ]
    )


def readers(place: Path, quick: bool) -> str:
    """1,000 readers of a pack in threads, and in 8 processes, of at most 1,024 open files each."""
    count, rng, rows = (200 if quick else 1000), np.random.default_rng(0), []
    pool = rng.integers(0, 256, (50, 300, 400, 3), dtype=np.uint8)
    names = [f"{k}.png" for k in range(len(pool))]
    for layout in ("rows", "tiles"):
        write_pack(place / layout, names, lambda k: pool[k], tiles=layout == "tiles")
        for processes in (1, 8):
            words = [str(place / layout), str(count // processes), str(processes)]
            run = taken(place, READERS, *words, files=1024)
            opened, wrong, descriptors, peak = map(int, run.out.split())
            assert opened == count // processes * processes and not wrong
            where = f"{processes} processes" if processes > 1 else "threads"
            run = replace(run, peak=peak / 1024)
            rows.append([*run.row(f"{layout}, {opened} in {where}"), str(descriptors)])
    return (
        text_table([*HEAD, "open files"], rows) + "\nmemory and open files: of the largest process"
    )


def week(place: Path, quick: bool) -> str:
    """3 million steps' reports through the clock and the sinks of a run, and read back."""
    steps, rows = (20_000 if quick else 3_000_000), []
    for every in (100, 1):
        run = taken(place, LOGS, str(steps), str(every), str(place / f"log{every}"))
        mib = {key: value / 2**20 for key, value in json.loads(run.out.splitlines()[-1]).items()}
        found = [f"{mib[k]:.1f}" for k in ("log.jsonl", "train.log", "tb_logger", "index.html")]
        rows.append([*run.row(f"print_freq {every}"), *found])
        assert mib["log.jsonl"] < 64 and mib["index.html"] < 1
    head = [*HEAD, "log.jsonl MiB", "train.log MiB", "tb_logger MiB", "page MiB"]
    return f"{steps:,} steps, a validation with a picture every 5,000\n" + text_table(head, rows)


def siblings(place: Path, quick: bool) -> str:
    """Commands beside 1 and beside 10,000 other experiments."""
    many, rows, spent = (1000 if quick else 10_000), [], {}
    write_links(place, 4)
    file = training(place, "run")
    root = place / "experiments"
    for count in (1, many):
        for number in range(count):
            other = root / f"other{number}/checkpoints/step_00000004"
            other.mkdir(parents=True, exist_ok=True)
            (other.parent / "latest.json").write_text('{"step": 4}')
            (other.parents[1] / "log.jsonl").write_text('{"step": 4, "loss": 1}\n')
        runs = {
            "train": ("train", "-opt", str(file), "--overwrite"),
            "train --auto_resume": ("train", "-opt", str(file), "--auto_resume"),
            "infer": ("infer", "--weights", str(root / "run"), "lq", f"out{count}"),
        }
        if quick:
            runs = {key: runs[key] for key in ("train --auto_resume",)}
        for what, words in runs.items():
            run = command(place, *words)
            rows.append(run.row(f"{what} beside {count:,}"))
            spent[what, count] = run.cpu
    slower = [f"{what}: {spent[what, many] - spent[what, 1]:+.2f} s CPU" for what in runs]
    return text_table(HEAD, rows) + "\n" + ", ".join(slower)


CASES: dict[str, Callable[[Path, bool], str]] = {
    "folder": folder,
    "sets": sets,
    "large": large,
    "readers": readers,
    "week": week,
    "siblings": siblings,
}


def run(names: Sequence[str], quick: bool) -> str:
    """The figures of the named cases."""
    parts = []
    for name in names:
        memory = Path("/dev/shm")
        small = name != "large" and memory.is_dir()
        with tempfile.TemporaryDirectory(dir=memory if small else None) as place:
            case = CASES[name]
            title = (case.__doc__ or "").split("\n")[0]
            parts.append(f"{name}. {title}\n{case(Path(place), quick)}")
            print(parts[-1] + "\n", flush=True)
    return "\n\n".join(parts)


def main() -> None:
    """Measure and record."""
    parser = command_line(__doc__, quick="a tenth or less of each load")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only these cases")
    args = parser.parse_args()
    record(args, "Load", run(args.case or list(CASES), args.quick))


if __name__ == "__main__":
    main()
