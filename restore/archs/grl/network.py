"""Floor 3. GRL, image restoration by explicit hierarchies (CVPR 2023, arXiv 2303.00748).

Stages of blocks at constant resolution; every block looks globally through anchored stripes,
regionally through windows and, in the base size, locally through convolutions. The parameters have
the official key names; the official tables, which hold no weights, are computed when needed.
"""

# B batch, h x w input, H x W padded, C = embed_dim, s scale

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs.grl.blocks import Block, Stage
from restore.archs.grl.layers import Upsample, closing
from restore.archs.grl.tables import Geometry, geometry
from restore.archs.grl_options import GrlOptions
from restore.archs.layers import RGB_MEAN, factors_of, fast_layout, mean_map, rising
from restore.catalog import locate

FEATURES = 64
"""Width of the heads that enlarge through features."""
SLOPE = 0.2


class GRL(nn.Module):
    """`lq: (B, in_channels, h, w)` in [0, 1] -> `(B, outputs, h·s, w·s)`, unclamped.

    Any size: the network pads at the bottom and right, by mirroring, or by zeros where the image is
    too small to be mirrored, and crops its output. Padding takes part in the attention, as
    published. Dual-pixel deblurring takes the left view's channels, then the right view's, and adds
    no input to the output.
    """

    def __init__(self, options: GrlOptions) -> None:
        super().__init__()
        self.options = options
        width = options.embed_dim
        self.conv_first = nn.Conv2d(options.in_channels, width, 3, padding=1)
        self.norm_start = nn.LayerNorm(width)
        self.pos_drop = nn.Dropout(options.drop_rate)
        left_out = rising(options.drop_path_rate, options.depths)
        self.layers = nn.ModuleList(
            Stage(options, stage, rates) for stage, rates in enumerate(left_out)
        )
        self.norm_end = nn.LayerNorm(width)
        self.conv_after_body = closing(options)
        self._add_head()
        mean = mean_map(RGB_MEAN if options.in_channels == 3 else (0.0,))
        self.mean: Tensor
        self.register_buffer("mean", mean, persistent=False)
        self._draw_weights()

    def _add_head(self) -> None:
        options = self.options
        width, outputs, scale = options.embed_dim, options.outputs, options.upscale
        if options.upsampler == "pixelshuffledirect":
            self.upsample = Upsample(width, outputs, [scale])
            return
        if options.upsampler == "":
            self.conv_last = nn.Conv2d(width, outputs, 3, padding=1)
            return
        self.conv_before_upsample = nn.Sequential(
            nn.Conv2d(width, FEATURES, 3, padding=1), nn.LeakyReLU(0.01)
        )
        if options.upsampler == "pixelshuffle":
            self.upsample = Upsample(FEATURES, FEATURES, factors_of(scale))
        else:
            self.conv_up1 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
            self.conv_up2 = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
            self.conv_hr = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.conv_last = nn.Conv2d(FEATURES, outputs, 3, padding=1)

    @torch.no_grad()
    def _draw_weights(self) -> None:
        """First weights as published: linear layers normal, convolutions torch's own."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        method = self.options.init_method
        for name, module in self.layers.named_modules():
            if isinstance(module, nn.LayerNorm) and method == "l":
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d) and method[0] in "wt":
                module.weight.mul_(0.1)
            elif isinstance(module, nn.Linear) and ".cpb_mlp." not in name:
                if method == "w":
                    module.weight.mul_(0.1)
                elif method[0] == "t":
                    std = 0.1 ** (len(method) - 1) * int(method[-1])
                    nn.init.trunc_normal_(module.weight, std=std)

    def regions(self) -> list[nn.Module]:
        """The parts that are alike, to be compiled or shared out one by one."""
        return [m for m in self.modules() if isinstance(m, Block)]

    def forward(self, lq: Tensor) -> Tensor:
        options, scale = self.options, self.options.upscale
        height, width = lq.shape[-2:]
        mean = self.mean.to(lq.dtype)
        # the blocks, whose channels are last, would ask for this layout anyway
        x = fast_layout((self._padded(lq) - mean) * options.img_range)
        shallow = self.conv_first(x)
        deep = self.conv_after_body(self._body(shallow))
        out = self._enlarged(deep + shallow, x) / options.img_range + mean
        return out[..., : height * scale, : width * scale]

    def _padded(self, lq: Tensor) -> Tensor:
        height, width = lq.shape[-2:]
        below, right = self.options.padded(height) - height, self.options.padded(width) - width
        if not (below or right):
            return lq
        mirrored = below < height and right < width
        return F.pad(lq, (0, right, 0, below), mode="reflect" if mirrored else "constant")

    def _body(self, features: Tensor) -> Tensor:
        """All stages; `(B, C, H, W)` -> same."""
        x = self.pos_drop(self.norm_start(features.permute(0, 2, 3, 1)))
        tables = self._geometry(x.shape[1], x.shape[2])
        for stage in self.layers:
            x = stage(x, tables)
        return self.norm_end(x).permute(0, 3, 1, 2)

    def for_export(self) -> nn.Module:
        """A copy whose graph holds for every height and width; see `exported`."""
        return locate("restore.archs.grl.exported:ExportedGRL")(self)

    def _geometry(self, height: int, width: int) -> Geometry:
        return geometry(self.options, height, width, self.conv_first.weight)

    def _enlarged(self, x: Tensor, image: Tensor) -> Tensor:
        """The head: features `(B, C, H, W)`, mean-free input -> mean-free output."""
        kind = self.options.upsampler
        if kind == "":
            residual = self.conv_last(x)
            same = self.options.in_channels == self.options.outputs
            return image + residual if same else residual
        if kind == "pixelshuffledirect":
            return self.upsample(x)
        x = self.conv_before_upsample(x)
        if kind == "pixelshuffle":
            return self.conv_last(self.upsample(x))
        for layer in (self.conv_up1, self.conv_up2):
            x = F.leaky_relu(layer(F.interpolate(x, scale_factor=2)), SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))


def build(options: GrlOptions) -> GRL:
    """GRL for `options`; the builder that the table names."""
    return GRL(options)
