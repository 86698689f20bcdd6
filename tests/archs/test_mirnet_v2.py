"""MIRNet-v2 against the official network's numbers and against its published form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs import build_network, fuse, load_weights
from restore.archs.build import network_options
from restore.archs.mirnet_v2 import MIRNetV2, SelectiveFusion
from restore.archs.options import MirnetV2Options
from restore.archs.table import ARCHS
from restore.errors import OptionError, WeightsError
from restore.evaluation.predictor import Predictor
from restore.section import without_effect

from helpers import (
    BENCHMARKS,
    FILL_RULE,
    check_training_step,
    hashed,
    landmarks,
    module_at,
    near,
    noise,
)

CASES = ("nf16_mrb1", "nf16_mrb1_defocus", "nf80_denoise")
PRESETS = {
    **dict.fromkeys(("sr_x2", "sr_x3", "sr_x4", "real_denoising"), 5_858_560),
    **dict.fromkeys(("enhancement_lol", "enhancement_fivek"), 5_858_560),
    "dual_pixel_defocus": 5_860_720,
}
DEFOCUS = {"task": "defocus_deblurring", "inp_channels": 6}


def mirnet(**more: Any) -> MIRNetV2:
    network = build_network({"type": "MIRNet_v2", "n_feat": 16, "n_MRB": 1} | more)
    assert isinstance(network, MIRNetV2)
    return network


def seeded(seed: int, **more: Any) -> MIRNetV2:
    torch.manual_seed(seed)
    return mirnet(**more)


PLAIN = module_at(BENCHMARKS / "plain_mirnet_v2.py")


def as_published(network: MIRNetV2) -> nn.Module:
    """The plain twin with the same weights, in the same precision."""
    twin = PLAIN.PlainMIRNetV2(network.options).to(network.conv_in.weight.dtype)
    twin.load_state_dict(network.state_dict())
    return twin


# The official numbers -----------------------------------------------------------------------------


def golden_index(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "golden/mirnetv2/open_index.json").read_text())


def golden_network(shared: Path, case: dict[str, Any]) -> MIRNetV2:
    options = dict(case["constructor"])
    options["type"] = options.pop("cls")
    network = build_network(options)
    assert isinstance(network, MIRNetV2)
    rule = module_at(shared / FILL_RULE)
    arrays = rule.fill_model(network, case["gains"], case["salt"])
    assert rule.digest(arrays) == case["fill_sha256"]
    return network


def test_no_golden_case_is_left_out(shared: Path) -> None:
    index = golden_index(shared)
    assert {case["name"] for case in index["forward"]} == set(CASES)
    assert [step["name"] for step in index["step"]] == ["nf16_mrb1"]
    files = (shared / "golden/mirnetv2").glob("keys_*.json")
    assert {file.stem.removeprefix("keys_") for file in files} == set(PRESETS)


@pytest.mark.parametrize("name", CASES)
def test_forward_is_the_official_one(shared: Path, name: str) -> None:
    case = next(c for c in golden_index(shared)["forward"] if c["name"] == name)
    arrays = np.load(shared / "golden/mirnetv2" / case["file"])
    (expected,) = case["outputs"]
    network = golden_network(shared, case)
    lq = torch.from_numpy(arrays["input"])
    with torch.no_grad():
        single = network(lq).numpy()
        assert single.dtype == np.float32
        assert np.abs(single - arrays["out32"]).max() <= expected["suggested_tol32_abs"]
        network.double()
        for form in (network, as_published(network)):
            double = form(lq.double()).numpy()
            assert np.abs(double - arrays["out64"]).max() <= 1e-10 * expected["std"]


@pytest.mark.parametrize("name", CASES)
def test_inner_modules_are_the_official_ones(shared: Path, name: str) -> None:
    case = next(c for c in golden_index(shared)["forward"] if c["name"] == name)
    rows = case["probes_float64"]["rows"]
    arrays = np.load(shared / "golden/mirnetv2" / case["file"])
    network = golden_network(shared, case).double()
    found: dict[str, list[Tensor]] = {module: [] for module in rows}
    for module, outputs in found.items():
        network.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, output, outputs=outputs: outputs.append(output)
        )
    with torch.no_grad():
        network(torch.from_numpy(arrays["input"]).double())
    assert len(found) == 11
    for module, outputs in found.items():
        assert len(outputs) == len(rows[module])
        for output, (shape, mean, std) in zip(outputs, rows[module], strict=True):
            assert list(output.shape) == shape
            assert output.mean().item() == pytest.approx(mean, rel=0, abs=1e-10 * std), module
            assert output.std().item() == pytest.approx(std, rel=1e-10), module


def test_training_step_is_the_official_one(shared: Path) -> None:
    step = golden_index(shared)["step"][0]
    arrays = np.load(shared / "golden/mirnetv2" / step["file"])
    lq, gt = (torch.from_numpy(arrays[key]).double() for key in ("input", "target"))

    def loss_of(network: nn.Module) -> Tensor:
        return (network(lq) - gt).abs().mean()

    check_training_step(golden_network(shared, step).double(), step, loss_of)


@pytest.mark.parametrize("preset", PRESETS)
def test_state_dict_has_the_official_keys(shared: Path, preset: str) -> None:
    layout = json.loads((shared / f"golden/mirnetv2/keys_{preset}.json").read_text())
    constructor = dict(layout["constructor"])
    options = network_options({"type": constructor.pop("cls")} | constructor)
    ignored = {path[-1] for path, _ in without_effect(options)}
    assert ignored == {"n_RRG", "height", "width", "scale"} & set(constructor)
    state = build_network(options, meta=True).state_dict()
    entries = [(key, tuple(shape)) for key, shape, *_ in layout["entries"]]
    assert [(key, tuple(value.shape)) for key, value in state.items()] == entries
    assert all(v.is_contiguous() and v.dtype == torch.float32 for v in state.values())
    assert sum(value.numel() for value in state.values()) == layout["params_total"]


# The fingerprint: the same proof without any file -------------------------------------------------


def fingerprint_gain(key: str) -> float:
    if key.endswith(".conv_mask.weight"):
        return 3.0
    inner = key.startswith("body.")
    return 0.5 if inner and key.endswith((".body.0.conv_out.weight", ".body.1.weight")) else 1.0


FINGERPRINTS = {
    "default": [
        -0.0068663119147,
        0.922754697823,
        0.793543816607,
        -0.189084507957,
        -0.986280530341,
    ],
    "defocus": [-1.19873531001, 0.953423682226, -0.687710892241, 0.357199903151, -1.53448826205],
}


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize(("form", "more"), [("default", {}), ("defocus", DEFOCUS)])
def test_fingerprint(form: str, more: dict[str, Any], published: bool) -> None:
    network = mirnet(**more).double()
    state = {}
    for number, (key, value) in enumerate(network.state_dict().items()):
        shape = tuple(value.shape)
        gain = fingerprint_gain(key) * np.sqrt(3 / np.prod(shape[1:]))
        state[key] = torch.from_numpy(gain * hashed(number, value.numel()).reshape(shape))
    load_weights(network, state)
    channels = network.options.inp_channels
    pixels = (hashed(10**6, channels * 12 * 20) + 1) / 2
    with torch.no_grad():
        run = as_published(network) if published else network
        out = run(torch.from_numpy(pixels).reshape(1, channels, 12, 20))
    assert out.shape == (1, 3, 12, 20)
    assert landmarks(out) == pytest.approx(FINGERPRINTS[form], rel=2e-11)


# The fast form against the published one ----------------------------------------------------------


SIZES = [(4, 4), (4, 12), (20, 8), (28, 36)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "more",
    [{}, DEFOCUS, {"bias": True, "n_MRB": 2}, {"chan_factor": 1, "n_feat": 8}],
    ids=["default", "defocus", "bias", "equal widths"],
)
def test_same_output_loss_and_gradients_as_published(
    size: tuple[int, int], more: dict[str, Any]
) -> None:
    fast = seeded(3, **more).double()
    slow = as_published(fast)
    lq, gt = noise((2, fast.options.inp_channels, *size)), noise((2, 3, *size), seed=1)
    inputs = [lq.clone().requires_grad_() for _ in range(2)]
    outputs = [network(x) for network, x in zip((fast, slow), inputs, strict=True)]
    losses = [(output - gt).abs().mean() for output in outputs]
    for loss in losses:
        loss.backward()
    assert outputs[0].shape == gt.shape and near(*outputs) and near(*losses)
    assert inputs[0].grad is not None and inputs[1].grad is not None
    assert inputs[1].grad.norm() > 0 and near(inputs[0].grad, inputs[1].grad)
    for (name, ours), theirs in zip(fast.named_parameters(), slow.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None, name
        if name.endswith("conv_mask.bias"):  # without effect: a softmax does not see it
            assert max(ours.grad.norm(), theirs.grad.norm()) < 1e-12, name
        else:
            lone = size == (4, 4) and name.endswith("dau_bot.gcnet.conv_mask.weight")
            assert lone or theirs.grad.norm() > 0, name  # one position always weighs 1
            assert near(ours.grad, theirs.grad, 1e-8), name


@pytest.mark.parametrize("streams", [2, 3])
def test_fusion_of_two_and_of_three(streams: int) -> None:
    torch.manual_seed(0)
    fast = SelectiveFusion(24, streams).double()
    slow = PLAIN.PlainFusion(24, streams).double()
    slow.load_state_dict(fast.state_dict())
    tensors = [noise((2, 24, 5, 7), seed) for seed in range(streams)]
    assert near(fast(tensors), slow(tensors), 1e-13)
    pooled = torch.stack(tensors).mean(dim=(3, 4)).sum(dim=0)
    weights = torch.stack(fast.weights(pooled))
    assert weights.shape == (streams, 2, 24, 1, 1) and bool((weights > 0).all())
    assert torch.allclose(weights.sum(dim=0), torch.ones(()).double(), atol=1e-15)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 3)])
def test_fusing_before_enlarging_is_fusing_after(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    fusion = SelectiveFusion(16).double()
    stream, lower = noise((2, 16, 2 * size[0], 2 * size[1])), noise((2, 16, *size), seed=1)
    larger = F.interpolate(lower, scale_factor=2, mode="bilinear")
    assert near(fusion.with_lower(stream, lower), fusion([stream, larger]), 1e-13)


def test_neither_layout_nor_input_is_changed() -> None:
    network = seeded(0)
    lq = noise((2, 3, 8, 12)).float()
    last = lq.contiguous(memory_format=torch.channels_last)
    before = lq.clone()
    with torch.no_grad():
        first = network(lq)
        assert torch.equal(first, network(last))
        assert torch.equal(first, fuse(network)(lq))  # nothing differs in evaluation
    assert torch.equal(lq, before) and lq.is_contiguous()
    assert all(parameter.is_contiguous() for parameter in network.parameters())


# Size, count, start -------------------------------------------------------------------------------


def published_shapes(options: MirnetV2Options) -> dict[str, tuple[int, ...]]:
    """Every key and shape in the order of the specification's table, for bias off."""
    n, f = options.n_feat, options.chan_factor
    w = {"top": n, "mid": int(f * n), "bot": int(f * f * n)}
    shapes: dict[str, tuple[int, ...]] = {"conv_in.weight": (n, options.inp_channels, 3, 3)}

    def pointwise(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"] = (rows, columns, 1, 1)

    for r, groups in enumerate((1, 2, 4, 4)):
        for m in range(options.n_MRB):
            block = f"body.{r}.body.{m}"
            for s, c in w.items():
                for j in (0, 2):
                    shapes[f"{block}.dau_{s}.body.{j}.weight"] = (c, c // groups, 3, 3)
                pointwise(f"{block}.dau_{s}.gcnet.conv_mask", 1, c)
                for j in (0, 2):
                    pointwise(f"{block}.dau_{s}.gcnet.channel_add_conv.{j}", c, c)
            pointwise(f"{block}.down2.body.0.bot.1", w["mid"], n)
            pointwise(f"{block}.down4.0.body.0.bot.1", w["mid"], n)
            pointwise(f"{block}.down4.1.body.0.bot.1", w["bot"], w["mid"])
            for p in (1, 2):
                pointwise(f"{block}.up21_{p}.body.0.bot.0", n, w["mid"])
            for p in (1, 2):
                pointwise(f"{block}.up32_{p}.body.0.bot.0", w["mid"], w["bot"])
            pointwise(f"{block}.conv_out", n, n)
            for s in ("top", "mid"):
                squeezed = max(w[s] // 8, 4)
                pointwise(f"{block}.skff_{s}.conv_du.0", squeezed, w[s])
                for k in (0, 1):
                    pointwise(f"{block}.skff_{s}.fcs.{k}", w[s], squeezed)
        shapes[f"body.{r}.body.{options.n_MRB}.weight"] = (n, n, 3, 3)
    shapes["conv_out.weight"] = (options.out_channels, n, 3, 3)
    return shapes


def test_every_preset_has_the_published_number_of_parameters() -> None:
    presets = ARCHS["MIRNet_v2"].presets
    assert set(presets) == set(PRESETS)
    for preset, options in presets.items():
        network = build_network(options, meta=True)
        assert isinstance(network, MIRNetV2) and isinstance(options, MirnetV2Options)
        shapes = published_shapes(options)
        found = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        assert list(found.items()) == list(shapes.items()) and len(found) == 238
        assert sum(p.numel() for p in network.parameters()) == PRESETS[preset]
        assert all(p.requires_grad for p in network.parameters()) and not list(network.buffers())


def test_one_seed_gives_the_official_initial_weights() -> None:
    """PyTorch's default for every convolution, drawn in the order of the keys."""
    network = seeded(11, n_MRB=2)
    after = torch.get_rng_state()
    torch.manual_seed(11)
    for (key, shape), (ours, value) in zip(
        published_shapes(network.options).items(), network.state_dict().items(), strict=True
    ):
        rows, columns, side, _ = shape
        drawn = nn.Conv2d(columns, rows, side, bias=False).weight
        assert key == ours and torch.equal(drawn, value), key
    assert torch.equal(torch.get_rng_state(), after)


def test_biases_stand_where_the_official_ones_do() -> None:
    network = mirnet(bias=True)
    without = set(published_shapes(network.options))
    biases = {key for key in network.state_dict() if key not in without}
    plain = {f"body.{r}.body.1.bias" for r in range(4)} | {"conv_in.bias", "conv_out.bias"}
    inner = ("body.0", "body.2", "gcnet.conv_mask")
    inner += ("gcnet.channel_add_conv.0", "gcnet.channel_add_conv.2")
    for r in range(4):
        plain |= {f"body.{r}.body.0.conv_out.bias"}
        for s in ("top", "mid", "bot"):
            plain |= {f"body.{r}.body.0.dau_{s}.{layer}.bias" for layer in inner}
    assert biases == plain


# Weights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, DEFOCUS], ids=["image skip", "feature skip"])
def test_an_official_file_loads_strictly(tmp_path: Path, more: dict[str, Any]) -> None:
    source = seeded(1, **more)
    torch.save({"params": source.state_dict()}, tmp_path / "official.pth")
    network = seeded(2, **more)
    report = load_weights(network, tmp_path / "official.pth", strict=True)
    assert (report.container, report.loaded, report.missing, report.unexpected) == (
        "params",
        122,
        (),
        (),
    )
    lq = noise((1, network.options.inp_channels, 8, 8)).float()
    with torch.no_grad():
        assert torch.equal(network(lq), source(lq))


def test_state_dict_makes_the_round_trip() -> None:
    source, network = seeded(1), seeded(2)
    network.load_state_dict(source.state_dict())
    assert list(network.state_dict()) == list(source.state_dict())
    for key, value in source.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key


def test_weights_of_another_width_are_refused() -> None:
    with pytest.raises(WeightsError) as caught:
        load_weights(mirnet(), mirnet(**DEFOCUS).state_dict())
    assert "conv_in.weight (16, 6, 3, 3) ≠ (16, 3, 3, 3)" in str(caught.value)


# Any input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 17), (5, 8), (13, 22), (16, 12)])
@pytest.mark.parametrize("more", [{}, DEFOCUS], ids=["image skip", "feature skip"])
def test_the_predictor_takes_any_size(size: tuple[int, int], more: dict[str, Any]) -> None:
    network = seeded(0, **more).double()
    record = ARCHS["MIRNet_v2"]
    assert record.scale(network.options) == 1 and record.scale_key is None
    assert record.channels(network.options) == network.options.inp_channels
    predict = Predictor(network, 1, record.size)
    lq = noise((1, network.options.inp_channels, *size))
    found = predict(lq)
    assert found.shape == (1, 3, *size)
    # by hand: the last rows and columns mirrored until both sides are multiples of 4, then cut off
    padded = lq.numpy()
    for axis, side in ((2, size[0]), (3, size[1])):
        width = [(0, 0)] * 4
        width[axis] = (0, -side % 4)
        padded = np.pad(padded, width, mode="reflect" if side > 1 else "edge")
    with torch.no_grad():
        expected = network(torch.from_numpy(padded))[..., : size[0], : size[1]]
    assert near(found, expected, 1e-12)


@pytest.mark.parametrize("size", [(6, 8), (8, 6), (5, 4), (2, 2)])
def test_other_sizes_do_not_pass_unnoticed(size: tuple[int, int]) -> None:
    with pytest.raises(RuntimeError):
        mirnet()(noise((1, 3, *size)).float())


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network = seeded(0).double()
    lq = noise((3, 3, 8, 12))
    with torch.no_grad():
        together = network(lq)
        for index in range(3):
            assert near(together[index : index + 1], network(lq[index : index + 1]), 1e-12)
        lq[1] = 1 - lq[1]
        moved = network(lq)
    assert [near(moved[i], together[i], 1e-12) for i in range(3)] == [True, False, True]


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_low_precision(low: torch.dtype) -> None:
    network = seeded(0)
    lq = noise((2, 3, 12, 8)).float()
    with torch.no_grad():
        exact = network(lq)
    with torch.autocast("cpu", low):
        rough = network(lq)
    assert rough.dtype == torch.float32  # the image is added to the output in its own precision
    assert 0 < (rough - exact).abs().max() < 0.05
    rough.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name


# Options ------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "widths that 4 does not divide": (
        {"n_feat": 20},
        "n_feat",
        "error[OPT25]: streams of 20, 30, 45 channels (network_g.n_feat): got 20; expected "
        "widths n, n·1.5 and n·2.25 that are multiples of 4; fix: use 16 or 32",
    ),
    "24": ({"n_feat": 24}, "n_feat", "use 16 or 32"),
    "10": ({"n_feat": 10}, "n_feat", "use 16"),
    "widths that do not lead back": ({"chan_factor": 1.3}, "n_feat", "fix: use "),
    "no width at the bottom": ({"n_feat": 4, "chan_factor": 0.25}, "n_feat", "use 64"),
    "a factor of 0": ({"chan_factor": 0}, "chan_factor", "a number > 0"),
    "an endless factor": ({"chan_factor": 1e200}, "chan_factor", "a number ≤ 16"),
    "an endless width": ({"n_feat": 10**400}, "n_feat", "a number ≤ 65536"),
    "an image skip of other channels": (
        {"inp_channels": 6},
        "out_channels",
        "make both the same, or set task: defocus_deblurring",
    ),
    "a task mistyped": ({"task": "defocus_debluring"}, "task", "did you mean 'defocus_deblurring'"),
    "no blocks": ({"n_MRB": 0}, "n_MRB", "a number ≥ 1"),
    "an unknown key": ({"n_feats": 80}, "n_feats", "did you mean 'n_feat'?"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_work_are_refused(name: str) -> None:
    options, key, says = REFUSED[name]
    with pytest.raises(OptionError) as caught:
        network_options({"type": "MIRNet_v2", **options})
    (problem,) = caught.value.problems
    assert problem.where == f"network_g.{key}"
    assert says in str(problem)


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({}, (80, 120, 180)),
        ({"n_feat": 48}, (48, 72, 108)),
        ({"n_feat": 4, "chan_factor": 1}, (4, 4, 4)),
        ({"n_feat": 8, "chan_factor": 2.0}, (8, 16, 32)),
        ({"n_feat": 64, "chan_factor": 0.5}, (64, 32, 16)),
    ],
)
def test_options_that_work_are_taken(options: dict[str, Any], widths: tuple[int, int, int]) -> None:
    taken = network_options({"type": "MIRNet_v2", **options})
    assert isinstance(taken, MirnetV2Options) and taken.widths == widths
    with torch.no_grad():
        assert mirnet(**options)(noise((1, 3, 4, 8)).float()).shape == (1, 3, 4, 8)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (1, 3), (4, 4)])
def test_other_channels(inputs: int, outputs: int) -> None:
    network = mirnet(inp_channels=inputs, out_channels=outputs)
    with torch.no_grad():
        assert network(noise((1, inputs, 4, 8)).float()).shape == (1, outputs, 4, 8)


def test_keys_without_effect_are_named() -> None:
    official = {"n_RRG": 4, "height": 3, "width": 2, "scale": 4}
    options = network_options({"type": "MIRNet_v2", **official})
    assert {path[-1] for path, _ in without_effect(options)} == set(official)
    assert ARCHS["MIRNet_v2"].scale(options) == 1
