"""Floor 2. Backend `torch`: the scan in blocks of steps, on any device, in float32 and float64.

Time comes first and channels last, so that one step is one contiguous row (B, G, N, W), W = E / G:
per block the decays exp(Δ A) and the additions Δ B u are formed at once, per step there is a
single fused multiply-add, and y is one batched product with C. Nothing larger than a block holds
L × N values; the backward pass keeps the state at the borders of the blocks only and recomputes
the rest. No division by a product of decays, which may underflow.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.ops.selective_scan.backend import ScanGrads, ScanInputs
from restore.ops.selective_scan.composed import Composed

VALUES_OF_A_BLOCK = 2**19
"""States a block holds, about: 2 MiB in float32, so that its few arrays stay in the cache."""
FEWEST, MOST = 16, 256
"""Steps of a block; a multiple of 16, one cache line of float32."""
LINEAR_FROM = 20.0
"""Where torch's softplus becomes the identity."""


def unavailable() -> str | None:
    """Why this backend cannot be used: it always can."""
    return None


def selective_scan(inputs: ScanInputs) -> Tensor:
    """y (B, E, L); see `restore.ops.selective_scan.selective_scan`."""
    blocks = _Blocks(inputs)
    y_rows = torch.empty_like(blocks.u)
    states, decay = blocks.room(2)
    for block in blocks:
        now = blocks.advance(block, states, decay)
        y_rows[block] = torch.matmul(blocks.C[block].unsqueeze(3), now).squeeze(3)
        states[0] = now[-1]
    y = _steps_last(y_rows, inputs.u)
    return y if inputs.D is None else y.addcmul_(inputs.D[:, None], inputs.u)


def selective_scan_grads(dy: Tensor, inputs: ScanInputs) -> ScanGrads:
    """Gradients of all inputs, block by block from the last to the first.

    With g[t] = C[t] dy[t] + decay[t+1] g[t+1], the gradient of the state, those of B, C and the
    step are products of g, the states and the inputs at the same step.
    """
    blocks = _Blocks(inputs)
    dy_rows = blocks.rows(dy)
    du, ddelta = torch.empty_like(blocks.u), torch.empty_like(blocks.u)
    dB, dC, dA = torch.empty_like(blocks.B), torch.empty_like(blocks.C), torch.zeros_like(blocks.A)
    states, decay, g = blocks.room(3)
    borders = blocks.borders(states, decay)
    carried = torch.zeros_like(states[0])  # decay[t+1] g[t+1] of the block behind
    for number, block in reversed(list(enumerate(blocks))):
        states[0] = borders[number]
        now = blocks.advance(block, states, decay)
        step, x, dy_t = blocks.step(block), blocks.u[block], dy_rows[block].unsqueeze(3)
        before, kept = states[: len(now)], decay[: len(now)]
        slope = torch.mul(blocks.C[block].unsqueeze(4), dy_t, out=g[: len(now)])
        later = slope[-1].add_(carried)
        backwards = zip(slope[:-1].unbind()[::-1], kept[1:].unbind()[::-1], strict=True)
        for own, factor in backwards:
            later = own.addcmul_(factor, later)
        torch.mul(kept[0], later, out=carried)
        dC[block] = torch.matmul(dy_t, now.transpose(3, 4)).squeeze(3)
        dB[block] = torch.matmul((step * x).unsqueeze(3), slope.transpose(3, 4)).squeeze(3)
        of_added = torch.matmul(blocks.B[block].unsqueeze(3), slope).squeeze(3)
        of_exponent = before.mul_(kept).mul_(slope)  # the states of this block are used up
        of_step = torch.mul(of_exponent, blocks.A, out=kept).sum(3).addcmul_(x, of_added)
        dA += of_exponent.mul_(step.unsqueeze(3)).sum((0, 1))
        torch.mul(step, of_added, out=du[block])
        torch.mul(of_step, blocks.slope_of_step(block), out=ddelta[block])
    u, _, A, B, C, D, delta_bias, _ = inputs
    du = _steps_last(du, u)
    return (
        du if D is None else du.addcmul_(D[:, None], dy),
        _steps_last(ddelta, u),
        dA.transpose(1, 2).reshape(A.shape),
        _steps_last(dB, B),
        _steps_last(dC, C),
        None if D is None else (dy * u).sum((0, 2)),
        None if delta_bias is None else ddelta.sum((0, 1)).flatten(),
    )


