"""Floor 3. MaIRUNet: real denoising, deblurring, dehazing on four levels (arXiv 2412.20066).

The same blocks as MaIR, without shifted stripes, in a U of Restormer's form. The parameters have
the official key names; the state dict holds nothing else.
"""

# B batch, C width, H x W pixels, L = H*W; d is the width at full resolution

from __future__ import annotations

import torch
from torch import Tensor, nn

from restore.archs.mair.block import ResidualMambaBlock, Size, run_blocks, to_map, to_tokens
from restore.archs.mair.scan_order import NestedScan
from restore.archs.mair_options import MairUnetOptions
from restore.ops.selective_scan import check_override

STATES = (4, 8, 16, 32)
"""States of a scan on each level; what comes after the last way up has those of level 2."""


class PatchEmbedding(nn.Module):
    """Image `(B, inp_channels, H, W)` -> tokens `(B, L, d)`."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        return to_tokens(self.proj(image))


class Downsample(nn.Module):
    """Map `(B, C, H, W)` -> `(B, 2C, H/2, W/2)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layer = nn.Conv2d(width, width // 2, 3, padding=1, bias=False)
        self.body = nn.Sequential(layer, nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Upsample(nn.Module):
    """Map `(B, C, H, W)` -> `(B, C/2, 2H, 2W)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layer = nn.Conv2d(width, width * 2, 3, padding=1, bias=False)
        self.body = nn.Sequential(layer, nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class MaIRUNet(nn.Module):
    """`lq: (B, inp_channels, h, w)` in [0, 1] -> `(B, out_channels, h, w)`, unclamped.

    h and w are multiples of 8.
    """

    def __init__(self, options: MairUnetOptions) -> None:
        super().__init__()
        self.options = options
        d, bias = options.dim, options.bias
        counts = options.num_blocks
        self.patch_embed = PatchEmbedding(options.inp_channels, d)
        self.encoder_level1 = _stage(options, counts[0], d, STATES[0], options.flp_ratio)
        self.down1_2 = Downsample(d)
        self.encoder_level2 = _stage(options, counts[1], 2 * d, STATES[1])
        self.down2_3 = Downsample(2 * d)
        self.encoder_level3 = _stage(options, counts[2], 4 * d, STATES[2])
        self.down3_4 = Downsample(4 * d)
        self.latent = _stage(options, counts[3], 8 * d, STATES[3])
        self.up4_3 = Upsample(8 * d)
        self.reduce_chan_level3 = nn.Conv2d(8 * d, 4 * d, 1, bias=bias)
        self.decoder_level3 = _stage(options, counts[2], 4 * d, STATES[2])
        self.up3_2 = Upsample(4 * d)
        self.reduce_chan_level2 = nn.Conv2d(4 * d, 2 * d, 1, bias=bias)
        self.decoder_level2 = _stage(options, counts[1], 2 * d, STATES[1])
        self.up2_1 = Upsample(2 * d)
        self.decoder_level1 = _stage(options, counts[0], 2 * d, STATES[1])
        self.refinement = _stage(options, options.num_refinement_blocks, 2 * d, STATES[1])
        if options.dual_pixel_task:
            self.skip_conv = nn.Conv2d(d, 2 * d, 1, bias=bias)
        self.output = nn.Conv2d(2 * d, options.out_channels, 3, padding=1, bias=bias)
        self.path = NestedScan(options.scan_len)

    def regions(self) -> list[nn.Module]:
        """The parts that are alike, to be compiled once for all of a level."""
        return [m for m in self.modules() if isinstance(m, ResidualMambaBlock)]

    def forward(self, lq: Tensor) -> Tensor:
        embedded = self.patch_embed(lq.contiguous(memory_format=torch.channels_last))
        first = to_map(embedded, (lq.shape[2], lq.shape[3]))
        level1 = self._blocks(self.encoder_level1, first)
        level2 = self._blocks(self.encoder_level2, self.down1_2(level1))
        level3 = self._blocks(self.encoder_level3, self.down2_3(level2))
        x = self._blocks(self.latent, self.down3_4(level3))

        x = self.reduce_chan_level3(torch.cat([self.up4_3(x), level3], dim=1))
        x = self._blocks(self.decoder_level3, x)
        x = self.reduce_chan_level2(torch.cat([self.up3_2(x), level2], dim=1))
        x = self._blocks(self.decoder_level2, x)
        x = torch.cat([self.up2_1(x), level1], dim=1)
        x = self._blocks(self.refinement, self._blocks(self.decoder_level1, x))
        if self.options.dual_pixel_task:
            return self.output(x + self.skip_conv(first))
        return self.output(x) + lq

    def _blocks(self, stage: nn.ModuleList, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` through the blocks of one stage -> same."""
        size: Size = (x.shape[2], x.shape[3])
        orders = (self.path.orders(*size, x.device),)
        tokens = run_blocks(stage, to_tokens(x), size, orders, self.options.recomputes)
        return to_map(tokens, size)


def _stage(
    options: MairUnetOptions, count: int, width: int, states: int, mlp_ratio: float | None = None
) -> nn.ModuleList:
    """`count` blocks; `mlp_ratio` is the options' own unless given."""
    return nn.ModuleList(
        ResidualMambaBlock(
            width,
            states,
            options.ssm_ratio,
            options.mlp_ratio if mlp_ratio is None else mlp_ratio,
            drop_path=options.drop_path_rate,
            mlp="mlp",
        )
        for _ in range(count)
    )


def build(options: MairUnetOptions) -> MaIRUNet:
    """MaIRUNet for `options`; the builder that the table names. Raises BackendError ENV30."""
    check_override()
    return MaIRUNet(options)
