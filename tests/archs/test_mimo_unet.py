"""MIMO-UNet against the official network's numbers and against its plain form."""

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
from restore.archs.mimo_unet import MIMOUNet
from restore.archs.table import ARCHS
from restore.errors import OptionError, WeightsError
from restore.evaluation.predictor import Predictor

from helpers import (
    BENCHMARKS,
    check_training_step,
    hashed,
    landmarks,
    load_filled,
    module_at,
    near,
    noise,
)

CASES = ("mimounet_res1", "mimounetplus_res2", "mimounet_full", "mimounetplus_full")
LAYOUTS = ("mimounet", "mimounetplus")
KINDS = ("MIMOUNet", "MIMOUNetPlus")


def mimo(kind: str = "MIMOUNet", num_res: int = 1) -> MIMOUNet:
    network = build_network({"type": kind, "num_res": num_res})
    assert isinstance(network, MIMOUNet)
    return network


def seeded(seed: int, kind: str = "MIMOUNet", num_res: int = 1) -> MIMOUNet:
    torch.manual_seed(seed)
    return mimo(kind, num_res)


def twin(network: MIMOUNet, dropout: float = 0.0) -> nn.Module:
    """The plainly written form with the same weights, in the same mode and precision."""
    form = module_at(BENCHMARKS / "plain_mimo_unet.py").PlainMIMOUNet
    with torch.random.fork_rng(devices=[]):
        slow = form(network.options.num_res, dropout).to(next(network.parameters()).dtype)
    slow.load_state_dict(network.state_dict())
    return slow.train(network.training)


