"""Floor 4. How much memory a device has left, how much a forward pass takes, and running out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import torch

from restore.evaluation.ledger import Ledger

GIB = 1 << 30
SHARE = {"cuda": 0.9, "cpu": 0.5}
"""Of the free memory, what a forward pass may take: a GPU says when it is full, a CPU's system may
end the process instead."""
SCRATCH = 1.25
"""Over the tensors that are alive, what kernels take besides."""


def available(device: torch.device) -> int:
    """Bytes that a forward pass on `device` may take now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return round(SHARE["cuda"] * (free + cached))
    return round(SHARE["cpu"] * free_ram())


def free_ram(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: the system's figure, or its container's if lower."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _text(meminfo))
    free = int(found[1]) << 10 if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    limit, used = (_text(group / name).strip() for name in ("memory.max", "memory.current"))
    if limit.isdecimal() and used.isdecimal():
        free = min(free, int(limit) - int(used))
    return max(free, 0)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def taken(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that `run` takes at its peak, kernels' scratch included."""
    if device.type != "cuda":
        with torch.no_grad(), Ledger() as ledger:
            run()
        return round(SCRATCH * ledger.peak)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is how torch or Python say that memory is full, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "out of memory", "bad_alloc")
    )
