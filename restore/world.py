"""Floor 2. The processes of a run and their devices; sole importer of torch.distributed."""

from __future__ import annotations

import ctypes
import importlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from restore.errors import BackendError

Launcher = Literal["none", "pytorch", "slurm"]
TIMEOUT = timedelta(minutes=10)
LENGTH = 4  # bytes that say how long a message is


@dataclass(frozen=True)
class World:
    """Rank `rank` of `size` processes, `local_rank` on its machine, computing on `device`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")
    store: Store | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def start(
        launcher: Launcher = "none",
        num_gpu: int | Literal["auto"] = "auto",
        backend: str | None = None,
        port: int = 29500,
        timeout: int = 600,
    ) -> World:
        """Join the processes that `launcher` started, and take this one's device.

        `num_gpu`: 0 computes on the CPU, `auto` on a GPU if there is one, a number needs that many.
        `timeout`: seconds that processes wait for one another before they fail.
        Raises BackendError when the environment or the devices are not what was asked for.
        """
        if launcher == "slurm":
            _slurm_environment(port)
        if launcher == "none":
            _refuse_lonely_torchrun()
            return World(device=_device(num_gpu, 0, alone=True))
        rank, size, local = (_integer(n) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        if rank >= size:
            raise BackendError.of(
                "DST02",
                "rank outside the world",
                "environment",
                f"RANK={rank}",
                f"0 … {size - 1}",
                "start with torchrun",
            )
        device = _device(num_gpu, local, alone=False)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        chosen = backend if backend and device.type == "cuda" else None
        chosen = chosen or ("nccl" if device.type == "cuda" else "gloo")
        _die_with_parent()
        patience = timedelta(seconds=timeout)
        own = PrefixStore(f"restore/{_attempt()}", _meet(patience))
        distributed.init_process_group(
            chosen, store=own, rank=rank, world_size=size, timeout=patience
        )
        return World(rank, size, local, device, own)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def elastic(self) -> bool:
        """Whether torchrun starts these processes again when one has failed."""
        return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0

    def shard(self, network: nn.Module) -> None:
        """Deal the parameters of `network` out over all processes, in place (FSDP2).

        Each keeps its share, with the gradient and optimiser state of that, and borrows the others'
        for as long as a region of the network computes. Comes before the optimiser is made.
        """
        fsdp = importlib.import_module("torch.distributed.fsdp")  # 0.6 s: only who uses it pays
        mesh = distributed.device_mesh.init_device_mesh(self.device.type, (self.size,))
        regions = getattr(network, "regions", None)
        for module in [*(regions() if regions is not None else ()), network]:
            fsdp.fully_shard(module, mesh=mesh)

    def whole(self, tensor: Tensor) -> Tensor:
        """All of a tensor of which this process may hold a share; called by all processes."""
        gather = getattr(tensor, "full_tensor", None)
        return tensor if gather is None else gather()

    def share(self, whole: Tensor, like: Tensor) -> Tensor:
        """The share of `whole` that this process keeps, where it keeps a share of `like`."""
        mesh = getattr(like, "device_mesh", None)
        if mesh is None or whole.shape != like.shape:
            return whole
        tensor = importlib.import_module("torch.distributed.tensor")
        there = whole.to(like.device)
        return tensor.distribute_tensor(there, mesh, like.placements, src_data_rank=None)  # pyright: ignore

    def wrap(self, network: nn.Module) -> nn.Module:
        """`network`, on the device, with gradients averaged over all processes."""
        if self.size == 1 or _is_sharded(network):
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        # of 1×1 kernels, which lie the same in memory whatever their strides
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        return DistributedDataParallel(network, device_ids=ids, gradient_as_bucket_view=True)

    def without_exchange(self, wrapped: nn.Module) -> AbstractContextManager[object]:
        """Within it, gradients of a wrapped network stay this process's own and add up."""
        if self.size == 1:
            return nullcontext()
        return _own_gradients(wrapped) if _is_sharded(wrapped) else wrapped.no_sync()  # pyright: ignore

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes; exact where each element is non-zero on one of them."""
        if self.size == 1:
            return values
        moved = values.to(self.device)
        distributed.all_reduce(moved)
        return moved.to(values.device)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag))).item() > 0)

    def gather_bytes(self, own: bytes, most: int) -> list[bytes]:
        """What every process gives, up to `most` bytes each, by rank; called by all processes.

        Nothing is unpickled, unlike `all_gather_object`, and no process can make another one
        allocate more.
        """
        assert len(own) <= most, f"{len(own)} bytes, at most {most}"
        if self.size == 1:
            return [own]
        frame = len(own).to_bytes(LENGTH, "big") + own.ljust(most, b"\0")
        sent = torch.tensor(list(frame), dtype=torch.uint8, device=self.device)
        received = [torch.empty_like(sent) for _ in range(self.size)]
        distributed.all_gather(received, sent)
        frames = (bytes(one.tolist()) for one in received)
        return [f[LENGTH : LENGTH + int.from_bytes(f[:LENGTH], "big")] for f in frames]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            distributed.barrier()

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave the group; after a failure at once, otherwise together."""
        if self.size > 1 and distributed.is_initialized():
            if kind is None:
                self._leave_together()
            distributed.destroy_process_group()

    def _leave_together(self) -> None:
        """Wait until every process is done talking: gloo fails those whose peer has hung up.

        The first process may host the store, so it goes last.
        """
        self._count("done", 1, until=self.size)
        if self.first:
            self._count("gone", 0, until=self.size - 1)
        else:
            self._count("gone", 1, until=0)

    def _count(self, what: str, more: int, until: int) -> None:
        assert self.store is not None
        deadline = time.monotonic() + TIMEOUT.total_seconds()
        reached = self.store.add(what, more)
        while reached < until and time.monotonic() < deadline:
            time.sleep(0.01)
            reached = self.store.add(what, 0)


