"""Floor 2. The compiled kernels for images."""

from __future__ import annotations

import ctypes
import logging
from ctypes import c_int, c_long, c_void_p
from functools import cache
from pathlib import Path

from restore.ops import native

SOURCES = Path(__file__).parent / "kernels"


@cache
def compiled() -> ctypes.CDLL | None:
    """The library, or None where it cannot be built, which is said once."""
    try:
        library = native.library("images", SOURCES)
    except native.BuildError as error:
        log = logging.getLogger("restore")
        log.info("images without compiled kernels, slower: %s", error)
        return None
    library.png_unfilter.argtypes = [c_void_p, c_long, c_long, c_long, c_int, c_void_p]
    library.image_floats.argtypes = [c_void_p, *[c_long] * 3, c_int, c_int, c_void_p]
    library.image_floats.restype = None
    return library
