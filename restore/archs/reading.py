"""Floor 3. Names and shapes of tensors -> the options of the network they are of (no torch here).

Each reader takes the shapes of one family, prefixes removed, and gives the options that they tell.
Raises KeyError or ValueError where a file is not whole enough to tell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
Reader = Callable[[Shapes], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """How the weights of one `network_g.type` are known, and what they do not tell."""

    mark: str
    """A key that all of its files have and no other family's."""
    read: Reader
    asks: tuple[str, ...] = ()
    """Options that leave no trace and differ between published variants: they must be told."""
    assumes: tuple[str, ...] = ()
    """Options that leave no trace and are the same in everything published."""


def count(shapes: Shapes, before: str, after: str) -> int:
    """How many numbers 0, 1, 2, … stand between `before` and `after` in the keys."""
    number = 0
    while f"{before}{number}{after}" in shapes:
        number += 1
    if number == 0:
        raise KeyError(f"{before}0{after}")
    return number


def ratio(*pairs: tuple[int, int]) -> float:
    """The roundest r with int(width · r) = inner for all `(width, inner)`."""
    width, inner = max(pairs)
    tried = [round(inner / width, digits) for digits in range(1, 16)] + [(inner + 0.5) / width]
    fitting = (r for r in tried if all(int(w * r) == i for w, i in pairs))
    return next(fitting, inner / width)


def root(square: float) -> int:
    """√square. Raises ValueError unless it is a whole number ≥ 1."""
    side = math.isqrt(int(square))
    if side < 1 or side * side != square:
        raise ValueError(f"{square} is no square")
    return side


def span(shapes: Shapes) -> dict[str, Any]:
    """SPAN: as many channels out as in, unless only 3 gives a whole scale."""
    width, channels = shapes["conv_1.sk.weight"][:2]
    rows = shapes["upsampler.0.weight"][0]
    try:
        outputs, scale = channels, root(rows / channels)
    except ValueError:
        outputs, scale = 3, root(rows / 3)
    told: dict[str, Any] = {"num_in_ch": channels, "num_out_ch": outputs}
    if channels != 3:
        told["rgb_mean"] = (0.0,) * channels
    return told | {"feature_channels": width, "upscale": scale}


def mirnet_v2(shapes: Shapes) -> dict[str, Any]:
    """MIRNet-v2; 6 channels in and 3 out is the dual-pixel form."""
    top, inputs = shapes["conv_in.weight"][:2]
    outputs = shapes["conv_out.weight"][0]
    mid, bot = (shapes[f"body.0.body.0.dau_{s}.body.0.weight"][0] for s in ("mid", "bot"))
    factor = ratio((top, mid))
    told: dict[str, Any] = {"task": "defocus_deblurring"} if (inputs, outputs) == (6, 3) else {}
    return told | {
        "inp_channels": inputs,
        "out_channels": outputs,
        "chan_factor": factor if int(factor**2 * top) == bot else math.sqrt((bot + 0.5) / top),
        "n_feat": top,
        "n_MRB": count(shapes, "body.0.body.", ".conv_out.weight"),
        "bias": "conv_in.bias" in shapes,
    }


def mimo_unet(shapes: Shapes) -> dict[str, Any]:
    """MIMO-UNet of any depth; dropout, which 20 blocks make likely, leaves no trace."""
    blocks = count(shapes, "Encoder.0.layers.", ".main.0.main.0.weight")
    return {"type": "MIMOUNetPlus" if blocks == 20 else "MIMOUNet", "num_res": blocks}


def mimo_unet_cfa(shapes: Shapes) -> dict[str, Any]:
    """Our own variant with aggregation and recalibration."""
    widths = tuple(shapes[f"out.{k}.weight"][1] for k in range(3))
    return {
        "widths": widths,
        "num_res": count(shapes, "encoder.0.", ".main.0.weight"),
        "norm": "batch" if any(key.endswith("running_mean") for key in shapes) else "none",
        "reduction": widths[0] // shapes["recalibrate.0.narrow.weight"][0],
        "fuse_outputs": "fusion.coarser" in shapes,
    }


def _scan(shapes: Shapes, block: str) -> tuple[int, int]:
    """(inner width, states) of a MaIR block."""
    rows, states = shapes[f"{block}self_attention.A_logs"]
    return rows // 4, states


def mair(shapes: Shapes) -> dict[str, Any]:
    """MaIR."""
    width, channels = shapes["conv_first.weight"][:2]
    groups = count(shapes, "layers.", ".residual_group.blocks.0.ln_1.weight")
    block = "layers.0.residual_group.blocks.0."
    inner, states = _scan(shapes, block)
    told: dict[str, Any] = {"upsampler": None, "upscale": 1}
    if "conv_before_upsample.0.weight" in shapes:
        told = {"upsampler": "pixelshuffle", "upscale": _doublings(shapes, "upsample.")}
    elif "upsample.0.weight" in shapes:
        scale = root(shapes["upsample.0.weight"][0] / channels)
        told = {"upsampler": "pixelshuffledirect", "upscale": scale}
    return told | {
        "in_chans": channels,
        "embed_dim": width,
        "depths": tuple(
            count(shapes, f"layers.{group}.residual_group.blocks.", ".ln_1.weight")
            for group in range(groups)
        ),
        "d_state": states,
        "ssm_ratio": ratio((width, inner)),
        "mlp_ratio": ratio((width, shapes[f"{block}conv_blk.fc1.weight"][0])),
        "patch_norm": "patch_embed.norm.weight" in shapes,
        "resi_connection": "1conv" if "layers.0.conv.weight" in shapes else "3conv",
    }


