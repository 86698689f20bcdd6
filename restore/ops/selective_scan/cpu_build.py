"""Floor 2. The CPU kernels of the selective scan as a library (see `restore.ops.native`).

`RESTORE_SCAN_ARCH`: the instruction set instead of this machine's (as `-march` takes it).
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from restore.ops import native
from restore.ops.native import REMEDY, BuildError

__all__ = ["REMEDY", "SOURCES", "BuildError", "library"]

SOURCES = Path(__file__).parent / "kernels"


@cache
def library() -> ctypes.CDLL:
    """The kernels, compiled if need be. Raises BuildError."""
    return native.library("selective_scan", SOURCES, os.environ.get("RESTORE_SCAN_ARCH"))
