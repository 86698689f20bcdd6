"""Floor 3. Losses as an option file names them (no torch here)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from restore.catalog import Catalog
from restore.section import NotNegative, OneOf, Section


class LossOptions(Section):
    """What every loss takes. One of your own inherits this and has
    `loss(self, output, target)`, both `(B, C, H, W)`, giving one number."""

    loss_weight: NotNegative = 1.0
    output_weights: tuple[NotNegative, ...] | None = None
    """Of a network with several outputs: the weight of each, finest first; 1 each when left out."""


class _PixelLoss(LossOptions):
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


class FrequencyLoss(LossOptions):
    """mean |F(output) − F(target)| over real and imaginary parts of the full 2-D spectrum.

    F is the unnormalised discrete Fourier transform, computed in float32 or better
    (MIMO-UNet, ICCV 2021, section 3.4; the paper weighs it by 0.1).
    """

    type: Literal["FrequencyLoss"] = "FrequencyLoss"
    loss_weight: NotNegative = 0.1


_LOSSES = (L1Loss, MSELoss, CharbonnierLoss, FrequencyLoss)
LOSSES: Catalog[type[Section]] = Catalog("loss", {loss.__name__: loss for loss in _LOSSES})
LOSS = OneOf(LOSSES, lambda section: section)
