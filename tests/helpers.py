"""What several test files share: deterministic numbers and modules outside the package."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

FILL_RULE = "golden/fill_span_mirnetv2_mimounet.py"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

TINY_TRAIN = """\
name: tiny
scale: 2
datasets:
  train:
    type: PairedImageDataset
    dataroot_gt: gt
    dataroot_lq: lq
    gt_size: 32
    batch_size_per_gpu: 4
network_g: {type: SPAN, feature_channels: 8, upscale: 2}
train:
  total_iter: 100
  optim_g: {type: Adam, lr: 1e-3}
  scheduler: {type: MultiStepLR, milestones: [50, 80]}
  pixel_opt: {type: L1Loss}
"""
"""A whole training file, as short as it can be."""


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


def check_training_step(
    start: nn.Module, step: dict[str, Any], loss_of: Callable[[nn.Module], Tensor]
) -> None:
    """Loss, gradients and the loss after one optimiser step against the official ones (1e-8)."""
    loss = loss_of(start)
    loss.backward()
    assert loss.item() == pytest.approx(step["loss"], rel=1e-8)
    gradients = {name: p.grad for name, p in start.named_parameters()}
    assert set(gradients) == set(step["grad_l2"]) == set(step["grad_sum"])
    for name, gradient in gradients.items():
        assert gradient is not None
        assert gradient.norm().item() == pytest.approx(step["grad_l2"][name], rel=1e-8), name
        slack = 1e-8 * step["grad_l2_total"]
        assert gradient.sum().item() == pytest.approx(step["grad_sum"][name], rel=0, abs=slack)
    for after, optimiser in step["after"].items():
        network = copy.deepcopy(start)
        for parameter, gradient in zip(network.parameters(), gradients.values(), strict=True):
            parameter.grad = gradient
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[after]
        kind(network.parameters(), lr=optimiser["lr"]).step()
        assert loss_of(network).item() == pytest.approx(optimiser["loss"], rel=1e-8)
