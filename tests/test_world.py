"""Processes and devices: what the environment must hold, and real gloo ranks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from restore.errors import BackendError
from restore.world import World

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_alone_on_the_cpu() -> None:
    with World.start(num_gpu=0) as world:
        pass
    assert world == World() and world.first and world.device == torch.device("cpu")
    values = torch.tensor([1.0, float("inf")])
    assert world.sum(values) is values and world.any(True) and not world.any(False)
    assert world.gather_bytes(b"alone\0", 6) == [b"alone\0"]
    world.barrier()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(BackendError) as caught:
        World.start(num_gpu=8)
    assert str(caught.value).startswith(
        "error[DEV01]: a GPU was asked for and there is none (num_gpu): got 8 (torch "
        f"{torch.__version__}: "
    )
    assert World.start(num_gpu="auto").device.type == "cpu"


@pytest.mark.parametrize(
    ("environment", "launcher", "code"),
    [
        ({}, "pytorch", "DST01"),
        ({"RANK": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "pytorch", "DST01"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "pytorch", "DST02"),
        ({"WORLD_SIZE": "2"}, "none", "DST07"),
        ({}, "slurm", "DST01"),
    ],
)
def test_wrong_environment(
    environment: dict, launcher, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BackendError, match=code):
        World.start(launcher, num_gpu=0)


RANKS = r"""
import sys, time, torch
from restore.world import World

with World.start("pytorch", num_gpu=0) as world:
    cells = torch.zeros(4, dtype=torch.float64)
    cells[world.rank] = 0.1 * (world.rank + 1)
    assert world.sum(cells).tolist() == [0.1, 0.2, 0.1 * 3, 0.0]
    assert world.any(world.rank == 2) and not world.any(False)
    texts = [b"", "ä\0\0".encode(), bytes(range(256))]
    assert world.gather_bytes(texts[world.rank], 256) == texts
    layer = world.wrap(torch.nn.Linear(1, 1, bias=False))
    layer(torch.full((1, 1), float(world.rank))).sum().backward()
    assert next(layer.parameters()).grad.item() == 1.0
    if world.rank == int(sys.argv[1]):
        time.sleep(1)  # the others are at the door meanwhile
    world.barrier()
    sys.stdout.write(f"rank {world.rank} of {world.size}\n")
"""


@pytest.mark.parametrize("late", [0, 1, 2])
def test_three_ranks_agree_and_leave_together(tmp_path: Path, late: int) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    done = subprocess.run(
        [*command, str(script), str(late)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")[:3]) == [f"rank {r} of 3" for r in range(3)]


def test_a_failing_rank_is_not_waited_for(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text(
        "from restore.world import World\n"
        "with World.start('pytorch', num_gpu=0) as world:\n"
        "    if world.rank == 1:\n"
        "        raise ValueError('rank 1 fails')\n"
        "    world.barrier()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "rank 1 fails" in done.stderr


def test_ranks_started_again_do_not_meet_those_that_are_gone(tmp_path: Path) -> None:
    """After a restart rank 1 comes first: it must wait for the new rank 0, not call the old one."""
    script = tmp_path / "again.py"
    script.write_text(
        "import os, time\n"
        "from restore.world import World\n"
        "again = os.environ['TORCHELASTIC_RESTART_COUNT'] == '1'\n"
        "if again and os.environ['RANK'] == '0':\n"
        "    time.sleep(6)  # gloo calls for 5 s\n"
        "with World.start('pytorch', num_gpu=0) as world:\n"
        "    world.barrier()\n"
        "    if not again:\n"
        "        raise SystemExit(1)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "--max-restarts=1", str(script)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
