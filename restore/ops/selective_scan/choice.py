"""Floor 2. The table of backends, which of them are here, and which one "auto" takes.

`RESTORE_SCAN_BACKEND=<name>` in the environment stands in for "auto", to compare backends without
touching a network. A backend that was named and cannot be used is an error, never replaced.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache

import torch

from restore.catalog import Catalog, locate
from restore.errors import BackendError
from restore.ops.selective_scan.backend import Backend

log = logging.getLogger("restore")

OVERRIDE = "RESTORE_SCAN_BACKEND"


@dataclass(frozen=True)
class Entry:
    """One backend: the module that holds it, and what it takes.

    The module has `BACKEND` (a `backend.Backend`) and `unavailable() -> str | None`, the reason
    why it cannot be used here; it is imported when first asked for.
    """

    module: str
    remedy: str
    devices: tuple[str, ...] | None = None
    """Device types; None: any."""
    float64: bool = False


BACKENDS: Catalog[Entry] = Catalog(
    "selective-scan backend",
    {
        "reference": Entry(
            "restore.ops.selective_scan.reference_backend", "part of restore", float64=True
        ),
        "torch": Entry("restore.ops.selective_scan.chunked", "part of restore", float64=True),
        "cpu": Entry(
            "restore.ops.selective_scan.cpu",
            "install a C++ compiler (g++ or clang++) and have it on PATH",
            ("cpu",),
        ),
        "triton": Entry(
            "restore.ops.selective_scan.triton_backend",
            "pip install triton, on a machine with a GPU that it supports",
            ("cuda",),
        ),
        "mamba_ssm": Entry(
            "restore.ops.selective_scan.mamba",
            "pip install mamba-ssm, on a machine with an NVIDIA GPU",
            ("cuda",),
        ),
    },
)

PREFERRED = {"cuda": ("triton", "mamba_ssm", "torch"), "cpu": ("cpu", "torch")}
"""Device type -> what "auto" tries, best first; on any other device it takes "torch"."""


def available() -> tuple[str, ...]:
    """Names of the backends that can be used on this machine."""
    return tuple(name for name in BACKENDS if missing(name) is None)


@cache
def missing(name: str) -> str | None:
    """Why a backend of the table cannot be used on this machine; None when it can."""
    try:
        return locate(f"{BACKENDS[name].module}:unavailable")()
    except ImportError as error:
        return str(error)


def chosen(name: str, device: torch.device, dtype: torch.dtype) -> Backend:
    """The backend called `name`, or the one that "auto" takes for this device and precision.

    Raises BackendError: ENV30 for a backend that is not there, ENV31 for one that is there but
    does not take these tensors.
    """
    return _backend(chosen_name(name, device, dtype))


def chosen_name(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The name of what `chosen` gives. Errors as there."""
    asked_by = "backend"
    if name == "auto":
        name, asked_by = os.environ.get(OVERRIDE) or "auto", OVERRIDE
    return _chosen(name, asked_by, device.type, dtype == torch.float64)


def check_override() -> None:
    """Look for the backend that the environment names, before a run has begun.

    Raises BackendError ENV30 where it is not there.
    """
    name = os.environ.get(OVERRIDE) or "auto"
    if name != "auto":
        _find(name, OVERRIDE)


@cache
def _chosen(name: str, asked_by: str, device: str, float64: bool) -> str:
    if name == "auto":
        return _best(device, float64)
    _demand(name, asked_by, device, float64)
    return name


@cache
def _backend(name: str) -> Backend:
    return locate(f"{BACKENDS[name].module}:BACKEND")


def _best(device: str, float64: bool) -> str:
    """What "auto" takes; says so, and what kept it from the better ones."""
    best, skipped = "torch", ""
    for name in PREFERRED.get(device, ()):
        reason = _refusal(name, device, float64)
        if reason is None:
            best = name
            break
        skipped += f"; {name} would be faster, but {reason}"
    precision = "float64" if float64 else "float32"
    log.info("selective scan on %s in %s: backend %s%s", device, precision, best, skipped)
    return best


def _refusal(name: str, device: str, float64: bool) -> str | None:
    """Why `name` cannot compute on such tensors; None when it can."""
    entry = BACKENDS[name]
    if entry.devices and device not in entry.devices and not _interpreted(name):
        return f"it runs on {', '.join(entry.devices)} only"
    if float64 and not entry.float64:
        return "it computes in float32 only"
    return missing(name)


def _interpreted(name: str) -> bool:
    """Whether Triton interprets its kernels, which it does on any device, for tests."""
    return name == "triton" and os.environ.get("TRITON_INTERPRET") == "1"


def _demand(name: str, asked_by: str, device: str, float64: bool) -> None:
    """Refuse a named backend that is unknown, absent or of other tensors."""
    _find(name, asked_by)
    reason = _refusal(name, device, float64)
    if reason is not None:
        raise BackendError.of(
            "ENV31", "selective-scan backend does not take these tensors", asked_by,
            f"{name} for {'float64' if float64 else 'float32'} on {device}",
            "tensors that it takes", f"{reason}; backend=torch takes any",
        )  # fmt: skip


def _find(name: str, asked_by: str) -> None:
    if name not in BACKENDS:
        near = BACKENDS.nearest(name)
        raise BackendError.of(
            "ENV30", "no such selective-scan backend", asked_by, name,
            ", ".join(("auto", *BACKENDS)), f"did you mean {near!r}?" if near else "name one",
        )  # fmt: skip
    absent = missing(name)
    if absent is not None:
        raise BackendError.of(
            "ENV30", "selective-scan backend not available", asked_by, f"{name} ({absent})",
            f"one of {', '.join(('auto', *available()))}", BACKENDS[name].remedy,
        )  # fmt: skip
