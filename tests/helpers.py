"""What several test files share: deterministic numbers and modules outside the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

FILL_RULE = "golden/fill_span_mirnetv2_mimounet.py"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """float64 numbers in [0, 1)."""
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


def hashed(number: int, count: int) -> np.ndarray:
    """The fingerprints' rule: numbers in [-1, 1) from a 32-bit hash of (tensor, position)."""
    with np.errstate(over="ignore"):
        h = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1)
        h += np.uint32(number * 0x85EBCA77 + 1 & 0xFFFFFFFF)
        h ^= h >> np.uint32(15)
        h *= np.uint32(0x2C1B3C6D)
        h ^= h >> np.uint32(12)
        h *= np.uint32(0x297A2D39)
        h ^= h >> np.uint32(15)
    return h.astype(np.float64) / 2**31 - 1


def module_at(file: Path) -> ModuleType:
    """A Python file outside the package, as a module."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
