"""MIMO-UNet+ with CFA and FRM: what its description promises, scale by scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs import build_network, fuse, load_weights
from restore.archs.build import network_options
from restore.archs.mimo_unet_cfa import MIMOUNetPlusCFA, bicubic
from restore.archs.table import ARCHS
from restore.errors import OptionError, WeightsError
from restore.evaluation.predictor import Predictor
from restore.ops.resize import imresize

from helpers import noise

KIND = "MIMOUNetPlusCFA"
SMALL: dict[str, Any] = {"widths": [8, 12, 16], "num_res": 1, "reduction": 4}


def cfa(seed: int = 0, **more: Any) -> MIMOUNetPlusCFA:
    torch.manual_seed(seed)
    network = build_network({"type": KIND, **SMALL, **more})
    assert isinstance(network, MIMOUNetPlusCFA)
    return network.double()


def written_plainly(network: MIMOUNetPlusCFA, x: Tensor) -> tuple[Tensor, ...]:
    """The description with every enlargement and concatenation made; contiguous NCHW."""

    def to(feature: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(feature, like.shape[-2:], mode="bilinear", align_corners=False)

    images = [x, bicubic(x, 2), bicubic(x, 4)]
    y1, y2, y3 = (block(image) for block, image in zip(network.shallow, images, strict=True))
    e1 = network.encoder[0](y1)
    e2 = network.encoder[1](network.join_down[0](torch.cat([network.down[0](e1), y2], 1)))
    e3 = network.encoder[2](network.join_down[1](torch.cat([network.down[1](e2), y3], 1)))
    skips = []
    for k, together in enumerate(
        (
            torch.cat([e1, to(e2, e1), to(e3, e1)], 1),
            torch.cat([e2, to(e3, e2)], 1),
            e3,
        )
    ):
        module: Any = network.aggregate[k]
        feature = module.conv(torch.relu(module.entry(together)))
        squeeze: Any = network.recalibrate[k]
        pooled = F.adaptive_avg_pool2d(feature, 1).flatten(1)
        weight = torch.sigmoid(squeeze.widen(torch.relu(squeeze.narrow(pooled))))
        skips.append(feature * weight[:, :, None, None])
    up: Any = network.join_up
    d3 = network.decoder[2](skips[2])
    d2 = network.decoder[1](up[1].merge(torch.cat([up[1].up(d3), skips[1]], 1)))
    d1 = up[0].merge(torch.cat([up[0].up(d2), skips[0], to(d3, skips[0])], 1))
    d1 = network.decoder[0](d1)
    outputs = [out(d) + i for out, d, i in zip(network.out, (d1, d2, d3), images, strict=True)]
    if network.fusion is not None:
        half, quarter = network.fusion.coarser
        full = outputs[0]
        fused = (1 - half - quarter) * full + half * to(outputs[1], full)
        outputs[0] = fused + quarter * to(outputs[2], full)
    return tuple(outputs)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("fuse_outputs", [False, True])
@pytest.mark.parametrize("size", [(4, 4), (12, 20)])
def test_outputs_and_gradients_are_those_of_the_description(
    norm: str, fuse_outputs: bool, size: tuple[int, int]
) -> None:
    network = cfa(norm=norm, fuse_outputs=fuse_outputs)
    if network.fusion is not None:
        network.fusion.coarser.data = torch.tensor([0.2, -0.3], dtype=torch.float64)
    x = noise((2, 3, *size))
    results = []
    for form in (network, lambda x: written_plainly(network, x)):
        network.zero_grad()
        outputs = form(x)
        torch.autograd.backward(outputs, [noise(tuple(o.shape), seed=1) for o in outputs])
        results.append((outputs, [p.grad for p in network.parameters()]))
    for ours, theirs in zip(results[0][0], results[1][0], strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() <= 1e-10 * theirs.norm()
    names = [name for name, _ in network.named_parameters()]
    for name, ours, theirs in zip(names, results[0][1], results[1][1], strict=True):
        assert ours is not None and theirs is not None, name
        assert theirs.norm() > 0 and (ours - theirs).norm() <= 1e-8 * theirs.norm(), name


def test_three_outputs_finest_first_in_both_modes() -> None:
    network = cfa()
    x = noise((2, 3, 16, 24))
    with torch.no_grad():
        trained, evaluated = network(x), network.eval()(x)
    assert isinstance(trained, tuple) and isinstance(evaluated, tuple)
    sizes = [(2, 3, 16, 24), (2, 3, 8, 12), (2, 3, 4, 6)]
    for ours, again, size in zip(trained, evaluated, sizes, strict=True):
        assert tuple(ours.shape) == size and torch.equal(ours, again)
    assert torch.equal(x, noise((2, 3, 16, 24)))  # nothing is written into the input


def test_each_output_adds_its_own_reduced_image() -> None:
    network = cfa()
    for out in network.out:
        nn.init.zeros_(out.get_parameter("weight"))
        nn.init.zeros_(out.get_parameter("bias"))
    x = noise((1, 3, 24, 32))
    with torch.no_grad():
        outputs = network(x)
    assert torch.equal(outputs[0], x)
    for step, output in ((2, outputs[1]), (4, outputs[2])):
        expected = imresize(x[0].permute(1, 2, 0).numpy(), 1 / step)
        found = output[0].permute(1, 2, 0).numpy()
        inner = slice(2, -2)  # at the border MATLAB mirrors, and we leave taps out
        assert np.abs(found - expected)[inner, inner].max() <= 1e-6


def test_every_stage_sees_all_scales() -> None:
    """Each aggregated feature, and each output, depends on every encoder stage's own image."""
    network = cfa()
    x = noise((1, 3, 16, 16))
    images = [image.requires_grad_() for image in (x, bicubic(x, 2), bicubic(x, 4))]
    encoded = network.encode(images)
    own = [[bool(g.any()) for g in gradients(feature, images)] for feature in encoded]
    assert own == [[True, False, False], [True, True, False], [True, True, True]]
    skips = [network.recalibrate[k](network.aggregate[k](encoded[k:])) for k in range(3)]
    decoded = network.decode(skips)
    for feature in (*skips, *decoded):
        assert all(bool(g.any()) for g in gradients(feature, images))
    # the finest decoder stage sees the coarsest not only through the one between them
    direct = network.join_up[0](decoded[1].detach(), skips[0].detach(), [decoded[2]])
    assert bool(gradients(direct, [decoded[2]])[0].any())


