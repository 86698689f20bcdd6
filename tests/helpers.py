"""What several test files share: deterministic numbers and modules outside the package."""

from __future__ import annotations

import copy
import importlib.util
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from restore.archs import load_weights

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

SMALL_NETWORKS: dict[str, dict[str, Any]] = {
    "SPAN": {"type": "SPAN", "feature_channels": 8, "upscale": 2},
    "MaIR": {
        "type": "MaIR", "upscale": 2, "embed_dim": 12, "depths": [2], "d_state": 2,
        "upsampler": "pixelshuffledirect", "drop_path_rate": 0.5,
    },
    "GRL": {
        "type": "GRL", "upscale": 2, "embed_dim": 16, "depths": [2], "num_heads_window": [2],
        "num_heads_stripe": [2], "window_size": 8, "stripe_size": [8, 8], "img_size": 16,
        "upsampler": "pixelshuffledirect",
    },
    "MIRNet_v2": {"type": "MIRNet_v2", "n_feat": 16, "n_MRB": 1},
    "MIMOUNet": {"type": "MIMOUNet", "num_res": 1},
}  # fmt: skip
"""One of each family, with what it needs to be of its kind."""


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


def near(a: Tensor, b: Tensor, slack: float = 1e-10) -> bool:
    """Whether `a` lies within `slack` times the length of `b` of it."""
    return bool((a - b).norm() <= slack * b.norm())


def landmarks(out: Tensor) -> list[float]:
    """Of (1, 3, h, w): mean, population deviation, first, last and middle value."""
    height, width = out.shape[-2:]
    values = [out[0, 0, 0, 0], out[0, 2, -1, -1], out[0, 1, height // 2, width // 2]]
    return [float(value) for value in (out.mean(), out.std(correction=0), *values)]


def load_filled(network: nn.Module, state: Mapping[str, Tensor], shared: Path, case: Any) -> None:
    """Give `network`, whose official state is like `state`, the weights of a golden case."""
    rule = module_at(shared / FILL_RULE)
    arrays = rule.fill_state_dict(state, case["gains"], case["salt"])
    assert rule.digest(arrays) == case["fill_sha256"]
    load_weights(network, {key: torch.from_numpy(array) for key, array in arrays.items()})


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


def peak(act: Callable[[], object]) -> int:
    """Bytes of Python's and NumPy's memory that `act` takes at once."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