class _Blocks:
    """The inputs with time first, and the slices of time that are worked on together."""

    def __init__(self, inputs: ScanInputs) -> None:
        u, delta, A, B, C, _, delta_bias, softplus = inputs
        self.groups, self.softplus = B.shape[1], softplus
        self.u = self.rows(u)  # (L, B, G, W)
        self.raw_step = self.rows(delta)
        if delta_bias is not None:
            self.raw_step = self.raw_step + delta_bias.unflatten(0, (self.groups, -1))
        self.B, self.C = _steps_first(B), _steps_first(C)  # (L, B, G, N)
        self.A = A.unflatten(0, (self.groups, -1)).transpose(1, 2).contiguous()  # (G, N, W)
        values = u.shape[0] * A.numel()
        self.steps = min(MOST, max(FEWEST, VALUES_OF_A_BLOCK // values // FEWEST * FEWEST))

    def rows(self, x: Tensor) -> Tensor:
        """(B, E, L) as (L, B, G, W)."""
        return _steps_first(x).unflatten(2, (self.groups, -1))

    def __iter__(self) -> Iterator[slice]:
        for start in range(0, len(self.u), self.steps):
            yield slice(start, min(start + self.steps, len(self.u)))

    def room(self, count: int) -> list[Tensor]:
        """Arrays (T, B, G, N, W) of one block; the first has a row more, for the state before."""
        rows = min(self.steps, len(self.u))
        shape = (self.u.shape[1], *self.A.shape)
        states = self.A.new_empty(rows + 1, *shape)
        states[0] = 0
        return [states, *(self.A.new_empty(rows, *shape) for _ in range(count - 1))]

    def step(self, block: slice) -> Tensor:
        """Δ (T, B, G, W)."""
        raw = self.raw_step[block]
        return F.softplus(raw, threshold=LINEAR_FROM) if self.softplus else raw

    def slope_of_step(self, block: slice) -> Tensor | float:
        """dΔ / d delta."""
        if not self.softplus:
            return 1.0
        raw = self.raw_step[block]
        return torch.sigmoid(raw).masked_fill_(raw > LINEAR_FROM, 1)

    def advance(self, block: slice, states: Tensor, decay: Tensor) -> Tensor:
        """From the state in `states[0]` to those after each step of the block: `states[1:]`.

        `decay` is filled with exp(Δ A). Returns the part of `states` that the block fills.
        """
        step = self.step(block)
        kept = torch.mul(step.unsqueeze(3), self.A, out=decay[: len(step)]).exp_()
        now = states[1 : len(step) + 1]
        torch.mul(self.B[block].unsqueeze(4), (step * self.u[block]).unsqueeze(3), out=now)
        before = states[0]
        for factor, own in zip(kept.unbind(), now.unbind(), strict=True):
            before = own.addcmul_(factor, before)
        return now

    def borders(self, states: Tensor, decay: Tensor) -> list[Tensor]:
        """The state before each block."""
        found: list[Tensor] = []
        for block in self:
            found.append(states[0].clone())
            states[0] = self.advance(block, states, decay)[-1]
        return found


def _steps_first(x: Tensor) -> Tensor:
    """(B, …, L) as (L, B, …), contiguous; as one matrix, whose transposition torch does fast."""
    return x.reshape(-1, x.shape[-1]).t().contiguous().view(x.shape[-1], *x.shape[:-1])


def _steps_last(rows: Tensor, like: Tensor) -> Tensor:
    """(L, B, …) as (B, …, L) in the shape of `like`, contiguous."""
    return rows.reshape(len(rows), -1).t().contiguous().view(like.shape)


BACKEND = Composed(selective_scan, selective_scan_grads)