def gradients(feature: Tensor, sources: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(
        feature.square().sum(), sources, retain_graph=True, allow_unused=True
    )
    return [
        torch.zeros_like(source) if gradient is None else gradient
        for source, gradient in zip(sources, found, strict=True)
    ]


def test_recalibration_weighs_each_channel_in_0_1() -> None:
    network = cfa()
    for block, width in zip(network.recalibrate, (8, 12, 16), strict=True):
        x = 20 * noise((3, width, 5, 7)) - 10
        module: Any = block
        with torch.no_grad():
            weights, out = module.weights(x), module(x)
        assert weights.shape == (3, width, 1, 1)
        assert bool((weights > 0).all()) and bool((weights < 1).all())
        assert not torch.allclose(weights[0], weights[1])  # each image has its own
        assert torch.equal(out, x * weights)
        assert module.narrow.out_features == width // 4


def test_batch_norm_is_an_option() -> None:
    without, network = cfa(), cfa(norm="batch")
    kinds = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in (without, network)]
    assert kinds == [0, 12]  # two in each of six blocks
    assert not list(without.buffers())
    means = [k for k in network.state_dict() if k.endswith("running_mean")]
    assert len(means) == 12 and all(k.startswith(("encoder.", "decoder.")) for k in means)
    x = noise((2, 3, 8, 12))
    with torch.no_grad():
        before = network.eval()(x)
        trained = network.train()(x)
        after = network.eval()(x)
    assert not torch.allclose(before[0], trained[0]) and not torch.allclose(before[0], after[0])
    copy = cfa(seed=1, norm="batch").eval()
    load_weights(copy, network.state_dict())  # its statistics travel along
    with torch.no_grad():
        assert torch.equal(copy(x)[0], after[0])
    with pytest.raises(WeightsError):
        load_weights(without, network.state_dict())


