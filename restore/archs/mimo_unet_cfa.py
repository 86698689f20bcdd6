"""Floor 3. MIMO-UNet+ with cross-scale aggregation and recalibrated skips: NOT the published one.

An article describes "MIMO-UNet+" with two modules, CFA and FRM, that the network of ICCV 2021 does
not have (the published ones are `MIMOUNet` and `MIMOUNetPlus` in `mimo_unet.py`). This is that
description, for those who want it; no published weights fit it and no figures of it are known.
Where the description leaves a choice open, this is ours:

  inputs    half and quarter size straight from the image, antialiased bicubic, not clamped;
            shallow block: 3×3, ReLU, 3×3
  encoder   strided 3×3 with ReLU goes down; the shallow features of that scale's image join by
            concatenation and a 1×1; batch normalisation, if any, after each convolution of a
            residual block, which then has no bias
  CFA       after the encoder, from the outputs of its stages: 1×1, ReLU, 3×3; finer stages reach
            a coarser one through the encoder itself; the coarsest stage merges only its own
  FRM       on each of the three aggregated skips
  decoder   from the coarsest skip; the stage before reaches the next by its transposed convolution
            with ReLU, the stages before that one by bilinear resizing
  outputs   3×3 convolutions; the fusion, if any, is a sum of the three, resized bilinearly, whose
            learnt weights add up to 1 and start as (1, 0, 0); the fused image replaces the finest
"""

# B batch, H×W size of the input, h×w size of a scale, C channels; scales 0, 1, 2 from the finest

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs.layers import fast_layout
from restore.archs.mimo_unet import conv, doubling, merged
from restore.archs.options import MimoUnetPlusCfaOptions


class ResidualBlock(nn.Module):
    """3×3, ReLU, 3×3, plus the input; batch normalisation after each convolution if `batch`."""

    def __init__(self, channels: int, batch: bool) -> None:
        super().__init__()

        def convolution() -> list[nn.Module]:
            layer = nn.Conv2d(channels, channels, 3, padding=1, bias=not batch)
            return [layer, nn.BatchNorm2d(channels)] if batch else [layer]

        self.main = nn.Sequential(*convolution(), nn.ReLU(inplace=True), *convolution())

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + x


class Aggregation(nn.Module):
    """CFA: features of `own` width and of the coarser stages, at the size of the first."""

    def __init__(self, own: int, coarser: Sequence[int]) -> None:
        super().__init__()
        self.entry = nn.Conv2d(own + sum(coarser), own, 1)
        self.conv = nn.Conv2d(own, own, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        together = merged(self.entry, features, features[0].shape[-2:], "bilinear")
        return self.conv(F.relu(together, inplace=True))


class Recalibration(nn.Module):
    """FRM: squeeze and excitation; each channel times its own weight in (0, 1)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(channels, channels // reduction)
        self.widen = nn.Linear(channels // reduction, channels)

    def weights(self, x: Tensor) -> Tensor:
        """`x: (B, C, h, w)` -> `(B, C, 1, 1)` in (0, 1)."""
        weights = torch.sigmoid(self.widen(F.relu(self.narrow(x.mean((2, 3))))))
        return weights[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights(x)


class Join(nn.Module):
    """A decoder stage's entry: the stage before enlarged, the skip, and earlier stages; 1×1."""

    def __init__(self, below: int, own: int, earlier: Sequence[int]) -> None:
        super().__init__()
        self.up = doubling(below, own)
        self.merge = nn.Conv2d(2 * own + sum(earlier), own, 1)

    def forward(self, below: Tensor, skip: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        features = [self.up(below), skip, *earlier]
        return merged(self.merge, features, skip.shape[-2:], "bilinear")


class OutputFusion(nn.Module):
    """The three outputs as one image of the finest size."""

    def __init__(self) -> None:
        super().__init__()
        self.coarser = nn.Parameter(torch.zeros(2))  # the finest has 1 minus their sum

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        finest = fused = outputs[0]
        for weight, output in zip(self.coarser, outputs[1:], strict=True):
            fused = fused + weight * (enlarged(output, finest) - finest)
        return fused


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """`x` brought to the size of `like`, bilinearly."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear")


def bicubic(image: Tensor, step: int) -> Tensor:
    """`image` at 1/`step` of its size, antialiased."""
    size = (image.shape[-2] // step, image.shape[-1] // step)
    wide = image if image.dtype == torch.float64 else image.float()  # no half precision kernel
    return F.interpolate(wide, size, mode="bicubic", antialias=True).to(image.dtype)


class MIMOUNetPlusCFA(nn.Module):
    """`x: (B, 3, H, W)` in [0, 1] -> it restored at full, half and quarter size, finest first.

    H and W are multiples of 4. The same tuple in training and evaluation, unclamped.
    """

    def __init__(self, options: MimoUnetPlusCfaOptions) -> None:
        super().__init__()
        self.options = options
        widths = options.widths

        def stages() -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(
                    *(ResidualBlock(w, options.norm == "batch") for _ in range(options.num_res))
                )
                for w in widths
            )

        self.shallow = nn.ModuleList(
            nn.Sequential(conv(3, w, 3), nn.Conv2d(w, w, 3, padding=1)) for w in widths
        )
        self.down = nn.ModuleList(conv(widths[k], widths[k + 1], 3, stride=2) for k in (0, 1))
        self.join_down = nn.ModuleList(nn.Conv2d(2 * w, w, 1) for w in widths[1:])
        self.encoder = stages()
        self.aggregate = nn.ModuleList(Aggregation(widths[k], widths[k + 1 :]) for k in range(3))
        self.recalibrate = nn.ModuleList(Recalibration(w, options.reduction) for w in widths)
        self.join_up = nn.ModuleList(
            Join(widths[k + 1], widths[k], widths[k + 2 :]) for k in (0, 1)
        )
        self.decoder = stages()
        self.out = nn.ModuleList(nn.Conv2d(w, 3, 3, padding=1) for w in widths)
        self.fusion = OutputFusion() if options.fuse_outputs else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = [fast_layout(image) for image in (x, bicubic(x, 2), bicubic(x, 4))]
        encoded = self.encode(images)
        skips = [
            recalibrate(aggregate(encoded[k:]))
            for k, (aggregate, recalibrate) in enumerate(
                zip(self.aggregate, self.recalibrate, strict=True)
            )
        ]
        decoded = self.decode(skips)
        parts = zip(self.out, decoded, images, strict=True)
        full, half, quarter = (out(feature) + image for out, feature, image in parts)
        if self.fusion is not None:
            full = self.fusion((full, half, quarter))
        return full, half, quarter

    def encode(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Images, finest first -> the features of the encoder's stages, finest first."""
        shallow = [block(image) for block, image in zip(self.shallow, images, strict=True)]
        encoded = [self.encoder[0](shallow[0])]
        for k in (1, 2):
            features = torch.cat([self.down[k - 1](encoded[-1]), shallow[k]], dim=1)
            encoded.append(self.encoder[k](self.join_down[k - 1](features)))
        return encoded

    def decode(self, skips: Sequence[Tensor]) -> list[Tensor]:
        """Skips, finest first -> the features of the decoder's stages, finest first."""
        decoded = [self.decoder[2](skips[2])]
        for k in (1, 0):
            below, *earlier = decoded
            decoded.insert(0, self.decoder[k](self.join_up[k](below, skips[k], earlier)))
        return decoded


def build(options: MimoUnetPlusCfaOptions) -> MIMOUNetPlusCFA:
    """The network for `options`; the builder that the table names."""
    return MIMOUNetPlusCFA(options)
