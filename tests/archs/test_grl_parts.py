"""GRL's options, heads and anchors: what is refused, what is taken, and what it computes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs import build_network
from restore.archs.build import network_options
from restore.archs.grl.layers import anchors, closing
from restore.archs.grl.network import GRL
from restore.archs.grl_options import GRL_PRESETS, GrlOptions
from restore.archs.layers import RGB_MEAN
from restore.archs.table import ARCHS
from restore.errors import OptionError
from restore.section import without_effect

from helpers import noise

SMALL: dict[str, Any] = {
    "type": "GRL",
    "embed_dim": 16,
    "depths": [1],
    "num_heads_window": [2],
    "num_heads_stripe": [2],
    "window_size": 4,
    "stripe_size": [4, 4],
}


def grl(**more: Any) -> GRL:
    torch.manual_seed(0)
    network = build_network(SMALL | more)
    assert isinstance(network, GRL)
    return network.double().eval()


def taken(**more: Any) -> GrlOptions:
    options = network_options(SMALL | more)
    assert isinstance(options, GrlOptions)
    return options


# Options ------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a scale without a head": ({"upscale": 2}, "upscale", "fix: name an upsampler"),
    "a head without a scale": (
        {"upsampler": "pixelshuffledirect"},
        "upscale",
        "upscale 1 does not go with upsampler 'pixelshuffledirect'",
    ),
    "pixel shuffle by 6": (
        {"upsampler": "pixelshuffle", "upscale": 6},
        "upscale",
        "expected 3 or a power of two above 1",
    ),
    "nearest by 2": ({"upsampler": "nearest+conv", "upscale": 2}, "upscale", "expected 4"),
    "an unknown head": ({"upsampler": "pixelshufle"}, "upsampler", "mean 'pixelshuffle'?"),
    "an odd width": ({"embed_dim": 17, "num_heads_window": [1]}, "embed_dim", "fix: use 18"),
    "heads that do not divide": ({"num_heads_window": [3]}, "num_heads_window", "fix: use 1"),
    "heads of another number of stages": (
        {"num_heads_stripe": [2, 2]},
        "num_heads_stripe",
        "2 numbers of heads for 1 stages",
    ),
    "no stages": ({"depths": []}, "depths", "a length ≥ 1"),
    "no stripes": ({"stripe_size": [4, None]}, "stripe_size", "or a number in stripe_groups"),
    "stripes that anchors do not divide": (
        {"stripe_size": [4, 6], "anchor_window_down_factor": 4},
        "stripe_size",
        "no stripes of size 6 with anchor_window_down_factor 4",
    ),
    "stripes of one pixel": ({"stripe_size": [1, 4]}, "stripe_size", "fix: use 2"),
    "windows of one pixel": ({"window_size": 1}, "window_size", "a number ≥ 2"),
    "a mean that does not fit": ({"out_channels": 1}, "out_channels", "leave out_channels out"),
    "separable convolutions": ({"qkv_proj_type": "separable_conv"}, "qkv_proj_type", "'linear'"),
    "another output projection": ({"out_proj_type": "conv"}, "out_proj_type", "'linear'"),
    "the Euclidean ablation": ({"euclidean_dist": True}, "euclidean_dist", "expected False"),
    "pools in stages": ({"anchor_one_stage": False}, "anchor_one_stage", "for pooled anchors"),
    "a convolution by 1": (
        {"anchor_proj_type": "conv2d"},
        "anchor_one_stage",
        "conv2d anchors cannot be reduced by 1 this way",
    ),
    "merging by 4 at once": (
        {"anchor_proj_type": "patchmerging", "anchor_window_down_factor": 4},
        "anchor_one_stage",
        "a down factor of 2 in one stage",
    ),
    "halving to a third": (
        {
            "anchor_proj_type": "conv2d",
            "anchor_window_down_factor": 3,
            "anchor_one_stage": False,
            "stripe_size": [6, 6],
        },
        "anchor_one_stage",
        "a power of two above 1",
    ),
    "a narrow local branch": ({"local_connection": True}, "local_connection", "embed_dim ≥ 18"),
    "an unknown start": ({"init_method": "x"}, "init_method", "'x'"),
    "an unknown key": ({"window_sizes": 8}, "window_sizes", "did you mean 'window_size'?"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_work_are_refused(name: str) -> None:
    options, key, says = REFUSED[name]
    with pytest.raises(OptionError) as caught:
        network_options(SMALL | options)
    assert [p.where for p in caught.value.problems] == [f"network_g.{key}"]
    assert says in str(caught.value)


def test_official_keys_without_effect_are_named() -> None:
    official = {
        "img_size": 64,
        "name": "grl",
        "double_window": False,
        "stripe_square": False,
        "separable_conv_act": True,
        "use_buffer": True,
        "use_efficient_buffer": True,
        "fairscale_checkpoint": False,
        "offload_to_cpu": False,
    }
    assert {path[-1] for path, _ in without_effect(taken(**official))} == set(official)
    assert without_effect(taken()) == []


def test_defaults_build() -> None:
    network = build_network({"type": "GRL"}, meta=True)
    assert sum(p.numel() for p in network.parameters()) == 5_112_903


def test_the_record_says_what_the_options_say() -> None:
    record = ARCHS["GRL"]
    for name, options in GRL_PRESETS.items():
        assert isinstance(options, GrlOptions) and without_effect(options) == []
        assert record.scale(options) == options.upscale
        assert record.channels(options) == (6 if "dual" in name else 1 if "c1" in name else 3)
        assert name.endswith(f"x{options.upscale}") or options.upscale in (1, 4)
    assert record.scale_key == "upscale"


@pytest.mark.parametrize(
    ("more", "multiple"),
    [
        ({"window_size": 12, "stripe_size": [48, 96]}, 96),
        ({"window_size": 8, "stripe_size": [12, 4]}, 24),
        ({"window_size": 8, "stripe_size": [8, None], "stripe_groups": [None, 4]}, 8),
        (
            {"stripe_size": [8, None], "stripe_groups": [None, 3], "anchor_window_down_factor": 4},
            24,
        ),
    ],
)
def test_sides_are_padded_to_the_common_multiple(more: dict[str, Any], multiple: int) -> None:
    options = taken(**more)
    assert options.multiple == multiple
    for side in (1, multiple - 1, multiple, multiple + 1):
        padded = options.padded(side)
        assert padded >= side and padded % multiple == 0
        groups = max(g or 1 for g in options.stripe_groups)
        assert padded < max(side, 2 * groups) + multiple


def test_size_rule_leaves_padding_to_the_network() -> None:
    assert ARCHS["GRL"].size.padded(17) == 17 and ARCHS["GRL"].size.padded(1) == 1


# Anchors ------------------------------------------------------------------------------------------


def projected(layer: Any, x: Tensor) -> Tensor:
    return F.linear(x, layer.reduction.weight, layer.reduction.bias)


@pytest.mark.parametrize("kind", ["avgpool", "maxpool"])
@pytest.mark.parametrize("down", [1, 2, 3])
def test_pooled_anchors(kind: str, down: int) -> None:
    options = taken(
        anchor_proj_type=kind, anchor_window_down_factor=down, stripe_size=[2 * down, 2 * down]
    )
    body = anchors(options).double()
    x = noise((2, 2 * down, 3 * down, 16))
    cells = x.unflatten(2, (3, down)).unflatten(1, (2, down)).transpose(2, 3)  # (B, 2, 3, r, r, C)
    pooled = cells.mean(dim=(3, 4)) if kind == "avgpool" else cells.amax(dim=(3, 4))
    assert torch.allclose(body(x), projected(body[0], pooled), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("down", "once", "sides"), [(2, True, [3]), (4, True, [5]), (4, False, [3, 3])]
)
def test_convolved_anchors(down: int, once: bool, sides: list[int]) -> None:
    options = taken(
        anchor_proj_type="conv2d", anchor_window_down_factor=down, anchor_one_stage=once
    )
    body = anchors(options).double()
    shapes = [tuple(value.shape) for key, value in body.state_dict().items() if "weight" in key]
    assert shapes == [(8, 16 if i == 0 else 8, side, side) for i, side in enumerate(sides)]
    assert list(body.state_dict())[:2] == ["0.weight", "0.bias"]
    x = noise((2, 8, 12, 16))
    expected = x.permute(0, 3, 1, 2)
    for layer in body:
        assert isinstance(layer, nn.Conv2d)
        stride = down if once else 2
        expected = F.conv2d(
            expected, layer.weight, layer.bias, stride, padding=layer.kernel_size[0] // 2
        )
    assert body(x).shape == (2, 8 // down, 12 // down, 8)
    assert torch.allclose(body(x), expected.permute(0, 2, 3, 1), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("down", "once", "count"), [(2, True, 1), (2, False, 1), (4, False, 2)])
def test_merged_anchors(down: int, once: bool, count: int) -> None:
    options = taken(
        anchor_proj_type="patchmerging", anchor_window_down_factor=down, anchor_one_stage=once
    )
    body = anchors(options).double()
    assert [tuple(v.shape) for v in body.state_dict().values()] == [(8, 64), (8, 32)][:count]
    assert list(body.state_dict())[0] == "0.reduction.weight"
    x = noise((2, 8, 4, 16))
    out = x
    for layer in body:
        weight: Any = layer.get_submodule("reduction").weight
        made = torch.empty(2, out.shape[1] // 2, out.shape[2] // 2, 8, dtype=torch.float64)
        for i in range(made.shape[1]):
            for j in range(made.shape[2]):
                places = [(0, 0), (1, 0), (0, 1), (1, 1)]  # (row, column)
                corner = torch.cat([out[:, 2 * i + a, 2 * j + b] for a, b in places], dim=-1)
                made[:, i, j] = corner @ weight.T
        out = made
    assert torch.allclose(body(x), out, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["maxpool", "conv2d", "patchmerging"])
def test_other_anchors_serve_a_network(kind: str) -> None:
    network = grl(anchor_proj_type=kind, anchor_window_down_factor=2)
    assert network(noise((1, 3, 8, 12))).shape == (1, 3, 8, 12)


@pytest.mark.parametrize("kind", ["1conv", "3conv", "1conv1x1", "linear"])
def test_what_closes_a_stage(kind: str) -> None:
    layer = closing(taken(conv_type=kind)).double()
    shapes = {
        "1conv": {"weight": (16, 16, 3, 3), "bias": (16,)},
        "1conv1x1": {"weight": (16, 16, 1, 1), "bias": (16,)},
        "linear": {"weight": (16, 16), "bias": (16,)},
        "3conv": {
            "0.weight": (4, 16, 3, 3),
            "0.bias": (4,),
            "2.weight": (4, 4, 1, 1),
            "2.bias": (4,),
            "4.weight": (16, 4, 3, 3),
            "4.bias": (16,),
        },
    }[kind]
    state = layer.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == shapes
    x = noise((2, 16, 5, 7))
    if kind == "3conv":
        expected = x
        for index in (0, 2, 4):
            weight = state[f"{index}.weight"]
            expected = F.conv2d(
                expected, weight, state[f"{index}.bias"], padding=weight.shape[-1] // 2
            )
            expected = expected if index == 4 else F.leaky_relu(expected, 0.2)
    else:
        weight = state["weight"] if kind != "linear" else state["weight"][:, :, None, None]
        expected = F.conv2d(x, weight, state["bias"], padding=weight.shape[-1] // 2)
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-13)
    assert grl(conv_type=kind)(noise((1, 3, 4, 8))).shape == (1, 3, 4, 8)


# Heads --------------------------------------------------------------------------------------------


def features_of(network: GRL, lq: Tensor) -> Tensor:
    """What the head is given."""
    caught: list[Tensor] = []
    inner = network._enlarged

    def spy(x: Tensor, image: Tensor) -> Tensor:
        caught.append(x)
        return inner(x, image)

    network._enlarged = spy  # type: ignore[method-assign]
    with torch.no_grad():
        network(lq)
    del network._enlarged
    return caught[0]


def convolution(network: GRL, key: str, x: Tensor) -> Tensor:
    state = network.state_dict()
    return F.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], padding=1)


def by_hand(network: GRL, x: Tensor, centred: Tensor) -> Tensor:
    """The four heads, written out, up to the mean."""
    options = network.options
    if options.upsampler == "":
        residual = convolution(network, "conv_last", x)
        return centred + residual if options.in_channels == options.outputs else residual
    if options.upsampler == "pixelshuffledirect":
        return F.pixel_shuffle(convolution(network, "upsample.up.0", x), options.upscale)
    x = F.leaky_relu(convolution(network, "conv_before_upsample.0", x), 0.01)
    if options.upsampler == "pixelshuffle":
        steps = [3] if options.upscale == 3 else [2] * round(math.log2(options.upscale))
        for index, step in enumerate(steps):
            x = F.pixel_shuffle(convolution(network, f"upsample.up.{2 * index}", x), step)
        return convolution(network, "conv_last", x)
    for key in ("conv_up1", "conv_up2"):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = F.leaky_relu(convolution(network, key, x), 0.2)
    return convolution(network, "conv_last", F.leaky_relu(convolution(network, "conv_hr", x), 0.2))


HEADS: list[dict[str, Any]] = [
    {},
    {"in_channels": 1},
    {"in_channels": 6, "out_channels": 3},
    {"in_channels": 4},
    {"upsampler": "pixelshuffledirect", "upscale": 2},
    {"upsampler": "pixelshuffledirect", "upscale": 5},
    {"upsampler": "pixelshuffle", "upscale": 2, "in_channels": 1, "out_channels": 1},
    {"upsampler": "pixelshuffle", "upscale": 3},
    {"upsampler": "pixelshuffle", "upscale": 4},
    {"upsampler": "nearest+conv", "upscale": 4},
    {"img_range": 255.0},
]


@pytest.mark.parametrize("more", HEADS)
def test_heads(more: dict[str, Any]) -> None:
    network = grl(**more)
    options = network.options
    lq = noise((2, options.in_channels, 6, 5))
    mean = torch.zeros(1)
    if options.in_channels == 3:  # float32 numbers in any precision
        mean = torch.tensor(RGB_MEAN, dtype=torch.float32).double().view(1, 3, 1, 1)
    whole = F.pad(lq, (0, 3, 0, 2), mode="reflect")
    centred = (whole - mean) * options.img_range
    expected = by_hand(network, features_of(network, lq), centred) / options.img_range + mean
    with torch.no_grad():
        found = network(lq)
    scale = options.upscale
    assert found.shape == (2, options.outputs, 6 * scale, 5 * scale)
    assert torch.allclose(found, expected[..., : 6 * scale, : 5 * scale], rtol=0, atol=1e-12)
