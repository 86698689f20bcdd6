"""Floor 3. What two or more families share."""

# B batch, C channels, H x W positions, s scale

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Of the training images of DIV2K."""


def mean_map(values: Sequence[float]) -> Tensor:
    """`(1, C, 1, 1)` float32: the rounding is part of the published networks, in any precision."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def fast_layout(x: Tensor) -> Tensor:
    """`x: (B, C, H, W)` with the channels last in memory where that is faster: on a CPU."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def bottleneck(width: int) -> nn.Sequential:
    """Three convolutions in place of one 3×3, with a quarter of the width between them."""
    quarter = width // 4
    return nn.Sequential(
        nn.Conv2d(width, quarter, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(quarter, quarter, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(quarter, width, 3, padding=1),
    )


def enlarging(width: int, channels: int, factors: Sequence[int]) -> nn.Sequential:
    """`(B, width, H, W)` -> `(B, channels, H·s, W·s)`: for each factor a 3×3 and a pixel shuffle.

    With more than one factor, `channels` is `width`.
    """
    layers: list[nn.Module] = []
    for factor in factors:
        layers.append(nn.Conv2d(width, channels * factor**2, 3, padding=1))
        layers.append(nn.PixelShuffle(factor))
    return nn.Sequential(*layers)


def factors_of(scale: int) -> list[int]:
    """Of the steps to `scale`: 3 at once, a power of two by twos."""
    return [3] if scale == 3 else [2] * (scale.bit_length() - 1)


def rising(last: float, depths: Sequence[int]) -> list[list[float]]:
    """A rate for every block, stage by stage: from 0 in the first evenly up to `last`."""
    steps = max(sum(depths) - 1, 1)
    rates = iter([last * block / steps for block in range(sum(depths))])
    return [[next(rates) for _ in range(depth)] for depth in depths]


def rounded_up(side: Any, multiple: int, least: int = 1) -> Any:
    """How many times `multiple` a side takes, at least `least`; when traced a number of its own.

    torch.export cannot reason about a rounded quotient, but about a new number from some bound on.
    """
    quotient = (side + multiple - 1) // multiple
    if isinstance(quotient, Tensor):  # torch.jit.trace follows sizes as tensors
        return quotient.clamp(min=least)
    quotient = torch.sym_max(quotient, least)
    number: Any = torch.scalar_tensor(quotient, dtype=torch.int64).item()
    torch._check(number >= least)  # pyright: ignore[reportPrivateUsage]  # as torch documents it
    return number


def mirrored(x: Tensor, dim: int, places: Tensor) -> Tensor:
    """`x` at `places` ≥ 0 of an axis that is mirrored at its ends, again and again.

    A side of one pixel has nothing to mirror and is repeated.
    """
    last: Any = x.shape[dim] - 1
    if not isinstance(last, Tensor):
        last = torch.scalar_tensor(last, dtype=torch.int64)
    period = (2 * last).to(x.device).clamp(min=1)
    there = places % period
    return x.index_select(dim, torch.minimum(there, period - there))
