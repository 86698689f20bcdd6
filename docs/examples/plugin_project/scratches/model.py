"""The network itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scratches.network import TwoLevelOptions


class TwoLevel(nn.Module):
    """`lq: (B, 3, h, w)` in [0, 1], h and w even -> the same without scratches, unclamped."""

    def __init__(self, options: TwoLevelOptions) -> None:
        super().__init__()
        self.options = options
        width = options.width
        self.entry = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.inner = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.exit = nn.Conv2d(2 * width, 3, 3, padding=1)

    def forward(self, lq: Tensor) -> Tensor:
        fine = F.relu(self.entry(lq))
        coarse = F.relu(self.inner(F.relu(self.down(fine))))
        return lq + self.exit(torch.cat([fine, F.relu(self.up(coarse))], dim=1))


def build(options: TwoLevelOptions) -> TwoLevel:
    """The builder that the record names."""
    return TwoLevel(options)
