"""Floor 2. A selective scan in the layouts of the Triton kernels, and how it is cut into segments.

The plain scan is the map scan without an order and without a rank, on transposed copies: one set
of kernels serves both. Needs no triton.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from restore.ops.selective_scan.backend import MapInputs, ScanInputs

CHANNELS = 32
"""Of a program: one a lane of its only warp."""
STEPS = 16
"""Of a tile: more do not fit the registers in the backward pass."""
NARROW = 2**31
"""Offsets below it are 32 bits wide."""
LOG2_E = math.log2(math.e)


def segmentation(tiles: int, chains: int, programs: int, least: int) -> tuple[int, int]:
    """Segments, and tiles of each, so that `chains` sequences of `tiles` fill `programs`.

    A segment has `least` tiles or more, unless it is the only one; only the last may be shorter.
    """
    wanted = max(1, programs // chains)
    length = min(tiles, max(-(-tiles // wanted), least))
    return -(-tiles // length), length


@dataclass(frozen=True)
class Problem:
    """One scan, in the kernels' layouts (see `triton_kernels`)."""

    u: Tensor
    delta: Tensor | None
    projected: Tensor
    order: Tensor | None
    weight: Tensor
    bias: Tensor
    a: Tensor
    d: Tensor
    softplus: bool

    @property
    def sizes(self) -> tuple[int, int, int, int, int, int]:
        """B, L, K, E, N, R."""
        batch, steps, directions, _ = self.projected.shape
        rank, channels = self.weight.shape[1:]
        return batch, steps, directions, channels, self.a.shape[1], rank

    @property
    def wide(self) -> bool:
        """Whether an offset inside one batch item needs 64 bits."""
        return max(self.projected[0].numel(), self.bias.numel() * self.u.shape[1]) >= NARROW

    @property
    def shared(self) -> bool:
        """Whether all directions read one u."""
        return self.u.ndim == 3

    @property
    def constants(self) -> dict[str, int]:
        """What the scan's kernels are compiled for."""
        *_, states, rank = self.sizes
        return {
            "RANK": rank, "STATES": states, "SOFTPLUS": self.softplus,
            "ORDERED": self.order is not None, "WIDE": self.wide,
            "T": STEPS, "BE": CHANNELS, "num_warps": 1,
        }  # fmt: skip

    @property
    def blocks(self) -> int:
        """Programs that share a direction's channels."""
        return -(-self.a.shape[2] // CHANNELS)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """delta, projected, order, weight, bias; any tensor stands in for what is not read."""
        delta = self.u if self.delta is None else self.delta
        order = self.u if self.order is None else self.order
        return delta, self.projected, order, self.weight, self.bias

    def new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.u.device)


def plain_problem(inputs: ScanInputs) -> Problem:
    """The scan of sequences (B, E, L): rows of their own, no order, no rank."""
    u, delta, A, B, C, D, delta_bias, softplus = inputs
    groups, channels = B.shape[1], u.shape[1] // B.shape[1]
    none = u.new_zeros(groups, channels)
    return Problem(
        u=as_rows(u, groups),
        delta=as_rows(delta, groups),
        projected=torch.cat([B, C], dim=2).permute(0, 3, 1, 2).contiguous(),
        order=None,
        weight=u.new_empty(groups, 0, channels),
        bias=none if delta_bias is None else delta_bias.reshape(groups, channels),
        a=(A.reshape(groups, channels, -1).transpose(1, 2) * LOG2_E).contiguous(),
        d=none if D is None else D.reshape(groups, channels),
        softplus=softplus,
    )


def map_problem(inputs: MapInputs) -> Problem:
    """The scan along paths over one map (B, L, E)."""
    x, projected, order, step_weight, step_bias, A, D = inputs
    weight = step_weight.transpose(1, 2).contiguous()
    a = (A.transpose(1, 2) * LOG2_E).contiguous()
    delta = None if weight.shape[1] else x.new_zeros(*projected.shape[:3], x.shape[2])
    return Problem(x, delta, projected, order, weight, step_bias, a, D, softplus=True)


def as_rows(sequences: Tensor, groups: int) -> Tensor:
    """(B, G · E, L) as (B, L, G, E)."""
    return sequences.unflatten(1, (groups, -1)).permute(0, 3, 1, 2).contiguous()


def as_sequences(rows: Tensor) -> Tensor:
    """(B, L, G, E) as (B, G · E, L)."""
    return rows.flatten(2).transpose(1, 2).contiguous()
