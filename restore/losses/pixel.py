"""Floor 3. The training loss: named, weighted parts, summed over all outputs of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.losses.options import CharbonnierLoss, FrequencyLoss, L1Loss, MSELoss
from restore.section import Section


def loss_of(options: Section, output: Tensor, target: Tensor) -> Tensor:
    """The unweighted loss of one output against its target, both `(B, C, H, W)`, as one number."""
    if isinstance(options, FrequencyLoss):
        return frequency_l1(output, target)
    if isinstance(options, L1Loss):
        return F.l1_loss(output, target, reduction=options.reduction)
    if isinstance(options, MSELoss):
        return F.mse_loss(output, target, reduction=options.reduction)
    if isinstance(options, CharbonnierLoss):
        each = (output - target).square().add(options.eps).sqrt()
        return each.mean() if options.reduction == "mean" else each.sum()
    own: Callable[[Tensor, Tensor], Tensor] | None = getattr(options, "loss", None)
    if own is None:
        raise TypeError(f"no loss for {type(options).__name__}")
    return own(output, target)  # one from outside the table


def frequency_l1(output: Tensor, target: Tensor) -> Tensor:
    """mean |·| of the difference of the full spectra, real and imaginary parts apart.

    By linearity one transform of the difference serves both; float32 at least, also in autocast.
    """
    with torch.autocast(output.device.type, enabled=False):
        difference = output - target
        if difference.dtype not in (torch.float32, torch.float64):
            difference = difference.float()
        return torch.view_as_real(torch.fft.fft2(difference)).abs().mean()


def target_for(output: Tensor, gt: Tensor) -> Tensor:
    """`gt` at the size of `output`: bilinear without antialiasing, as MIMO-UNet trains."""
    if output.shape[-2:] == gt.shape[-2:]:
        return gt
    return F.interpolate(gt, size=output.shape[-2:], mode="bilinear", align_corners=False)


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
        """`outputs[k]: (B, C, H/2^k, W/2^k)` and `gt: (B, C, H, W)` -> LossValue.

        Raises ValueError when `output_weights` are not one per output.
        """
        targets = [target_for(output, gt) for output in outputs]
        parts = {
            name: self._part(options, outputs, targets) for name, options in self._parts.items()
        }
        total = sum(parts.values(), start=gt.new_zeros(()))
        return LossValue(total, parts)

    @staticmethod
    def _part(options: Any, outputs: tuple[Tensor, ...], targets: list[Tensor]) -> Tensor:
        weights = options.output_weights or (1.0,) * len(outputs)
        pairs = zip(weights, outputs, targets, strict=True)
        over_outputs = [
            weight * loss_of(options, output, target) for weight, output, target in pairs
        ]
        return options.loss_weight * torch.stack(over_outputs).sum()
