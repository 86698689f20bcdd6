"""Floor 3. The training loss: named, weighted parts, each a mean over pixels of every output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from restore.losses.options import CharbonnierLoss, L1Loss, MSELoss
from restore.section import Section


def pixel_loss(options: Section, output: Tensor, target: Tensor) -> Tensor:
    """The unweighted loss of `output` against `target`, both `(B, C, H, W)`, as one number."""
    reduction = getattr(options, "reduction", "mean")
    if isinstance(options, L1Loss):
        return F.l1_loss(output, target, reduction=reduction)
    if isinstance(options, MSELoss):
        return F.mse_loss(output, target, reduction=reduction)
    if isinstance(options, CharbonnierLoss):
        each = (output - target).square().add(options.eps).sqrt()
        return each.mean() if reduction == "mean" else each.sum()
    raise TypeError(f"no loss for {type(options).__name__}")


@dataclass(frozen=True)
class LossValue:
    """The total to go back through, and its named, weighted parts."""

    total: Tensor
    parts: Mapping[str, Tensor]


class Loss:
    """The sum of named parts; called with a network's outputs, finest first."""

    def __init__(self, parts: Mapping[str, Section]) -> None:
        self._parts = dict(parts)

    def __call__(self, outputs: tuple[Tensor, ...], gt: Tensor) -> LossValue:
        """`outputs[0]` and `gt` `(B, C, H, W)` -> LossValue."""
        parts = {
            name: getattr(options, "loss_weight", 1.0) * pixel_loss(options, outputs[0], gt)
            for name, options in self._parts.items()
        }
        total = sum(parts.values(), start=gt.new_zeros(()))
        return LossValue(total, parts)
