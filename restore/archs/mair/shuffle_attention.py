"""Floor 3. Sequence shuffle attention: weighs sequences, stacked along the channels, by each other.

The channels of `group` sequences are shuffled so that those of one index lie side by side, averaged
over all positions, mixed by a grouped 1×1 convolution and squashed to gates in (0, 1)
(arXiv 2412.20066, section 3.3).
"""

# B batch, C channels in all, G sequences, D = C/G channels a sequence, H x W positions

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class SequenceShuffleAttention(nn.Module):
    """`x: (B, C, H, W)` times a gate per image and channel -> same shape.

    `channels`: C, with channel g·D + d the d-th of sequence g. `group`: G, how many sequences they
    are; 4 for the directions of a nested scan, and any divisor of C on a plain map. `conv_groups`:
    groups of the 1×1 convolution, a divisor of C. Left out it is `group`. MaIR uses D, so that a
    group is one index in all sequences. Raises ValueError for counts that do not divide C.
    """

    def __init__(self, channels: int, group: int = 4, conv_groups: int | None = None) -> None:
        super().__init__()
        conv_groups = group if conv_groups is None else conv_groups
        if min(channels, group, conv_groups) < 1 or channels % group or channels % conv_groups:
            raise ValueError(f"groups {group} and {conv_groups} must divide {channels} channels")
        self.group, self.conv_groups = group, conv_groups
        # the official key names: gating.1.weight, gating.1.bias
        self.gating = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels, 1, groups=conv_groups),
            nn.Sigmoid(),
        )

    def gate(self, mean: Tensor) -> Tensor:
        """Means over all positions `(B, G, D)` -> gates `(B, G, D)`, in the means' precision.

        A mean does not depend on the order of positions, so it may be taken of sequences or maps.
        """
        convolution = cast(nn.Conv2d, self.gating[1])
        assert convolution.bias is not None
        per_group = convolution.out_channels // self.conv_groups
        shuffled = mean.transpose(1, 2).reshape(-1, self.conv_groups, per_group)
        weight = convolution.weight.to(mean.dtype).view(self.conv_groups, per_group, per_group)
        logits = torch.einsum("bnj,nij->bni", shuffled, weight).flatten(1)
        logits = logits + convolution.bias.to(mean.dtype)
        return torch.sigmoid(logits).unflatten(1, (-1, self.group)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3)).unflatten(1, (self.group, -1))
        return x * self.gate(mean).flatten(1)[:, :, None, None]
