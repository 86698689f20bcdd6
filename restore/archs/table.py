"""Floor 3. The networks that `network_g.type` can name, written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from restore.archs.architecture import Architecture, SizeRule
from restore.archs.grl_options import GRL_PRESETS, GrlOptions
from restore.archs.mair_options import MairOptions, MairUnetOptions
from restore.archs.options import (
    MimoUnetOptions,
    MimoUnetPlusCfaOptions,
    MimoUnetPlusOptions,
    MirnetV2Options,
    SpanOptions,
)
from restore.catalog import Catalog
from restore.section import OneOf, Section

SPAN = Architecture(
    name="SPAN",
    options=SpanOptions,
    builder="restore.archs.span:build",
    scale=lambda options: options.upscale,
    scale_key="upscale",
    channels=lambda options: options.num_in_ch,
    tasks=("super-resolution",),
    paper="Swift Parameter-free Attention Network, CVPRW 2024, arXiv 2311.12770",
    license="Apache-2.0 (official code and weights)",
    reach=21,  # one pixel for each convolution in a row: 1 + 6 × 3 + 1 + 1
    ignored_keys=r".*\.eval_conv\.(weight|bias)",
    presets={
        **{f"SPAN_x{s}": SpanOptions(feature_channels=52, upscale=s) for s in (2, 3, 4)},
        **{f"SPAN-S_x{s}": SpanOptions(feature_channels=48, upscale=s) for s in (2, 3, 4)},
    },
)

MIRNET_V2 = Architecture(
    name="MIRNet_v2",
    options=MirnetV2Options,
    builder="restore.archs.mirnet_v2:build",
    scale=lambda options: 1,
    scale_key=None,
    channels=lambda options: options.inp_channels,
    tasks=("denoising", "real-world super-resolution", "enhancement", "defocus-deblurring"),
    paper="Learning Enriched Features for Fast Image Restoration and Enhancement, TPAMI 2022, "
    "arXiv 2205.01649",
    license="Academic Public License, non-commercial (official code and weights)",
    size=SizeRule(minimum=4, multiple=4),
    presets={
        **{name: MirnetV2Options() for name in ("sr_x2", "sr_x3", "sr_x4")},
        **{name: MirnetV2Options() for name in ("enhancement_lol", "enhancement_fivek")},
        "real_denoising": MirnetV2Options(),
        "dual_pixel_defocus": MirnetV2Options(task="defocus_deblurring", inp_channels=6),
    },
)

MIMO_UNET = Architecture(
    name="MIMOUNet",
    options=MimoUnetOptions,
    builder="restore.archs.mimo_unet:build",
    scale=lambda options: 1,
    scale_key=None,
    channels=lambda options: 3,
    tasks=("deblurring",),
    paper="Rethinking Coarse-to-Fine Approach in Single Image Deblurring, ICCV 2021",
    license="none: the official code and weights have no licence; this is our own code",
    # it takes multiples of 4; 8 is the padding that the family is evaluated with here
    size=SizeRule(minimum=8, multiple=8),
    presets={"MIMO-UNet": MimoUnetOptions()},
)

MIMO_UNET_PLUS = replace(
    MIMO_UNET,
    name="MIMOUNetPlus",
    options=MimoUnetPlusOptions,
    builder="restore.archs.mimo_unet:build_plus",
    presets={"MIMO-UNet+": MimoUnetPlusOptions()},
)

MIMO_UNET_PLUS_CFA = replace(
    MIMO_UNET,
    name="MIMOUNetPlusCFA",
    options=MimoUnetPlusCfaOptions,
    builder="restore.archs.mimo_unet_cfa:build",
    paper="none: a description of another network under the name of MIMO-UNet+, made definite",
    license="Apache-2.0 (our own; there are no official code and weights)",
    presets={"MIMO-UNet+CFA": MimoUnetPlusCfaOptions()},
)

_MAIR_T = MairOptions(d_state=1, ssm_ratio=1.1, mlp_ratio=1.6)
_MAIR_S = MairOptions(ssm_ratio=1.4, mlp_ratio=1.6, scan_len=4)
_MAIR_CLASSIC = MairOptions(
    embed_dim=180, depths=(6,) * 6, ssm_ratio=2.0, mlp_ratio=2.5, upsampler="pixelshuffle"
)
_MAIR_CDN = MairOptions(
    embed_dim=180, depths=(6,) * 6, ssm_ratio=1.3, scan_len=4, upsampler=None, upscale=1
)

MAIR = Architecture(
    name="MaIR",
    options=MairOptions,
    builder="restore.archs.mair.mair:build",
    scans=True,
    scale=lambda options: options.scale,
    scale_key="upscale",
    channels=lambda options: options.in_chans,
    tasks=("super-resolution", "denoising"),
    paper="MaIR: A Locality- and Continuity-Preserving Mamba for Image Restoration, CVPR 2025, "
    "arXiv 2412.20066",
    license="none: the official code and weights have no licence; this is our own code",
    # tables that other tools save with the weights, and the mean colour
    ignored_keys=r"(.*\.)?xs_\w*ids\w*|mean",
    presets={
        f"{name}_x{scale}": options.model_copy(update={"upscale": scale})
        for name, options in (("MaIR-T", _MAIR_T), ("MaIR-S", _MAIR_S), ("MaIR", _MAIR_CLASSIC))
        for scale in (2, 3, 4)
    }
    | {"MaIR_CDN": _MAIR_CDN},
)

_MAIR_UNET_48 = MairUnetOptions(ssm_ratio=2.0, flp_ratio=4.0, mlp_ratio=1.5, scan_len=4)
_MAIR_UNET_24 = MairUnetOptions(
    dim=24, num_blocks=(2, 2, 3, 4), num_refinement_blocks=2, ssm_ratio=1.2
)

MAIR_UNET = replace(
    MAIR,
    name="MaIRUNet",
    options=MairUnetOptions,
    builder="restore.archs.mair.mair_unet:build",
    scale=lambda options: 1,
    scale_key=None,
    channels=lambda options: options.inp_channels,
    tasks=("denoising", "deblurring", "dehazing"),
    size=SizeRule(minimum=8, multiple=8),
    presets={
        "MaIRUNet_RealDenoising": _MAIR_UNET_48,
        "MaIRUNet_MotionDeblurring": _MAIR_UNET_48,
        "MaIRUNet_Dehazing": _MAIR_UNET_24,
    },
)

GRL = Architecture(
    name="GRL",
    options=GrlOptions,
    builder="restore.archs.grl.network:build",
    scale=lambda options: options.upscale,
    scale_key="upscale",
    channels=lambda options: options.in_channels,
    tasks=(
        "super-resolution",
        "real-world super-resolution",
        "denoising",
        "jpeg-artifact-removal",
        "demosaicking",
        "deblurring",
        "defocus-deblurring",
    ),
    paper="Efficient and Explicit Modelling of Image Hierarchies for Image Restoration, CVPR 2023, "
    "arXiv 2303.00748",
    license="MIT (official code)",
    # any size: the network pads by itself, as published, with zeros where mirroring cannot reach
    grid=lambda options: options.multiple,
    ignored_keys=r"(.*\.)?(table_(w|sh|sv)|(index|mask)_(w|s[hv]_(a2w|w2a))"
    r"|relative_coords_table|relative_position_index|attn_mask)",
    presets=GRL_PRESETS,
)

ARCHS: Catalog[Architecture] = Catalog(
    "network",
    {
        "SPAN": SPAN,
        "MIRNet_v2": MIRNET_V2,
        "MIMOUNet": MIMO_UNET,
        "MIMOUNetPlus": MIMO_UNET_PLUS,
        "MIMOUNetPlusCFA": MIMO_UNET_PLUS_CFA,
        "MaIR": MAIR,
        "MaIRUNet": MAIR_UNET,
        "GRL": GRL,
    },
)

PRESETS: dict[str, Section] = {
    name: options for entry in ARCHS.values() for name, options in entry.presets.items()
}
"""Every published variant of every network."""


def _options(architecture: Architecture) -> Any:
    return architecture.options


NETWORK = OneOf(ARCHS, _options)


def architecture_of(options: Any) -> Architecture:
    """The record of the network that `options` configure, in the table or by dotted path."""
    return NETWORK.entry(options.type)
