"""Floor 5. Mixup: the pairs of a batch blended with one another, LQ and GT alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixup:
    """λ·pair + (1 − λ)·another pair of the batch, λ from Beta(β, β), one λ and one order a batch.

    With `identity`, half of the batches are left as they are (MIRNet-v2's recipe).
    """

    beta: float
    identity: bool
    seed: int
    rank: int

    def __call__(self, lq: Tensor, gt: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """`lq`, `gt: (B, C, H, W)`; all chance is a function of (seed, step, rank)."""
        sequence = np.random.SeedSequence((self.seed, step, self.rank), spawn_key=(2,))
        rng = np.random.Generator(np.random.PCG64(sequence))
        leave, weight = rng.random() < 0.5, float(rng.beta(self.beta, self.beta))
        order = torch.from_numpy(rng.permutation(len(lq))).to(lq.device)
        if leave and self.identity:
            return lq, gt
        return torch.lerp(lq[order], lq, weight), torch.lerp(gt[order], gt, weight)
