"""Floor 3. Losses as an option file names them (no torch here)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from restore.catalog import Catalog
from restore.section import NotNegative, OneOf, Section


class _PixelLoss(Section):
    loss_weight: NotNegative = 1.0
    reduction: Literal["mean", "sum"] = "mean"


class L1Loss(_PixelLoss):
    """mean |output − target|."""

    type: Literal["L1Loss"] = "L1Loss"


class MSELoss(_PixelLoss):
    """mean (output − target)²."""

    type: Literal["MSELoss"] = "MSELoss"


class CharbonnierLoss(_PixelLoss):
    """mean √((output − target)² + eps), eps inside the root and not squared, as in BasicSR.

    Papers that write √(d² + ε²) with ε = 1e-3 mean `eps: 1e-6` here.
    """

    type: Literal["CharbonnierLoss"] = "CharbonnierLoss"
    eps: float = Field(default=1e-12, gt=0)


LOSSES: Catalog[type[Section]] = Catalog(
    "loss", {"L1Loss": L1Loss, "MSELoss": MSELoss, "CharbonnierLoss": CharbonnierLoss}
)
LOSS = OneOf(LOSSES, lambda section: section)