def _is_sharded(network: nn.Module) -> bool:
    return hasattr(network, "set_requires_gradient_sync")


@contextmanager
def _own_gradients(sharded: Any) -> Generator[None, None, None]:
    sharded.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        sharded.set_requires_gradient_sync(True)


def _meet(patience: timedelta) -> Store:
    """The store that all processes share. Raises BackendError when they cannot meet."""
    address = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
    try:
        return next(rendezvous("env://", timeout=patience))[0]
    except distributed.DistNetworkError as error:
        if "EADDRINUSE" in str(error) or "address already in use" in str(error):
            raise BackendError.of(
                "DST06",
                "the port is in use",
                "MASTER_ADDR:MASTER_PORT",
                address,
                "a free port",
                "torchrun --master-port=<another>, or dist_params.port under SLURM",
            ) from error
        raise _not_met(address, error) from error
    except (distributed.DistStoreError, ValueError) as error:
        raise _not_met(address, error) from error


def _attempt() -> str:
    """Which start of these processes it is, so that none reads what an earlier one has written.

    On one node torchrun keeps the store when it starts its processes again (torch 2.13), with the
    addresses of those that are gone. On several the nodes' counts may differ; there
    scripts/launch_node.sh has a new store made each time.
    """
    one_node = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if one_node else "0"


def _not_met(address: str, error: Exception) -> BackendError:
    host = os.environ.get("MASTER_ADDR", "")
    alone = os.environ.get("LOCAL_WORLD_SIZE") in (None, os.environ.get("WORLD_SIZE"))
    if not alone and _leads_back(host):
        return BackendError.of(
            "DST05",
            "the first machine's name leads every machine to itself",
            "MASTER_ADDR",
            host,
            "an address that the other machines reach",
            "torchrun --local-addr=<own address> --rdzv-conf=is_host=<1 on the first, else 0>",
        )
    return BackendError.of(
        "DST04",
        "the processes cannot meet",
        "MASTER_ADDR:MASTER_PORT",
        f"{address or 'nothing'} ({str(error).splitlines()[0]})",
        "an address that every node reaches",
        "torchrun --rdzv-endpoint=<host>:<port> with --local-addr=<own address> on every node",
    )