def test_fusion_starts_as_the_finest_output_and_learns() -> None:
    plain, fused = cfa(), cfa(fuse_outputs=True)
    extra = set(fused.state_dict()) - set(plain.state_dict())
    assert extra == {"fusion.coarser"}
    x = noise((1, 3, 8, 16))
    outputs = fused(x)
    for ours, theirs in zip(outputs, plain(x), strict=True):
        assert torch.equal(ours, theirs)
    (outputs[0] - noise((1, 3, 8, 16), seed=1)).abs().mean().backward()
    assert fused.fusion is not None and fused.fusion.coarser.grad is not None
    assert bool(fused.fusion.coarser.grad.all())
    for name, parameter in fused.named_parameters():
        if parameter.grad is None:
            assert name.startswith("out."), name
    with torch.no_grad():  # the weights add up to 1: a brightness that all share stays
        fused.fusion.coarser.copy_(torch.tensor([0.7, -0.4]))
        same = fused.fusion([torch.full((1, 3, s, s), 0.25).double() for s in (8, 4, 2)])
        assert torch.allclose(same, torch.full_like(same, 0.25), rtol=0, atol=1e-15)


@pytest.mark.parametrize("more", [{}, {"norm": "batch"}, {"fuse_outputs": True}])
def test_gradients_reach_every_parameter(more: dict[str, Any]) -> None:
    network = cfa(**more).float()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(noise((2, 3, 16, 16)).float())
    torch.stack([output.float().square().mean() for output in outputs]).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name
        assert bool(torch.isfinite(parameter.grad).all()), name


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_low_precision_weights_and_images(low: torch.dtype) -> None:
    network = cfa().float().eval()
    x = noise((1, 3, 16, 16)).float()
    with torch.no_grad():
        exact = network(x)
        rough = network.to(low)(x.to(low))
    for image, reference in zip(rough, exact, strict=True):
        assert image.dtype == low
        assert (image.float() - reference).abs().max() <= 0.05 * reference.abs().max()


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (21, 34)])
def test_the_predictor_takes_any_size(size: tuple[int, int]) -> None:
    network = cfa().float()
    record = ARCHS[KIND]
    x = noise((1, 3, *size)).float()
    restored = Predictor(network, record.scale(network.options), record.size)(x)
    assert restored.shape == x.shape
    down, right = -size[0] % 8, -size[1] % 8
    if down < size[0] and right < size[1]:
        padded = F.pad(x, (0, right, 0, down), mode="reflect")
        with torch.no_grad():
            assert torch.equal(restored, network(padded)[0][..., : size[0], : size[1]])


def test_preset_and_count() -> None:
    record = ARCHS[KIND]
    assert list(record.presets) == ["MIMO-UNet+CFA"] and record.scale_key is None
    options = record.presets["MIMO-UNet+CFA"]
    assert options == network_options({"type": KIND})
    counts = {
        name: sum(p.numel() for p in build_network({"type": KIND, **more}, meta=True).parameters())
        for name, more in (
            ("plain", {}),
            ("batch", {"norm": "batch"}),
            ("fused", {"fuse_outputs": True}),
        )
    }
    norms = 2 * 8 * 2 * (32 + 64 + 128)  # per stage pair: convolutions × widths
    assert counts == {"plain": 6_953_733, "batch": 6_953_733 + norms, "fused": 6_953_735}
    network = cfa()
    assert fuse(network) is network


@pytest.mark.parametrize(
    ("more", "code", "key", "fix"),
    [
        ({"widths": [32, 64]}, "OPT18", "widths", "change it"),
        ({"widths": [32, 64, 128, 256]}, "OPT18", "widths", "change it"),
        ({"widths": [32, 0, 128]}, "OPT18", "widths.1", "change it"),
        ({"reduction": 0}, "OPT18", "reduction", "change it"),
        ({"reduction": 24}, "OPT25", "reduction", "use reduction 8, or other widths"),
        ({"widths": [30, 60, 120]}, "OPT25", "reduction", "use reduction 2, or other widths"),
        ({"norm": "layer"}, "OPT31", "norm", "change it"),
        ({"num_res": 0}, "OPT18", "num_res", "change it"),
        ({"fuse_output": True}, "OPT11", "fuse_output", "did you mean 'fuse_outputs'?"),
    ],
)
def test_wrong_options_are_refused(more: dict[str, Any], code: str, key: str, fix: str) -> None:
    with pytest.raises(OptionError) as caught:
        network_options({"type": KIND, **more})
    (problem,) = caught.value.problems
    assert (problem.code, problem.where, problem.fix) == (code, f"network_g.{key}", fix)
