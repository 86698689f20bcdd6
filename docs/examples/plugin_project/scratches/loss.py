"""A loss: L1 that counts the differences between neighbouring pixels too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from restore.losses.options import LossOptions
from restore.section import NotNegative

if TYPE_CHECKING:
    from torch import Tensor


class EdgeLoss(LossOptions):
    """mean |d| + edges · (mean |d across columns| + mean |d across rows|), d = output − target."""

    type: Literal["scratches.loss:EdgeLoss"] = "scratches.loss:EdgeLoss"
    edges: NotNegative = 0.5

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Both `(B, C, H, W)` -> one number."""
        d = output - target
        across, along = d.diff(dim=3).abs().mean(), d.diff(dim=2).abs().mean()
        return d.abs().mean() + self.edges * (across + along)
