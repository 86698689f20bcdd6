"""Floor 3. The networks that `network_g.type` can name, written out."""

from __future__ import annotations

from typing import Any

from restore.archs.architecture import Architecture
from restore.archs.options import SpanOptions
from restore.catalog import Catalog
from restore.section import OneOf

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
    ignored_keys=r".*\.eval_conv\.(weight|bias)",
    presets={
        **{f"SPAN_x{s}": SpanOptions(feature_channels=52, upscale=s) for s in (2, 3, 4)},
        **{f"SPAN-S_x{s}": SpanOptions(feature_channels=48, upscale=s) for s in (2, 3, 4)},
    },
)

ARCHS: Catalog[Architecture] = Catalog("network", {"SPAN": SPAN})


def _options(architecture: Architecture) -> Any:
    return architecture.options


NETWORK = OneOf(ARCHS, _options)


def architecture_of(name: str) -> Architecture:
    """The record that `network_g.type` names, in the table or by dotted path."""
    return NETWORK.entry(name)
