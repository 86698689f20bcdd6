"""SPAN against the official network's numbers, its published form and its own deploy form."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from restore.archs import build_network, fuse, load_weights
from restore.archs.build import network_options
from restore.archs.span import SPAN, ReparamUnit
from restore.archs.table import ARCHS
from restore.errors import OptionError

from helpers import check_training_step, hashed, landmarks, load_filled, near, noise

CASES = ("ch8_x2", "ch12_x4", "ch48_x4", "ch48_x2")
LAYOUTS = ("ch48_x2", "ch48_x4", "ch52_x2", "ch52_x4")


def span(channels: int = 8, upscale: int = 2, **more: Any) -> SPAN:
    network = build_network(
        {"type": "SPAN", "feature_channels": channels, "upscale": upscale, **more}
    )
    assert isinstance(network, SPAN)
    return network


def seeded(seed: int, channels: int = 8, upscale: int = 2, **more: Any) -> SPAN:
    torch.manual_seed(seed)
    return span(channels, upscale, **more)


def as_published(network: SPAN) -> SPAN:
    """A copy that computes every unit branch by branch instead of merging it."""
    slow = copy.deepcopy(network)
    for unit in slow.modules():
        if isinstance(unit, ReparamUnit):
            unit.forward = unit.branches
    return slow


# The official numbers -----------------------------------------------------------------------------


def golden_network(shared: Path, case: dict[str, Any]) -> SPAN:
    options = dict(case["constructor"])
    options["type"] = options.pop("cls")
    network = build_network(options)
    assert isinstance(network, SPAN)
    load_filled(network, network.official_state(), shared, case)
    return network


def golden_index(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "golden/span/open_index.json").read_text())


def test_no_golden_case_is_left_out(shared: Path) -> None:
    index = golden_index(shared)
    assert {case["name"] for case in index["forward"]} == set(CASES)
    assert [step["name"] for step in index["step"]] == ["ch8_x2"]
    files = (shared / "golden/span").glob("keys_span_*.json")
    assert {file.stem.removeprefix("keys_span_") for file in files} == set(LAYOUTS)


@pytest.mark.parametrize("name", CASES)
def test_forward_is_the_official_one(shared: Path, name: str) -> None:
    case = next(c for c in golden_index(shared)["forward"] if c["name"] == name)
    arrays = np.load(shared / "golden/span" / case["file"])
    (expected,) = case["outputs"]
    network = golden_network(shared, case)
    lq = torch.from_numpy(arrays["input"])
    with torch.no_grad():
        for form in (network, fuse(network)):
            single = form(lq).numpy()
            assert np.abs(single - arrays["out32"]).max() <= expected["suggested_tol32_abs"]
        network.double()
        for form in (network, fuse(network), as_published(network)):
            double = form(lq.double()).numpy()
            assert np.abs(double - arrays["out64"]).max() <= 1e-10 * expected["std"]


def test_merged_kernels_are_the_official_ones(shared: Path) -> None:
    case = next(c for c in golden_index(shared)["forward"] if c["name"] == "ch8_x2")
    arrays = np.load(shared / "golden/span" / case["file"])
    merged = golden_network(shared, case).double().fused_units()
    stored = {key.removeprefix("fused64/"): arrays[key] for key in arrays if "fused64/" in key}
    assert len(stored) == 8
    for key, value in stored.items():
        np.testing.assert_allclose(merged[key].numpy(), value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LAYOUTS)
def test_official_state_has_the_official_keys(shared: Path, name: str) -> None:
    layout = json.loads((shared / f"golden/span/keys_span_{name}.json").read_text())
    options = layout["constructor"]
    network = span(options["feature_channels"], options["upscale"])
    entries = [(key, tuple(shape)) for key, shape, *_ in layout["entries"]]
    assert len(entries) == 204
    official = network.official_state()
    assert [(key, tuple(value.shape)) for key, value in official.items()] == entries
    assert all(v.is_contiguous() and v.dtype == torch.float32 for v in official.values())
    own = [(key, shape) for key, shape in entries if ".eval_conv." not in key]
    assert [(key, tuple(value.shape)) for key, value in network.state_dict().items()] == own
    assert len(own) == 164


def test_training_step_is_the_official_one(shared: Path) -> None:
    step = golden_index(shared)["step"][0]
    arrays = np.load(shared / "golden/span" / step["file"])
    lq, gt = (torch.from_numpy(arrays[key]).double() for key in ("input", "target"))

    def loss_of(network: nn.Module) -> Tensor:
        return (network(lq) - gt).abs().mean()

    check_training_step(golden_network(shared, step).double(), step, loss_of)


# The fingerprint: the same proof without any file -------------------------------------------------


def fingerprint_gain(key: str) -> float:
    if key in ("conv_1.sk.weight", "conv_1.conv.0.weight"):
        return 1 / 64
    return 2.0 if key.endswith(("c3_r.sk.weight", "c3_r.conv.2.weight")) else 1.0


@pytest.fixture(scope="module")
def fingerprinted() -> SPAN:
    network = span(12, 2).double()
    state = {}
    for number, (key, value) in enumerate(network.official_state().items()):
        shape = tuple(value.shape)
        weight = len(shape) > 1
        gain = fingerprint_gain(key) * np.sqrt(3 / np.prod(shape[1:])) if weight else 0.1
        state[key] = torch.from_numpy(gain * hashed(number, value.numel()).reshape(shape))
    assert len(state) == 204
    load_weights(network, state)
    return network


def plain(network: SPAN) -> nn.Module:
    return network


@pytest.mark.parametrize("form", [plain, fuse, as_published])
def test_fingerprint(fingerprinted: SPAN, form: Callable[[SPAN], nn.Module]) -> None:
    lq = torch.from_numpy(((hashed(10**6, 3 * 9 * 11) + 1) / 2).reshape(1, 3, 9, 11))
    with torch.no_grad():
        out = form(fingerprinted)(lq)
    assert out.shape == (1, 3, 18, 22)
    known = [-1.70383280693, 10.1577061783, 0.338225524124, 1.42068598889, 5.56966441732]
    assert landmarks(out) == pytest.approx(known, rel=2e-11)


def test_fingerprint_of_a_merged_unit(fingerprinted: SPAN) -> None:
    units = fingerprinted.fused_units()
    kernel, bias = units["block_1.c1_r.weight"], units["block_1.c1_r.bias"]
    assert kernel.sum().item() == pytest.approx(-6.01316605097, rel=1e-11)
    assert bias[0].item() == pytest.approx(-0.12913229807, rel=1e-10)
    corner = """0.00951602648 0.0974261199 -0.12374988 -0.0202515804 -0.391309508 -0.131984722
                -0.0639916428 -0.0328700895 -0.034717034"""
    assert kernel[0, 0].flatten().tolist() == pytest.approx(
        [float(number) for number in corner.split()], abs=1e-9
    )


# The merged form against the published one --------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 3), (7, 11)])
@pytest.mark.parametrize("upscale", [1, 3])
def test_merging_changes_neither_output_nor_loss_nor_gradients(
    size: tuple[int, int], upscale: int
) -> None:
    fast = seeded(3, 6, upscale).double()
    slow = as_published(fast)
    lq = noise((2, 3, *size))
    gt = noise((2, 3, size[0] * upscale, size[1] * upscale), seed=1)
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
        assert theirs.grad.norm() > 0 and near(ours.grad, theirs.grad), name


def test_the_unit_keeps_the_bias_of_its_padded_ring() -> None:
    """The input is padded before the first 1×1, so its bias reaches the border too."""
    unit = ReparamUnit(2, 3).double()
    x = torch.zeros(1, 2, 4, 5, dtype=torch.float64)
    out = unit(x)
    assert torch.allclose(out, unit.branches(x), rtol=0, atol=1e-13)
    assert torch.allclose(out, out[..., :1, :1].expand_as(out), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("dtype", "slack"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_deploy_form_gives_the_same_image(dtype: torch.dtype, slack: float) -> None:
    network = seeded(0, 10, 4).to(dtype)
    deployed = fuse(network)
    lq = noise((1, 3, 9, 13)).to(dtype)
    with torch.no_grad():
        expected, found = network(lq), deployed(lq)
    assert found.dtype == dtype and not deployed.training
    assert (found - expected).abs().max() <= slack * expected.abs().max()
    kinds = [type(m).__name__ for m in deployed.modules() if not list(m.children())]
    assert sorted(set(kinds)) == ["Conv2d", "PixelShuffle"] and len(kinds) == 23


def test_deploy_form_is_a_copy_and_draws_nothing() -> None:
    network = seeded(0)
    before = torch.get_rng_state()
    deployed = fuse(network)
    assert torch.equal(torch.get_rng_state(), before)  # or validating would change the training
    assert network.training
    lq = noise((1, 3, 5, 5)).float()
    with torch.no_grad():
        first = deployed(lq)
        for parameter in network.parameters():
            parameter.mul_(2)
        assert torch.equal(deployed(lq), first)
        assert torch.equal(fuse(deployed)(lq), first)


# Size, count, start -------------------------------------------------------------------------------


def counts(i: int, n: int, o: int, s: int) -> tuple[int, int, int]:
    """(stored, trainable, deployed) numbers by the closed form of the specification."""

    def trainable(c: int, d: int) -> int:
        return 37 * c * d + 2 * c * c + 2 * d * d + 2 * c + 4 * d

    def copied(c: int, d: int) -> int:
        return 9 * c * d + d

    rest = 4 * n * n + n + 9 * n * o * s * s + o * s * s
    learnt = trainable(i, n) + 19 * trainable(n, n)
    plain_units = copied(i, n) + 19 * copied(n, n)
    return learnt + plain_units + rest, learnt + rest, plain_units + rest


PUBLISHED = {
    "SPAN-S_x2": (2_221_140, 1_824_900, 410_700),
    "SPAN-S_x4": (2_236_728, 1_840_488, 426_288),
    "SPAN_x2": (2_605_080, 2_140_252, 481_324),
    "SPAN_x4": (2_621_964, 2_157_136, 498_208),
}


@pytest.mark.parametrize(
    "preset", ["SPAN_x2", "SPAN_x3", "SPAN_x4", *(f"SPAN-S_x{s}" for s in (2, 3, 4))]
)
def test_parameter_counts_of_the_presets(preset: str) -> None:
    presets = ARCHS["SPAN"].presets
    assert len(presets) == 6
    network = build_network(presets[preset])
    assert isinstance(network, SPAN)
    found = tuple(
        sum(value.numel() for value in values)
        for values in (
            network.official_state().values(),
            network.parameters(),
            fuse(network).parameters(),
        )
    )
    options = network.options
    assert found == counts(3, options.feature_channels, 3, options.upscale)
    assert found == PUBLISHED.get(preset, found)
    assert all(parameter.requires_grad for parameter in network.parameters())


def drawn_in_official_order(i: int, n: int, o: int, s: int) -> dict[str, Tensor]:
    """Every tensor of the official network, layer after layer from the generator."""
    state: dict[str, Tensor] = {}

    def layer(name: str, c: int, d: int, side: int) -> None:
        drawn = nn.Conv2d(c, d, side)
        state[f"{name}.weight"], state[f"{name}.bias"] = drawn.weight, drawn.bias

    def unit(name: str, c: int, d: int) -> None:
        layer(f"{name}.sk", c, d, 1)
        for part, shape in enumerate([(c, 2 * c, 1), (2 * c, 2 * d, 3), (2 * d, d, 1)]):
            layer(f"{name}.conv.{part}", *shape)
        layer(f"{name}.eval_conv", c, d, 3)

    unit("conv_1", i, n)
    for block in range(1, 7):
        for part in (1, 2, 3):
            unit(f"block_{block}.c{part}_r", n, n)
    layer("conv_cat", 4 * n, n, 1)
    unit("conv_2", n, n)
    layer("upsampler.0", n, o * s * s, 3)
    return state


def test_one_seed_gives_the_official_initial_weights() -> None:
    torch.manual_seed(11)
    expected = drawn_in_official_order(3, 9, 3, 3)
    after = torch.get_rng_state()
    network = seeded(11, 9, 3)
    assert torch.equal(torch.get_rng_state(), after)
    official = network.official_state()
    assert list(official) == list(expected)
    for key, value in network.state_dict().items():
        assert torch.equal(value, expected[key]), key
    for key in (k for k in official if ".eval_conv." in k):  # overwritten by the fusion
        assert not torch.equal(official[key], expected[key]), key


# Precision ----------------------------------------------------------------------------------------


def test_autocast_merges_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    network = seeded(0)
    seen: list[tuple[ReparamUnit, Tensor, Tensor]] = []
    merged = ReparamUnit.merged

    def spy(unit: ReparamUnit) -> tuple[Tensor, Tensor]:
        kernel, bias = merged(unit)
        seen.append((unit, kernel, bias))
        return kernel, bias

    monkeypatch.setattr(ReparamUnit, "merged", spy)
    lq = noise((1, 3, 6, 6)).float()
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert network(lq).dtype == torch.bfloat16
        assert len(seen) == 20
        for unit, kernel, bias in seen:
            assert kernel.dtype == bias.dtype == torch.float32
            expected = merged(unit)
            assert torch.equal(kernel, expected[0]) and torch.equal(bias, expected[1])


def test_autocast_trains_every_parameter() -> None:
    network = seeded(0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(noise((1, 3, 6, 6)).float()).float().square().mean()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert bool(torch.isfinite(parameter.grad).all()) and bool(parameter.grad.any()), name


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_a_low_precision_forward_leaves_no_trace(low: torch.dtype) -> None:
    network = seeded(0).eval()
    lq = noise((1, 3, 6, 6)).float()
    with torch.no_grad():
        before = network(lq)
        with torch.autocast("cpu", low):
            rough = [network(lq), network(lq.to(low)), fuse(network)(lq)]
        after = network(lq)
    assert torch.equal(before, after)
    for image in rough:
        assert image.dtype == low
        error = (image.float() - before).abs().max() / before.abs().max()
        assert 0 < error < 0.05


def test_the_mean_is_float32_in_any_precision() -> None:
    """As in the published network; the exact decimals would move a float64 output by 5e-7."""
    network = span().double()
    expected = np.array([0.4488, 0.4371, 0.4040], np.float32).astype(np.float64)
    assert network.mean.flatten().tolist() == expected.tolist()
    assert "mean" not in network.state_dict()


# Any input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "out", "mean"), [(1, 1, (0.5,)), (4, 2, (0.1, 0.2, 0.3, 0.4))]
)
def test_other_channels_take_their_own_mean(
    channels: int, out: int, mean: tuple[float, ...]
) -> None:
    network = seeded(0, num_in_ch=channels, num_out_ch=out, rgb_mean=mean).double()
    centred = span(num_in_ch=channels, num_out_ch=out, rgb_mean=[0.0] * channels, img_range=1.0)
    centred.double().load_state_dict(network.state_dict())
    lq = noise((2, channels, 5, 4))
    shift = torch.tensor(mean, dtype=torch.float32).double().view(1, -1, 1, 1)
    with torch.no_grad():
        found, expected = network(lq), centred((lq - shift) * 255)
    assert found.shape == (2, out, 10, 8)
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize(
    "more", [{"num_in_ch": 1}, {"rgb_mean": [0.5]}, {"num_in_ch": 4, "rgb_mean": [0.5] * 3}]
)
def test_a_mean_of_another_length_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        network_options({"type": "SPAN", **more})
    (problem,) = caught.value.problems
    assert problem.code == "OPT25" and problem.where == "network_g.rgb_mean"


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network = seeded(0).double()
    lq = noise((3, 3, 6, 5))
    with torch.no_grad():
        together = network(lq)
        for index in range(3):
            alone = network(lq[index : index + 1])
            assert (together[index : index + 1] - alone).abs().max() <= 1e-12 * alone.abs().max()
        lq[1] = 1 - lq[1]
        moved = network(lq)
    same = [(moved[i] - together[i]).abs().max() <= 1e-12 for i in range(3)]
    assert same == [True, False, True]