def _leads_back(host: str) -> bool:
    """Whether a name stands for the machine that asks, as /etc/hosts makes of its own."""
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except (OSError, ValueError):  # a name that nobody knows, or that is none
        return False


def _die_with_parent() -> None:
    """A process whose torchrun has been killed must not train on (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _device(num_gpu: int | Literal["auto"], local_rank: int, *, alone: bool) -> torch.device:
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if num_gpu == 0 or (num_gpu == "auto" and not there):
        return torch.device("cpu")
    if num_gpu != "auto" and there == 0:
        raise BackendError.of(
            "DEV01",
            "a GPU was asked for and there is none",
            "num_gpu",
            f"{num_gpu} (torch {torch.__version__}: {_reason(torch.cuda.init)})",
            "0 or auto on this machine",
            "--set num_gpu=0, or install torch with CUDA and a driver that it takes",
        )
    if alone and num_gpu != "auto" and num_gpu > 1:
        raise BackendError.of(
            "DST08",
            "several GPUs need several processes",
            "num_gpu",
            f"{num_gpu}",
            "1 without a launcher",
            f"torchrun --nproc-per-node={num_gpu} train.py … --launcher pytorch",
        )
    if local_rank >= there:
        raise BackendError.of(
            "DEV02",
            "more processes than GPUs on this machine",
            "LOCAL_RANK",
            f"{local_rank}",
            f"below {there}",
            f"--nproc-per-node={there}",
        )
    device = torch.device("cuda", local_rank)
    reason = _reason(lambda: torch.zeros(1, device=device))
    if reason:
        raise BackendError.of(
            "DEV06",
            "the GPU cannot be used",
            f"cuda:{local_rank}",
            f"{reason} (torch {torch.__version__}, CUDA {torch.version.cuda})",
            "a GPU and a driver that this torch was built for, with memory to spare",
            "install the torch that pytorch.org names for them, or --set num_gpu=0",
        )
    return device


def _reason(attempt: Callable[[], object]) -> str:
    """Why CUDA refuses, in its own first words; empty where it does not."""
    try:
        attempt()
    except (RuntimeError, AssertionError) as error:
        return str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
    return ""


def _integer(name: str) -> int:
    text = os.environ.get(name)
    if text is None or not text.isdigit():
        raise BackendError.of(
            "DST01",
            f"{name} is not a number",
            "environment",
            repr(text),
            "what torchrun sets",
            "start with torchrun, or use --launcher none",
        )
    return int(text)


def _refuse_lonely_torchrun() -> None:
    """Several processes that do not know of each other would each train the whole run."""
    if os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1"):
        raise BackendError.of(
            "DST07",
            "started by torchrun without a launcher",
            "command line",
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} and --launcher none",
            "--launcher pytorch",
            "add --launcher pytorch",
        )


def _slurm_environment(port: int) -> None:
    """SLURM's variables under the names that torch reads."""
    names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
    for ours, theirs in names.items():
        _integer(theirs)
        os.environ[ours] = os.environ[theirs]
    if "MASTER_ADDR" not in os.environ:
        nodes = os.environ.get("SLURM_NODELIST", "")
        try:
            listed = subprocess.run(
                ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise BackendError.of(
                "DST04",
                "cannot tell the first SLURM node",
                "SLURM_NODELIST",
                repr(nodes),
                "scontrol to list it",
                "export MASTER_ADDR=<first node>",
            ) from error
        os.environ["MASTER_ADDR"] = listed.stdout.split()[0]
    os.environ.setdefault("MASTER_PORT", str(port))
