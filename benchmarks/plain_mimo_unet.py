"""MIMO-UNet written plainly, operation by operation: the slow truth that ours is measured against.

Contiguous NCHW, every resize an interpolation, every concatenation made. Same key names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Unit(nn.Module):
    """Convolution, ReLU where `relu`; `transposed` doubles the size."""

    def __init__(
        self,
        c: int,
        d: int,
        side: int,
        stride: int = 1,
        relu: bool = True,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        if transposed:
            layers: list[nn.Module] = [nn.ConvTranspose2d(c, d, side, stride, padding=1)]
        else:
            layers = [nn.Conv2d(c, d, side, stride, padding=side // 2)]
        if relu:
            layers.append(nn.ReLU(inplace=True))
        self.main = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class Residual(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.main = nn.Sequential(Unit(c, c, 3), Unit(c, c, 3, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + x


class Blocks(nn.Module):
    """A stage of residual blocks."""

    def __init__(self, c: int, count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[Residual(c) for _ in range(count)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SCM(nn.Module):
    """Shallow features of a reduced image."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            Unit(3, c // 4, 3), Unit(c // 4, c // 2, 1), Unit(c // 2, c // 2, 3),
            Unit(c // 2, c - 3, 1),
        )  # fmt: skip
        self.conv = Unit(c, c, 1, relu=False)

    def forward(self, y: Tensor) -> Tensor:
        return self.conv(torch.cat([y, self.main(y)], 1))


class FAM(nn.Module):
    """e + conv(e * z)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.merge = Unit(c, c, 3, relu=False)

    def forward(self, e: Tensor, z: Tensor) -> Tensor:
        return e + self.merge(e * z)


class AFF(nn.Module):
    """Three scales of one size, concatenated and merged."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(Unit(224, d, 1), Unit(d, d, 3, relu=False))

    def forward(self, full: Tensor, half: Tensor, quarter: Tensor) -> Tensor:
        return self.conv(torch.cat([full, half, quarter], 1))


def resize(x: Tensor, factor: float) -> Tensor:
    """Nearest, as everywhere in this network."""
    return F.interpolate(x, scale_factor=factor)


class PlainMIMOUNet(nn.Module):
    """`(B, 3, H, W)` -> (full, half, quarter); `dropout` 0.1 makes it MIMO-UNet+."""

    def __init__(self, num_res: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.Encoder = nn.ModuleList([Blocks(c, num_res) for c in (32, 64, 128)])
        self.feat_extract = nn.ModuleList(
            [
                Unit(3, 32, 3),
                Unit(32, 64, 3, 2),
                Unit(64, 128, 3, 2),
                Unit(128, 64, 4, 2, transposed=True),
                Unit(64, 32, 4, 2, transposed=True),
                Unit(32, 3, 3, relu=False),
            ]
        )
        self.Decoder = nn.ModuleList([Blocks(c, num_res) for c in (128, 64, 32)])
        self.Convs = nn.ModuleList([Unit(128, 64, 1), Unit(64, 32, 1)])
        self.ConvsOut = nn.ModuleList([Unit(128, 3, 3, relu=False), Unit(64, 3, 3, relu=False)])
        self.AFFs = nn.ModuleList([AFF(32), AFF(64)])
        self.FAM1, self.SCM1 = FAM(128), SCM(128)
        self.FAM2, self.SCM2 = FAM(64), SCM(64)
        self.dropout = dropout

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x2 = resize(x, 0.5)
        x4 = resize(x2, 0.5)
        z2, z4 = self.SCM2(x2), self.SCM1(x4)
        e1 = self.Encoder[0](self.feat_extract[0](x))
        e2 = self.Encoder[1](self.FAM2(self.feat_extract[1](e1), z2))
        e3 = self.Encoder[2](self.FAM1(self.feat_extract[2](e2), z4))
        s2 = self.AFFs[1](resize(e1, 0.5), e2, resize(e3, 2))
        s1 = self.AFFs[0](e1, resize(e2, 2), resize(resize(e3, 2), 2))
        s2 = F.dropout2d(s2, self.dropout, self.training)
        s1 = F.dropout2d(s1, self.dropout, self.training)
        d3 = self.Decoder[0](e3)
        out4 = self.ConvsOut[0](d3) + x4
        d2 = self.Convs[0](torch.cat([self.feat_extract[3](d3), s2], 1))
        d2 = self.Decoder[1](d2)
        out2 = self.ConvsOut[1](d2) + x2
        d1 = self.Convs[1](torch.cat([self.feat_extract[4](d2), s1], 1))
        d1 = self.Decoder[2](d1)
        return self.feat_extract[5](d1) + x, out2, out4
