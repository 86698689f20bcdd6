"""Floor 3. Networks, their options and their weights.

`build_network`, `load_weights`, `fuse` are handed on here, and imported (with torch) on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from restore.catalog import locate

if TYPE_CHECKING:
    from restore.archs.build import build_network, fuse
    from restore.archs.weights import load_weights

__all__ = ["build_network", "fuse", "load_weights"]

_HOMES = {
    "build_network": "restore.archs.build:build_network",
    "fuse": "restore.archs.build:fuse",
    "load_weights": "restore.archs.weights:load_weights",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return locate(_HOMES[name])
    raise AttributeError(f"module 'restore.archs' has no attribute '{name}'")
