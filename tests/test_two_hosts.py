"""A run on two nodes, by scripts/launch_node.sh: one is cut off and killed, and the run goes on.

Two network namespaces with an address each are two hosts as far as torchrun can tell; where they
may not be made, two addresses of the loopback device stand in, without the cut.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runs import ROOT, checkpoint, command, contents, environment, on_ranks, run, wait_for

STEPS = 120
SMALL = (
    f"num_gpu=0 network_g.feature_channels=8 train.scheduler=~ train.total_iter={STEPS} "
    "datasets.train.gt_size=64 datasets.train.batch_size_per_gpu=4 train.global_batch=8 "
    "val.val_freq=1000 logger.save_checkpoint_freq=5 logger.print_freq=5 "
    "logger.use_tb_logger=false dist_params.timeout=20"
).split()
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Host:
    """What stands before a command to run it on this host, and how others reach it."""

    prefix: tuple[str, ...]
    address: str
    interface: str

    def cut(self) -> None:
        """Take the host's link down: nobody is told."""
        if self.prefix:
            _ip("-n", self.prefix[-1], "link", "set", self.interface, "down")

    def heal(self) -> None:
        if self.prefix:
            _ip("-n", self.prefix[-1], "link", "set", self.interface, "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture(params=["namespaces", "loopback"])
def hosts(request: pytest.FixtureRequest) -> Iterator[tuple[Host, Host]]:
    if request.param == "loopback":
        yield Host((), "127.0.0.1", "lo"), Host((), "127.0.0.2", "lo")
        return
    number = os.getpid() % 10000
    names = [f"rt{number}a", f"rt{number}b"]
    made = []
    try:
        for name in names:
            _ip("netns", "add", name)
            made.append(name)
        a, b = names
        _ip("link", "add", f"v{a}", "netns", a, "type", "veth", "peer", f"v{b}", "netns", b)
        found = []
        for end, name in enumerate(names, start=1):
            address = f"10.77.{number % 250}.{end}"
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", f"v{name}")
            for device in ("lo", f"v{name}"):
                _ip("-n", name, "link", "set", device, "up")
            found.append(Host(("ip", "netns", "exec", name), address, f"v{name}"))
        yield found[0], found[1]
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"needs the right to make network namespaces: {reason.strip()}")
    finally:
        for name in made:
            _ip("netns", "del", name)


class Job:
    """One run on two hosts; its nodes are ended with the block."""

    def __init__(self, place: Path, hosts: tuple[Host, Host], nodes: str, name: str) -> None:
        self.place, self.hosts, self.name, self._nodes = place, hosts, name, nodes
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._head = f"{hosts[0].address}:{probe.getsockname()[1]}"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, host: Host, log: str) -> subprocess.Popen[bytes]:
        train = command("train.py", "train_SPAN_demo.yml", self.name, *SMALL, "--auto_resume")
        words = [
            *host.prefix, "bash", str(ROOT / "scripts/launch_node.sh"), "--head", self._head,
            "--own", host.address, "--interface", host.interface, "--nodes", self._nodes,
            "--id", self.name, "--", *train[1:],
        ]  # fmt: skip
        with self.log(log).open("ab") as stream:
            process = subprocess.Popen(
                words, cwd=self.place, stdout=stream, stderr=stream,
                env={**environment(), "PYTHON": sys.executable},
            )  # fmt: skip
        self._started.append(process)
        return process

    def log(self, which: str) -> Path:
        return self.place / f"{self.name}-{which}.log"

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)  # its ranks die with it
            process.wait()


def says(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until `text` is in the log."""
    deadline = time.monotonic() + 240
    while text not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_a_replaced_host_gives_the_same_bytes(place: Path, hosts: tuple[Host, Host]) -> None:
    """Host B is cut off and dies; a new one takes its place; nothing tells it in the weights."""
    if not checkpoint(place, "undisturbed", STEPS).exists():
        train = command("train.py", "train_SPAN_demo.yml", "undisturbed", *SMALL)
        run(on_ranks(2, train), place)
    name = f"replaced-{hosts[0].interface}"
    with Job(place, hosts, "2", name) as job:
        a, b = job.start(hosts[0], "a"), job.start(hosts[1], "b")
        wait_for(checkpoint(place, name, 10), a)
        hosts[1].cut()
        b.kill()
        b.wait()
        hosts[1].heal()
        again = job.start(hosts[1], "b")
        assert a.wait(300) == 0, job.log("a").read_text()
        assert again.wait(60) == 0, job.log("b").read_text()
    assert "resumed from" in job.log("a").read_text()
    ours, theirs = (checkpoint(place, n, STEPS) for n in (name, "undisturbed"))
    assert contents(ours) == contents(theirs)


def test_the_survivor_goes_on_alone_and_takes_a_host_back(
    place: Path, hosts: tuple[Host, Host]
) -> None:
    """--nodes 1:2: B is lost while the run goes on, comes back, and trains along again."""
    name = f"survivor-{hosts[0].interface}"
    with Job(place, hosts, "1:2", name) as job:
        a, b = job.start(hosts[0], "a"), job.start(hosts[1], "b")
        said = job.log("a")
        says(said, "batch 4 × 2 rank(s) = 8", a)
        hosts[1].cut()
        b.kill()
        b.wait()
        says(said, "batch 4 × 1 rank(s) × 2 part(s) = 8", a)
        hosts[1].heal()
        job.start(hosts[1], "b")
        assert a.wait(400) == 0, said.read_text()
    assert checkpoint(place, name, STEPS).exists()
