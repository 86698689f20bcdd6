"""Floor 3. MIMO-UNet and MIMO-UNet+, coarse-to-fine deblurring in one network (ICCV 2021).

One U of three scales. The image enters at full, half and quarter size, and leaves restored at all
three. Every resize inside is nearest, every convolution has a bias, there is no normalisation.
Written from the paper and a description of the published network, under its key names; those cross:
`SCM2`, `FAM2`, `AFFs.1` act at half size, `SCM1`, `FAM1` at a quarter, `AFFs.0` at full size.
"""

# B batch, H×W size of the input, h×w size of a scale, C and D channels in and out

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs.layers import fast_layout
from restore.archs.options import MimoUnetOptions, MimoUnetPlusOptions

WIDTHS = (32, 64, 128)  # at full, half and quarter size
DROPOUT = 0.1  # of a fused skip's channels, in training


class Layer(nn.Module):
    """A convolution and, unless `relu` is off, ReLU; `x: (B, C, h, w)`."""

    def __init__(self, convolution: nn.Module, *, relu: bool = True) -> None:
        super().__init__()
        self.main = nn.Sequential(convolution)
        if relu:
            self.main.append(nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


def conv(channels: int, out: int, side: int, stride: int = 1, *, relu: bool = True) -> Layer:
    """`side`×`side`, zero padding that keeps the size at stride 1."""
    return Layer(nn.Conv2d(channels, out, side, stride, side // 2), relu=relu)


def doubling(channels: int, out: int) -> Layer:
    """A transposed convolution that exactly doubles the size, then ReLU."""
    return Layer(nn.ConvTranspose2d(channels, out, 4, stride=2, padding=1))


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, plus the input; no ReLU after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            conv(channels, channels, 3), conv(channels, channels, 3, relu=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x).add_(x)  # in place: the convolution's own result is not needed again


class Stage(nn.Module):
    """`num_res` residual blocks of one width."""

    def __init__(self, channels: int, num_res: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(ResidualBlock(channels) for _ in range(num_res)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Shallow(nn.Module):
    """SCM: features `(B, C, h, w)` of a reduced image `(B, 3, h, w)`, the image among them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter, half = channels // 4, channels // 2
        self.main = nn.Sequential(
            conv(3, quarter, 3), conv(quarter, half, 1), conv(half, half, 3),
            conv(half, channels - 3, 1),
        )  # fmt: skip
        self.conv = conv(channels, channels, 1, relu=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(torch.cat([image, self.main(image)], dim=1))


class Attention(nn.Module):
    """FAM: the stream from above, attended by the shallow features of this scale's own image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merge = conv(channels, channels, 3, relu=False)

    def forward(self, stream: Tensor, shallow: Tensor) -> Tensor:
        return stream + self.merge(stream * shallow)


class Fusion(nn.Module):
    """AFF: the encoder's features of all scales, finest first, merged at scale `at` (0 is full)."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.conv = nn.Sequential(
            conv(sum(WIDTHS), WIDTHS[at], 1), conv(WIDTHS[at], WIDTHS[at], 3, relu=False)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        steps = [1 << max(self.at - scale, 0) for scale in range(len(features))]
        reduced = [f[..., ::step, ::step] for f, step in zip(features, steps, strict=True)]
        entry, rest = (cast(Layer, layer) for layer in self.conv)
        size = features[self.at].shape[-2:]
        together = merged(cast(nn.Conv2d, entry.main[0]), reduced, size)
        return rest(F.relu(together, inplace=True))


def merged(
    pointwise: nn.Conv2d, features: Sequence[Tensor], size: Sequence[int], mode: str = "nearest"
) -> Tensor:
    """The 1×1 convolution of all `features`, enlarged to `size` and concatenated.

    Enlarging commutes with a 1×1 convolution and its bias: each feature meets its columns of the
    kernel at its own size, and only the few channels that come out are enlarged.
    """
    kernels = pointwise.weight.split([feature.shape[1] for feature in features], dim=1)
    parts: list[Tensor] = []
    for feature, kernel in zip(features, kernels, strict=True):
        part = F.conv2d(feature, kernel, None if parts else pointwise.bias)
        same = part.shape[-2:] == torch.Size(size)
        parts.append(part if same else F.interpolate(part, size, mode=mode))
    return sum(parts[1:], parts[0])


class MIMOUNet(nn.Module):
    """`x: (B, 3, H, W)` in [0, 1] -> it restored at full, half and quarter size, finest first.

    H and W are multiples of 4. The same tuple in training and evaluation, unclamped; the official
    code returns it coarsest first. `dropout` is the chance of a channel of the two fused skips to
    be left out of a training step.
    """

    def __init__(
        self, options: MimoUnetOptions | MimoUnetPlusOptions, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.options = options
        full, half, quarter = WIDTHS

        def stages(widths: Sequence[int]) -> nn.ModuleList:
            return nn.ModuleList(Stage(width, options.num_res) for width in widths)

        # in the order of the official state dict, so that one seed gives the official weights
        self.Encoder = stages(WIDTHS)
        self.feat_extract = nn.ModuleList(
            [
                conv(3, full, 3),
                conv(full, half, 3, stride=2),
                conv(half, quarter, 3, stride=2),
                doubling(quarter, half),
                doubling(half, full),
                conv(full, 3, 3, relu=False),
            ]
        )
        self.Decoder = stages(WIDTHS[::-1])
        self.Convs = nn.ModuleList([conv(2 * half, half, 1), conv(2 * full, full, 1)])
        self.ConvsOut = nn.ModuleList(
            [conv(quarter, 3, 3, relu=False), conv(half, 3, 3, relu=False)]
        )
        self.AFFs = nn.ModuleList([Fusion(0), Fusion(1)])
        self.FAM1, self.SCM1 = Attention(quarter), Shallow(quarter)
        self.FAM2, self.SCM2 = Attention(half), Shallow(half)
        self.drop1, self.drop2 = nn.Dropout2d(dropout), nn.Dropout2d(dropout)

    def regions(self) -> list[nn.Module]:
        """The parts that are alike, to be compiled or shared out one by one."""
        return [*self.Encoder, *self.Decoder]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = fast_layout(x)  # 1.3 × as fast
        x2, x4 = x[..., ::2, ::2], x[..., ::4, ::4]

        e1 = self.Encoder[0](self.feat_extract[0](x))
        e2 = self.Encoder[1](self.FAM2(self.feat_extract[1](e1), self.SCM2(x2)))
        e3 = self.Encoder[2](self.FAM1(self.feat_extract[2](e2), self.SCM1(x4)))

        # both from the encoder, neither from the other; the half-size one draws its chance first
        skip2 = self.drop2(self.AFFs[1]((e1, e2, e3)))
        skip1 = self.drop1(self.AFFs[0]((e1, e2, e3)))

        d3 = self.Decoder[0](e3)
        d2 = torch.cat([self.feat_extract[3](d3), skip2], dim=1)
        d2 = self.Decoder[1](self.Convs[0](d2))
        d1 = torch.cat([self.feat_extract[4](d2), skip1], dim=1)
        d1 = self.Decoder[2](self.Convs[1](d1))

        out4 = self.ConvsOut[0](d3) + x4
        out2 = self.ConvsOut[1](d2) + x2
        return self.feat_extract[5](d1) + x, out2, out4


def build(options: MimoUnetOptions) -> MIMOUNet:
    """MIMO-UNet for `options`; the builder that the table names."""
    return MIMOUNet(options)


def build_plus(options: MimoUnetPlusOptions) -> MIMOUNet:
    """MIMO-UNet+ for `options`: deeper by default, and with dropout on the fused skips."""
    return MIMOUNet(options, DROPOUT)
