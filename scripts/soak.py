"""Kill a training run again and again, also while it saves, and compare what it ends with.

  python scripts/soak.py --kills 200
  python scripts/soak.py --kills 50 --ranks 2

A tiny network is trained on the demo set once undisturbed, then again and again under SIGKILL:
every life continues where the last checkpoint stands, and is killed after a random time or in the
middle of a save (a temporary folder is there). After every kill every checkpoint there must be
whole; every run that reaches its end must hold the same bytes as the undisturbed one. Lives are
forked from a process that has torch loaded, so that a kill costs a second and not ten; they run the
command `train` as it is. With several ranks one is killed, and the others must end by themselves.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also: a process with threads cannot be forked

from restore.commands import train  # noqa: E402, F401 (all that a life needs, before the forks)
from restore.commands.main import main  # noqa: E402
from restore.recipes import build  # noqa: E402, F401
from restore.training.checkpoint import Checkpoints, fault_of  # noqa: E402

STEPS = 24
OPTIONS = [
    "num_gpu=0", "network_g.feature_channels=8", "train.scheduler=~", f"train.total_iter={STEPS}",
    "datasets.train.iters=[13,11]", "datasets.train.gt_sizes=[32,48]",
    "datasets.train.mini_batch_sizes=[2,1]", "datasets.train.gt_size=48",
    "datasets.train.num_worker_per_gpu=1", "val.val_freq=24", "logger.save_checkpoint_freq=1",
    "logger.use_tb_logger=false",
]  # fmt: skip


@dataclass
class Tally:
    """What has happened so far."""

    kills: int = 0
    in_a_save: int = 0
    """Kills that left a half-written checkpoint."""
    runs: int = 0
    """Runs that reached their end and were compared."""
    faults: list[str] = field(default_factory=list)


class Soak:
    """Runs of the demo set in `folder`, on `ranks` processes; `rng` decides when to kill."""

    def __init__(self, folder: Path, ranks: int, rng: random.Random) -> None:
        self.folder, self.ranks, self._rng = folder, ranks, rng
        self.tally = Tally()

    def checkpoints(self, name: str) -> Path:
        return self.folder / "experiments" / name / "checkpoints"

    def life(self, name: str) -> list[int]:
        """Start the run `name`, or continue it: the process of each rank."""
        words = ["train", "-opt", str(ROOT / "options/train_SPAN_demo.yml"), "--auto_resume"]
        words += ["--set", f"name={name}", *OPTIONS]
        port = _free_port()
        return [self._rank(words, rank, port) for rank in range(self.ranks)]

    def _rank(self, words: list[str], rank: int, port: int) -> int:
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            os.chdir(self.folder)
            with open(self.folder / f"said-{rank}.log", "ab") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            if self.ranks > 1:
                where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": rank}
                for key, value in {**where, "RANK": rank, "WORLD_SIZE": self.ranks}.items():
                    os.environ[key] = str(value)
                words = [*words, "--launcher", "pytorch"]
            code = main(words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def undisturbed(self) -> dict[str, bytes]:
        """The files that a run ends with when nothing happens to it."""
        codes = [_ended(pid) for pid in self.life("undisturbed")]
        if any(codes):
            sys.exit(f"the undisturbed run failed ({codes}): see {self.folder}/said-0.log")
        return _contents(self.checkpoints("undisturbed") / f"step_{STEPS:08d}")

    def run(self, kills: int, until: float, length: float) -> Tally:
        """Kill until there have been `kills` or it is `until`; `length`: seconds of a whole run.

        The moments to kill at follow how fast the machine is just then.
        """
        expected = self.undisturbed()
        name, tally = f"run-{self.tally.runs}", self.tally
        while tally.kills < kills and time.monotonic() < until:
            pids = self.life(name)
            killed = self._kill_one(pids, name, length)
            codes = self._all_ended(pids)
            length *= 1.1 if killed else 0.7
            if killed:
                tally.kills += 1
                self._look(name)
            elif any(codes):
                said = (self.folder / "said-0.log").read_text(errors="replace")[-2000:]
                tally.faults.append(f"{name}: exit codes {codes} without a kill\n{said}")
                return tally
            if not killed:
                self._compare(name, expected)
                name = f"run-{tally.runs}"
        for pid in (pids := self.life(name)):
            if _ended(pid):
                tally.faults.append(f"{name}: the last life of {len(pids)} failed")
        self._compare(name, expected)
        return tally

    def _kill_one(self, pids: list[int], name: str, length: float) -> bool:
        """SIGKILL one rank at a random time or in the next save; False if all ended before."""
        deadline = time.monotonic() + self._rng.uniform(0, length)
        in_a_save = self._rng.random() < 0.5
        victim = pids[0] if in_a_save else self._rng.choice(pids)
        folder, soon = self.checkpoints(name), self._rng.uniform(0, 0.004)
        while not _is_over(victim):
            now = time.monotonic()
            if in_a_save and now > deadline - length / 2 and any(folder.glob(".tmp-*")):
                time.sleep(soon)
                os.kill(victim, signal.SIGKILL)
                return True
            if not in_a_save and now > deadline:
                os.kill(victim, signal.SIGKILL)
                return True
            time.sleep(0.0002 if in_a_save else 0.002)
        return False

    def _all_ended(self, pids: list[int]) -> list[int]:
        """Wait for every rank; those that outlive a killed one for long are ended too."""
        deadline = time.monotonic() + 30
        codes: dict[int, int] = {}
        while len(codes) < len(pids):
            for pid in pids:
                if pid not in codes and _is_over(pid):
                    codes[pid] = _ended(pid)
            if time.monotonic() > deadline:
                self.tally.faults.append("a rank outlived the others by 30 s")
                for pid in set(pids) - set(codes):
                    os.kill(pid, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.002)
        return list(codes.values())

    def _look(self, name: str) -> None:
        """After a kill: is what is there whole?"""
        folder = self.checkpoints(name)
        if any(folder.glob(".tmp-*")):
            self.tally.in_a_save += 1
        steps = Checkpoints(folder, 3, {}).steps()
        for step in steps:
            fault = fault_of(folder / f"step_{step:08d}")
            if fault is not None:
                self.tally.faults.append(f"{name}: step {step}: {fault}")

    def _compare(self, name: str, expected: dict[str, bytes]) -> None:
        found = _contents(self.checkpoints(name) / f"step_{STEPS:08d}")
        for file in sorted(expected.keys() | found.keys()):
            if found.get(file) != expected.get(file):
                self.tally.faults.append(f"{name}: {file} differs from the undisturbed run's")
        self.tally.runs += 1
        shutil.rmtree(self.checkpoints(name).parent, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _is_over(pid: int) -> bool:
    """Whether a child has ended; it is left to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()} if folder.is_dir() else {}


def soak(folder: Path, kills: int, minutes: float, ranks: int, seed: int) -> Tally:
    """The whole of it in `folder`, which is made; the length of a life is measured first."""
    demo = str(folder / "datasets/demo")
    if main(["prepare", "demo", "--out", demo]):
        sys.exit("no demo set")
    logging.getLogger("restore").handlers.clear()
    test = Soak(folder, ranks, random.Random(seed))
    begun = time.monotonic()
    for pid in test.life("measured"):
        _ended(pid)
    return test.run(kills, begun + 60 * minutes, time.monotonic() - begun)


def begin() -> int:
    """Parse, soak, report; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0, help="to stop after in any case")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments to kill at")
    args = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        tally = soak(Path(folder), args.kills, args.minutes, args.ranks, args.seed)
    print(
        f"{tally.kills} kills on {args.ranks} rank(s), {tally.in_a_save} in the middle of a save; "
        f"{tally.runs} runs ended, compared byte for byte; {time.monotonic() - begun:.0f} s"
    )
    for fault in tally.faults:
        print("FAULT", fault)
    print("all equal, always loadable" if not tally.faults else f"{len(tally.faults)} faults")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(begin())
