"""Floor 3. What two or more families share: sizes and mirroring as a traced graph needs them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