def published_loss(outputs: tuple[Tensor, ...], gt: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Multi-scale L1 plus 0.1 × L1 of the whole spectra, and its parts."""
    parts: dict[str, Tensor] = {}
    scales = (("full", 1), ("half", 0.5), ("quarter", 0.25))
    for output, (name, scale) in zip(outputs, scales, strict=True):
        target = gt
        if scale != 1:
            target = F.interpolate(gt, scale_factor=scale, mode="bilinear", align_corners=False)
        parts[f"content_{name}"] = (output - target).abs().mean()
        spectra = [torch.view_as_real(torch.fft.fft2(image)) for image in (output, target)]
        parts[f"fft_{name}"] = (spectra[0] - spectra[1]).abs().mean()
    total = sum(
        (v if k.startswith("content") else 0.1 * v for k, v in parts.items()), torch.zeros(())
    )
    return total, parts


# The official numbers -----------------------------------------------------------------------------


def golden_index(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "golden/mimounet/open_index.json").read_text())


def golden_case(shared: Path, name: str) -> tuple[dict[str, Any], Any]:
    case = next(c for c in golden_index(shared)["forward"] if c["name"] == name)
    return case, np.load(shared / "golden/mimounet" / case["file"])


def golden_network(shared: Path, case: dict[str, Any]) -> MIMOUNet:
    constructor = case["constructor"]
    network = mimo(constructor["cls"], constructor["num_res"])
    load_filled(network, network.state_dict(), shared, case)
    return network


def test_no_golden_case_is_left_out(shared: Path) -> None:
    index = golden_index(shared)
    assert {case["name"] for case in index["forward"]} == set(CASES)
    assert [step["name"] for step in index["step"]] == ["mimounet_res1"]
    files = (shared / "golden/mimounet").glob("keys_*.json")
    assert {file.stem.removeprefix("keys_") for file in files} == set(LAYOUTS)


@pytest.mark.parametrize("name", CASES)
def test_forward_is_the_official_one(shared: Path, name: str) -> None:
    case, arrays = golden_case(shared, name)
    network = golden_network(shared, case).eval()
    x = torch.from_numpy(arrays["input"])
    official = (2, 1, 0)  # the official list begins with the quarter size, ours with the full
    with torch.no_grad():
        single = network(x)
        double = network.double()(x.double())
        plain = twin(network)(x.double())
    for place, ours, exact, slow in zip(official, single, double, plain, strict=True):
        expected = case["outputs"][place]
        assert list(ours.shape) == expected["shape"]
        error = np.abs(ours.numpy() - arrays[f"out32_{place}"]).max()
        assert error <= expected["suggested_tol32_abs"]
        for output in (exact, slow):
            error = np.abs(output.numpy() - arrays[f"out64_{place}"]).max()
            assert error <= 1e-10 * expected["std"]


@pytest.mark.parametrize("name", CASES)
def test_inner_features_are_the_official_ones(shared: Path, name: str) -> None:
    case, arrays = golden_case(shared, name)
    network = golden_network(shared, case).double().eval()
    found: dict[str, list[Any]] = {}

    def probe(key: str, output: Tensor) -> None:
        row = [list(output.shape), output.mean().item(), output.std().item()]
        found.setdefault(key, []).append(row)

    rows = case["probes_float64"]["rows"]
    assert len(rows) == 28 + 2 * ("plus" in name)
    for key in rows:
        network.get_submodule(key).register_forward_hook(
            lambda _module, _inputs, output, key=key: probe(key, output)
        )
    with torch.no_grad():
        network(torch.from_numpy(arrays["input"]).double())
    for key, calls in rows.items():
        assert len(found[key]) == len(calls) == 1, key
        (shape, mean, std), (known_shape, known_mean, known_std) = found[key][0], calls[0]
        assert shape == known_shape, key
        assert mean == pytest.approx(known_mean, abs=1e-10 * known_std), key
        assert std == pytest.approx(known_std, rel=1e-10), key


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_state_has_the_official_keys(shared: Path, name: str) -> None:
    layout = json.loads((shared / f"golden/mimounet/keys_{name}.json").read_text())
    constructor = layout["constructor"]
    options = {"type": constructor["cls"], "num_res": constructor["num_res"]}
    network = build_network(options, meta=True)
    own = [
        [key, list(value.shape), str(value.dtype).removeprefix("torch."), False]
        for key, value in network.state_dict().items()
    ]
    assert own == layout["entries"] and len(own) == layout["entries_total"]
    assert not list(network.buffers())
    count = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert count == layout["params_total"] == layout["params_trainable"]


def test_training_step_is_the_official_one(shared: Path) -> None:
    step = golden_index(shared)["step"][0]
    arrays = np.load(shared / "golden/mimounet" / step["file"])
    x, gt = (torch.from_numpy(arrays[key]).double() for key in ("input", "target"))
    start = golden_network(shared, step).double()
    assert start.training
    parts = published_loss(start(x), gt)[1]
    assert {k: v.item() for k, v in parts.items()} == pytest.approx(step["loss_parts"], rel=1e-8)
    check_training_step(start, step, lambda network: published_loss(network(x), gt)[0])


# The fingerprint: the same proof without any file -------------------------------------------------


def hashed_image(number: int) -> Tensor:
    return torch.from_numpy(((hashed(number, 3 * 12 * 20) + 1) / 2).reshape(1, 3, 12, 20))


@pytest.fixture(scope="module")
def fingerprinted() -> MIMOUNet:
    network = mimo().double()
    state = {}
    for number, (key, value) in enumerate(network.state_dict().items()):
        shape = tuple(value.shape)
        half = ".layers." in key and key.endswith("main.1.main.0.weight")
        gain = (0.5 if half else 1) * np.sqrt(3 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        state[key] = torch.from_numpy(gain * hashed(number, value.numel()).reshape(shape))
    assert len(state) == 24 + 52
    load_weights(network, state)
    return network


FINGERPRINT = {  # height -> mean, population std, first, last, middle of the second channel
    12: (0.488968064947, 0.342449475707, 0.776577574849, 0.592733290908, 0.568364604528),
    6: (0.539132212919, 0.32417991152, 0.851765588072, 0.680517690849, 0.405205473696),
    3: (0.676840060352, 0.352540727862, 0.837218825458, 0.443699786957, 1.08114335811),
}


@pytest.mark.parametrize("plain", [False, True])
def test_fingerprint(fingerprinted: MIMOUNet, plain: bool) -> None:
    network = twin(fingerprinted) if plain else fingerprinted
    with torch.no_grad():
        outputs = network(hashed_image(10**6))
    sizes = [(1, 3, 12, 20), (1, 3, 6, 10), (1, 3, 3, 5)]
    assert isinstance(outputs, tuple) and [tuple(out.shape) for out in outputs] == sizes
    for out in outputs:
        assert landmarks(out) == pytest.approx(FINGERPRINT[out.shape[-2]], rel=2e-11)


def test_fingerprint_of_the_loss(fingerprinted: MIMOUNet) -> None:
    with torch.no_grad():
        total, parts = published_loss(fingerprinted(hashed_image(10**6)), hashed_image(2 * 10**6))
    content = sum(v.item() for k, v in parts.items() if k.startswith("content"))
    fourier = sum(v.item() for k, v in parts.items() if k.startswith("fft"))
    known = (1.01946058377, 5.87634787421, 1.60709537119)
    assert (content, fourier, total.item()) == pytest.approx(known, rel=2e-11)


# The fast form against the plain one --------------------------------------------------------------


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (20, 4), (16, 28)])
@pytest.mark.parametrize("num_res", [1, 3])
def test_outputs_and_gradients_are_those_of_the_plain_form(
    size: tuple[int, int], num_res: int
) -> None:
    fast = seeded(3, num_res=num_res).double()
    slow = twin(fast)
    inputs = [noise((2, 3, *size)).requires_grad_() for _ in range(2)]
    outputs = [network(x) for network, x in zip((fast, slow), inputs, strict=True)]
    for output in outputs:
        torch.autograd.backward(output, [noise(tuple(o.shape), seed=1) for o in output])

    for ours, theirs in zip(*outputs, strict=True):
        assert ours.shape == theirs.shape and near(ours, theirs)
    assert inputs[0].grad is not None and inputs[1].grad is not None
    assert inputs[1].grad.norm() > 0 and near(inputs[0].grad, inputs[1].grad)
    for (name, ours), theirs in zip(fast.named_parameters(), slow.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None, name
        assert theirs.grad.norm() > 0 and near(ours.grad, theirs.grad), name


def test_the_memory_layout_of_the_input_does_not_matter() -> None:
    network = seeded(0).double()
    x = noise((2, 3, 8, 16))
    forms = (x, x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().mT)
    with torch.no_grad():
        outputs = [network(form) for form in forms]
    for form, other in zip(forms, outputs, strict=True):
        assert torch.equal(form, noise((2, 3, 8, 16)))  # nothing is written into the input
        for ours, first in zip(other, outputs[0], strict=True):
            assert torch.equal(ours, first)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network = seeded(0).double()
    x = noise((3, 3, 8, 12))
    with torch.no_grad():
        together = network(x)
        for index in range(3):
            for whole, alone in zip(together, network(x[index : index + 1]), strict=True):
                assert (whole[index : index + 1] - alone).abs().max() <= 1e-12


# Dropout ------------------------------------------------------------------------------------------


def test_dropout_is_the_published_one() -> None:
    """Whole channels, the half-size skip's drawn before the full-size skip's."""
    network = seeded(0, "MIMOUNetPlus").double()
    published, without = twin(network, dropout=0.1), twin(network)
    x = noise((2, 3, 8, 8))
    results = []
    with torch.no_grad():
        for form in (network, published, without):
            torch.manual_seed(5)
            results.append(form(x))
        for ours, theirs in zip(results[0], results[1], strict=True):
            assert (ours - theirs).abs().max() <= 1e-12
        moved = [(a - b).abs().max() > 1e-6 for a, b in zip(results[0], results[2], strict=True)]
    assert moved == [True, True, False]  # the quarter size has no fused skip


def test_dropout_takes_whole_channels_at_the_published_rate() -> None:
    network = mimo("MIMOUNetPlus").double()
    torch.manual_seed(0)
    with torch.no_grad():
        for drop in (network.drop1, network.drop2):
            kept = drop(torch.ones(200, 64, 3, 3, dtype=torch.float64))
            assert torch.equal(kept, kept[..., :1, :1].expand_as(kept))
            values, counts = kept[..., 0, 0].unique(return_counts=True)
            assert values.tolist() == pytest.approx([0, 1 / 0.9])
            assert counts[0].item() / counts.sum().item() == pytest.approx(0.1, abs=0.01)


def test_dropout_only_in_training_and_only_of_the_plus_form() -> None:
    plus, plain = seeded(1, "MIMOUNetPlus").double(), seeded(1).double()
    x = noise((2, 3, 8, 8))
    with torch.no_grad():
        state = torch.get_rng_state()
        trained, evaluated = plain(x), plus.eval()(x)
        assert torch.equal(torch.get_rng_state(), state)
        for ours, theirs, again in zip(trained, evaluated, plain.eval()(x), strict=True):
            assert torch.equal(ours, theirs) and torch.equal(ours, again)
        plus.train()(x)
        assert not torch.equal(torch.get_rng_state(), state)


# Any size, any precision --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (13, 22), (37, 45)])
def test_the_predictor_takes_any_size(kind: str, size: tuple[int, int]) -> None:
    network = seeded(0, kind).double()
    rule = ARCHS[kind].size
    assert (rule.minimum, rule.multiple) == (8, 8)
    x = noise((1, 3, *size))
    restored = Predictor(network, ARCHS[kind].scale(network.options), rule)(x)
    assert restored.shape == x.shape
    down, right = -size[0] % 8, -size[1] % 8
    if down < size[0] and right < size[1]:
        padded = F.pad(x, (0, right, 0, down), mode="reflect")
        with torch.no_grad():
            finest = network(padded)[0]
        assert torch.equal(restored, finest[..., : size[0], : size[1]])


@pytest.mark.parametrize("size", [(29, 28), (30, 28), (28, 31)])
@pytest.mark.parametrize("kind", [*KINDS, "MIMOUNetPlusCFA"])
def test_other_sizes_are_never_bent_into_shape(kind: str, size: tuple[int, int]) -> None:
    network = build_network({"type": kind, "num_res": 1})
    with pytest.raises(RuntimeError, match="[Ss]izes of tensors must match"):
        network(torch.rand(1, 3, *size))


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_a_low_precision_forward_leaves_no_trace(low: torch.dtype) -> None:
    network = seeded(0).eval()
    x = noise((1, 3, 8, 12)).float()
    with torch.no_grad():
        before = network(x)
        with torch.autocast("cpu", low):
            rough = network(x)
        after = network(x)
    for first, second, image in zip(before, after, rough, strict=True):
        assert torch.equal(first, second)
        error = (image.float() - first).abs().max() / first.abs().max()
        assert 0 < error < 0.05


def test_autocast_trains_every_parameter() -> None:
    network = seeded(0)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(noise((2, 3, 8, 12)).float())
    torch.stack([output.float().square().mean() for output in outputs]).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert bool(torch.isfinite(parameter.grad).all()) and bool(parameter.grad.any()), name


def test_the_finest_output_alone_leaves_only_the_coarse_heads_untrained() -> None:
    """Which is why data-parallel training with a loss on one output needs to be told."""
    network = seeded(0)
    network(noise((1, 3, 8, 8)).float())[0].mean().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None]
    parts = ("weight", "bias")
    assert idle == [f"ConvsOut.{k}.main.0.{part}" for k in (0, 1) for part in parts]


# Size, count, start, files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "preset", "num_res", "count"),
    [("MIMOUNet", "MIMO-UNet", 8, 6_807_171), ("MIMOUNetPlus", "MIMO-UNet+", 20, 16_107_651)],
)
def test_presets(kind: str, preset: str, num_res: int, count: int) -> None:
    record = ARCHS[kind]
    assert list(record.presets) == [preset] and record.name == kind
    options = record.presets[preset]
    assert options == network_options({"type": kind})
    assert (record.scale(options), record.scale_key, record.channels(options)) == (1, None, 3)
    network = build_network(options, meta=True)
    found = sum(parameter.numel() for parameter in network.parameters())
    assert found == count == 775_040 * num_res + 606_851
    assert len(network.state_dict()) == 24 * num_res + 52
    assert fuse(network) is network and not network.training


def test_one_seed_gives_the_official_initial_weights() -> None:
    network = seeded(11, num_res=2)
    after = torch.get_rng_state()
    torch.manual_seed(11)
    for key, value in network.state_dict().items():
        if key.endswith("weight"):
            inputs, outputs, side = value.shape[1], value.shape[0], value.shape[2]
            if key.startswith(("feat_extract.3", "feat_extract.4")):
                layer: nn.Module = nn.ConvTranspose2d(outputs, inputs, side)
            else:
                layer = nn.Conv2d(inputs, outputs, side)
            drawn = layer.state_dict()
        assert torch.equal(value, drawn[key.rpartition(".")[2]]), key
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])  # False: as torch 1.4, of the official files
def test_official_files_load_strictly(tmp_path: Path, prefix: str, zipped: bool) -> None:
    trained, network = seeded(1, "MIMOUNetPlus"), seeded(2, "MIMOUNetPlus")
    optimiser = torch.optim.Adam(trained.parameters(), lr=1e-4)
    trained(noise((1, 3, 8, 8)).float())[0].mean().backward()
    optimiser.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [500, 1000], 0.5)
    model = {f"{prefix}{key}": value for key, value in trained.state_dict().items()}
    resumable = {
        "model": model,
        "optimizer": optimiser.state_dict(),
        "scheduler": schedule.state_dict(),
        "epoch": 7,
    }
    for name, content in (("bare", model), ("weights", {"model": model}), ("resume", resumable)):
        file = tmp_path / f"{name}.pkl"
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        network = seeded(2, "MIMOUNetPlus")
        report = load_weights(network, file)
        assert report.container == ("" if name == "bare" else "model")
        assert report.prefix == prefix and report.loaded == len(model)
        assert not (report.missing or report.unexpected or report.mismatched or report.ignored)
        for key, value in network.state_dict().items():
            assert torch.equal(value, trained.state_dict()[key]), key


def test_a_file_of_another_depth_is_refused() -> None:
    with pytest.raises(WeightsError) as caught:
        load_weights(mimo(num_res=2), {"model": mimo(num_res=1).state_dict()})
    (problem,) = caught.value.problems
    assert problem.code == "WGT09" and "24 missing" in problem.got


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("more", "code", "key"),
    [
        ({"num_res": 0}, "OPT18", "num_res"),
        ({"num_res": 2.5}, "OPT17", "num_res"),
        ({"num_rest": 8}, "OPT11", "num_rest"),
        ({"base_channel": 32}, "OPT11", "base_channel"),
    ],
)
def test_wrong_options_are_refused(kind: str, more: dict[str, Any], code: str, key: str) -> None:
    with pytest.raises(OptionError) as caught:
        network_options({"type": kind, **more})
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == (code, f"network_g.{key}")