def _doublings(shapes: Shapes, before: str) -> int:
    """The scale of a chain of convolutions and pixel shuffles: 3, or 2 to their number."""
    rows, width = shapes[f"{before}0.weight"][:2]
    if rows == 9 * width:
        return 3
    return 2 ** sum(1 for key in shapes if re.fullmatch(re.escape(before) + r"\d+\.weight", key))


def mair_unet(shapes: Shapes) -> dict[str, Any]:
    """MaIRUNet."""
    width, channels = shapes["patch_embed.proj.weight"][:2]
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    scans, mlps = [], []
    for level, name in enumerate(levels):
        scans.append((width << level, _scan(shapes, f"{name}.0.")[0]))
        mlps.append((width << level, shapes[f"{name}.0.mlp.fc1.weight"][0]))
    return {
        "inp_channels": channels,
        "dual_pixel_task": "skip_conv.weight" in shapes,
        "out_channels": shapes["output.weight"][0],
        "dim": width,
        "num_blocks": tuple(count(shapes, f"{name}.", ".ln_1.weight") for name in levels),
        "num_refinement_blocks": count(shapes, "refinement.", ".ln_1.weight"),
        "bias": "output.bias" in shapes,
        "ssm_ratio": ratio(*scans),
        "flp_ratio": ratio(mlps[0]),
        "mlp_ratio": ratio(*mlps[1:]),
    }


def grl(shapes: Shapes) -> dict[str, Any]:
    """GRL."""
    width, channels = shapes["conv_first.weight"][:2]
    stages = count(shapes, "layers.", ".blocks.0.norm1.weight")

    def heads(kind: str) -> tuple[int, ...]:
        key = f"blocks.0.attn.{kind}.logit_scale"
        return tuple(shapes[f"layers.{stage}.{key}"][0] for stage in range(stages))

    block = "layers.0.blocks.0."
    told: dict[str, Any] = {"upsampler": "", "upscale": 1}
    if "conv_up1.weight" in shapes:
        told = {"upsampler": "nearest+conv", "upscale": 4}
    elif "conv_before_upsample.0.weight" in shapes:
        told = {"upsampler": "pixelshuffle", "upscale": _doublings(shapes, "upsample.up.")}
    elif "upsample.up.0.weight" in shapes:
        scale = root(shapes["upsample.up.0.weight"][0] / channels)
        told = {"upsampler": "pixelshuffledirect", "upscale": scale}
    outputs = shapes.get("conv_last.weight", (channels,))[0]
    if outputs != channels:
        told["out_channels"] = outputs
    return told | {
        "in_channels": channels,
        "embed_dim": width,
        "depths": tuple(
            count(shapes, f"layers.{stage}.blocks.", ".norm1.weight") for stage in range(stages)
        ),
        "num_heads_window": heads("window_attn.attn_transform"),
        "num_heads_stripe": heads("stripe_attn.attn_transform1"),
        "mlp_ratio": ratio((width, shapes[f"{block}mlp.fc1.weight"][0])),
        "qkv_bias": f"{block}attn.qkv.body.bias" in shapes,
        "local_connection": f"{block}conv.cab.0.weight" in shapes,
        "conv_type": _closing(shapes),
        **_anchors(shapes, f"{block}attn.anchor.body."),
    }


def _closing(shapes: Shapes) -> str:
    """GRL's `conv_type`."""
    shape = shapes.get("layers.0.conv.weight")
    if shape is None:
        return "3conv"
    return "linear" if len(shape) == 2 else "1conv" if shape[-1] == 3 else "1conv1x1"


def _anchors(shapes: Shapes, before: str) -> dict[str, Any]:
    """How GRL's anchors are made, and their down factor where its shape tells it."""
    if f"{before}0.reduction.bias" in shapes:
        return {"anchor_proj_type": "avgpool", "anchor_one_stage": True}
    kind, after = ("conv2d", ".weight")
    if f"{before}0.reduction.weight" in shapes:
        kind, after = "patchmerging", ".reduction.weight"
    steps = sum(1 for key in shapes if key.startswith(before) and key.endswith(after))
    first = shapes[f"{before}0{after}"]
    down = 2**steps if steps > 1 or kind == "patchmerging" else first[-1] - 1
    told = {"anchor_proj_type": kind, "anchor_one_stage": steps == 1}
    return told | {"anchor_window_down_factor": down, "stripe_size": (8 * down, 8 * down)}


FAMILIES: dict[str, Family] = {
    "SPAN": Family("conv_1.sk.weight", span, assumes=("img_range", "rgb_mean")),
    "MIRNet_v2": Family("body.0.body.0.dau_top.body.0.weight", mirnet_v2, assumes=("task",)),
    "MIMOUNet": Family("FAM1.merge.main.0.weight", mimo_unet),
    "MIMOUNetPlusCFA": Family("recalibrate.0.narrow.weight", mimo_unet_cfa),
    "MaIR": Family(
        "layers.0.residual_group.blocks.0.self_attention.A_logs",
        mair,
        asks=("scan_len",),
        assumes=("img_range",),
    ),
    "MaIRUNet": Family("encoder_level1.0.self_attention.A_logs", mair_unet, asks=("scan_len",)),
    "GRL": Family(
        "layers.0.blocks.0.attn.qkv.body.weight",
        grl,
        asks=("window_size", "stripe_size", "anchor_window_down_factor"),
        assumes=("stripe_groups", "stripe_shift", "anchor_proj_type", "img_range", "init_method"),
    ),
}
