"""Real commands for tests: run in a user's folder, stopped, and what they left read back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 300


def command(script: str, options: str, name: str, *more: str) -> list[str]:
    """The words of train.py or test.py with one of our option files; `more`: overrides, flags."""
    return [
        sys.executable, str(ROOT / script), "-opt", str(ROOT / "options" / options),
        "--set", f"name={name}", *more,
    ]  # fmt: skip


def on_ranks(ranks: int, words: list[str], *launcher: str) -> list[str]:
    """The same command by torchrun on `ranks` processes of this machine."""
    how = launcher or ("--standalone",)
    torchrun = [sys.executable, "-m", "torch.distributed.run", *how, f"--nproc-per-node={ranks}"]
    return [*torchrun, *words[1:], "--launcher", "pytorch"]


def environment(*, gpus: bool = False) -> dict[str, str]:
    """One thread, and no GPU unless `gpus` says so."""
    here = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **here, **({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})}


def run(words: list[str], place: Path, expected: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in `place` to its end, which must be the exit code `expected`."""
    done = subprocess.run(
        words, cwd=place, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == expected, done.stderr
    return done


def start(words: list[str], place: Path, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a command in `place`; what it says goes to `log`."""
    with open(log or os.devnull, "wb") as stream:
        return subprocess.Popen(words, cwd=place, env=environment(), stderr=stream, stdout=stream)


def wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    """Until `file` is there, while `process` lives."""
    deadline = time.monotonic() + PATIENCE
    while not file.exists():
        assert process.poll() is None, "ended before it was to be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def start_until(words: list[str], place: Path, file: Path) -> subprocess.Popen[bytes]:
    """Start a command and wait for `file` to appear."""
    process = start(words, place)
    wait_for(file, process)
    return process


def children(pid: int) -> list[int]:
    """The processes that process `pid` has started, oldest first."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def checkpoint(place: Path, name: str, step: int) -> Path:
    """The folder of a run's checkpoint of `step`."""
    return place / "experiments" / name / "checkpoints" / f"step_{step:08d}"


def contents(folder: Path) -> dict[str, bytes]:
    """File name -> bytes."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
