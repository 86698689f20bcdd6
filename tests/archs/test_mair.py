"""MaIR and MaIRUNet against the official networks' numbers and against their written-out form."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs import build_network, load_weights
from restore.archs.build import network_options
from restore.archs.mair import NestedScan
from restore.archs.mair.block import ResidualMambaBlock, VisionMamba
from restore.archs.mair.mair import MaIR
from restore.archs.mair.mair_unet import MaIRUNet
from restore.archs.mair_options import MairOptions, MairUnetOptions
from restore.archs.table import ARCHS
from restore.errors import OptionError, WeightsError
from restore.evaluation.predictor import Predictor
from restore.ops.selective_scan import selective_scan
from restore.section import without_effect

from helpers import module_at, noise

FILL = "golden/fill_mair_grl.py"
SMALL: dict[str, Any] = {
    "embed_dim": 12, "depths": [2, 1], "d_state": 3, "mlp_ratio": 1.5, "scan_len": 4,
}  # fmt: skip
SMALL_UNET: dict[str, Any] = {
    "dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "ssm_ratio": 1.25,
    "mlp_ratio": 1.5, "scan_len": 4,
}  # fmt: skip


def mair(**more: Any) -> MaIR:
    network = build_network({"type": "MaIR"} | SMALL | more)
    assert isinstance(network, MaIR)
    return network


def unet(**more: Any) -> MaIRUNet:
    network = build_network({"type": "MaIRUNet"} | SMALL_UNET | more)
    assert isinstance(network, MaIRUNet)
    return network


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().norm() / expected.detach().norm())


def tensors_of(file: Path) -> dict[str, Tensor]:
    arrays = np.load(file)
    return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


# The official numbers -----------------------------------------------------------------------------

CASES = (
    "small_x2_direct_16x16", "small_x2_direct_13x18_b2", "small_x2_cachedids_16x16",
    "small_x4_ps_3conv_n1", "small_gray_denoise", "small_unet_32x40",
)  # fmt: skip
PUBLISHED_SIZES = (
    "full_MaIR_T_lightSR_x4_32x40", "full_MaIR_S_lightSR_x2_32x40", "full_MaIRU_Dehaze_64x48",
)  # fmt: skip


def golden(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "golden/mair/open_model_info.json").read_text())


def golden_network(shared: Path, case: Mapping[str, Any]) -> nn.Module:
    network = build_network({"type": case["cls"]} | case["kwargs"])
    module_at(shared / FILL).fill_module(network)
    return network.eval()


def test_no_golden_case_is_left_out(shared: Path) -> None:
    assert set(golden(shared)) == {*CASES, *PUBLISHED_SIZES}


@pytest.mark.parametrize("name", [*CASES, *PUBLISHED_SIZES])
def test_forward_is_the_official_one(shared: Path, name: str) -> None:
    """The output, and every inner module of which a number is kept."""
    case, arrays = golden(shared)[name], tensors_of(shared / f"golden/mair/open_{name}.npz")
    network, rule = golden_network(shared, case), module_at(shared / FILL)
    with torch.no_grad():
        single = network(arrays["input"].float())
        assert single.dtype == torch.float32 and single.shape == arrays["output"].shape
        assert relative(single.double(), arrays["output"]) < 1e-5
    network.double()
    found: dict[str, Tensor] = {}
    taps = [key for key in arrays if key.startswith("tap")]
    for module in (key.partition("__")[2] for key in taps):
        network.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, output, module=module: found.update({module: output})
        )
    with torch.no_grad():
        assert relative(network(arrays["input"]), arrays["output"]) < 1e-13
    assert len(taps) >= 4
    for key in taps:
        kind, _, module = key.partition("__")
        tap = found[module]
        if kind == "tap":
            assert relative(tap.view(arrays[key].shape), arrays[key]) < 1e-13, module
        else:
            probe = torch.from_numpy(rule.signal("tapdot", (tap.numel(),)))
            stats = [tap.mean(), tap.std(correction=0), tap.abs().max(), probe @ tap.flatten()]
            assert torch.stack(stats).tolist() == pytest.approx(arrays[key].tolist(), rel=1e-10)


@pytest.mark.parametrize("name", [*CASES, *PUBLISHED_SIZES])
def test_gradients_are_the_official_ones(shared: Path, name: str) -> None:
    case, arrays = golden(shared)[name], tensors_of(shared / f"golden/mair/open_{name}.npz")
    network = golden_network(shared, case).double()
    target = module_at(shared / FILL).image(f"target/{name}", tuple(case["output_shape"]))
    lq = arrays["input"].requires_grad_()
    loss = (network(lq) - torch.from_numpy(target)).abs().mean()
    assert loss.item() == pytest.approx(case["l1_loss"], rel=1e-12)
    loss.backward()
    assert lq.grad is not None and relative(lq.grad, arrays["input_grad"]) < 1e-10
    gradients = {key: p.grad for key, p in network.named_parameters()}
    assert set(gradients) == set(case["grad_norms"])
    for key, gradient in gradients.items():
        assert gradient is not None, key
        assert gradient.norm().item() == pytest.approx(case["grad_norms"][key], rel=1e-9), key
        if f"grad__{key}" in arrays:
            assert relative(gradient, arrays[f"grad__{key}"]) < 1e-10, key


MODULES: dict[str, tuple[nn.Module, tuple[int, int], NestedScan]] = {
    "vmm_c12_n4": (VisionMamba(12, 4, 1.5), (9, 14), NestedScan(4)),
    "vmm_c16_n1": (VisionMamba(16, 1, 1.1), (10, 7), NestedScan(4, 2)),
    "vmm_c20_n16_shift": (VisionMamba(20, 16, 2.0), (8, 16), NestedScan(8, 4)),
    "rmb_c12": (ResidualMambaBlock(12, 4, 1.5, 1.6), (8, 12), NestedScan(4, 2)),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_the_official_ones(shared: Path, name: str) -> None:
    module, size, scan = MODULES[name]
    arrays = tensors_of(shared / f"golden/mair/open_module_{name}.npz")
    module = module.double()
    module.load_state_dict(
        {k.removeprefix("param__"): v for k, v in arrays.items() if k.startswith("param__")}
    )
    x = arrays["in_x"].requires_grad_()
    width = x.shape[-1]
    out = module(x.reshape(x.shape[0], -1, width), size, scan.orders(*size)).view_as(x)
    assert relative(out, arrays["output"]) < 1e-13
    out.backward(arrays["cotangent"])
    assert x.grad is not None and relative(x.grad, arrays["gradin_x"]) < 1e-12
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None
        assert relative(parameter.grad, arrays[f"grad__{key}"]) < 1e-11, key


@pytest.mark.parametrize(
    "config",
    [
        *(f"MaIR_{size}lightSR_x{s}" for size in ("T_", "S_") for s in (2, 3, 4)),
        *("MaIR_SR_x2", "MaIR_SR_x3", "MaIR_SR_x4", "MaIR_CDN"),
        *("MaIRU_RealDN_MotionDeblur", "MaIRU_Dehaze", "default_ctor_MaIR"),
        *("default_ctor_MaIRUNet", "zoo_buildMaIR_base_x2", "zoo_buildMaIR_base_x4"),
    ],
)
def test_state_dict_has_the_official_keys(shared: Path, config: str) -> None:
    layout = json.loads((shared / f"golden/mair/keys_{config}.json").read_text())
    network = build_network({"type": layout["cls"]} | layout["kwargs"], meta=True)
    found = [(key, tuple(value.shape)) for key, value in network.state_dict().items()]
    assert found == [(key, tuple(shape)) for key, shape, *_ in layout["state_dict"]]
    assert sum(p.numel() for p in network.parameters()) == layout["parameters"]


PRESETS = {
    "MaIR-T_x2": 877_752, "MaIR-T_x3": 885_867, "MaIR-T_x4": 897_228,
    "MaIR-S_x2": 1_354_680, "MaIR-S_x3": 1_362_795, "MaIR-S_x4": 1_374_156,
    "MaIR_x2": 19_444_247, "MaIR_x3": 19_628_887, "MaIR_x4": 19_591_959,
    "MaIR_CDN": 14_089_035,
    "MaIRUNet_RealDenoising": 26_293_296, "MaIRUNet_MotionDeblurring": 26_293_296,
    "MaIRUNet_Dehazing": 3_404_376,
}  # fmt: skip
STRIPES = {"MaIR-S": 4, "MaIR_CDN": 4, "MaIRUNet_RealDenoising": 4, "MaIRUNet_Motion": 4}


def test_every_preset_is_the_published_one() -> None:
    presets = {**ARCHS["MaIR"].presets, **ARCHS["MaIRUNet"].presets}
    assert set(presets) == set(PRESETS)
    for name, options in presets.items():
        assert isinstance(options, MairOptions | MairUnetOptions)
        network = build_network(options, meta=True)
        assert sum(p.numel() for p in network.parameters()) == PRESETS[name], name
        of_four = name.startswith(tuple(STRIPES))
        assert options.scan_len == (4 if of_four else 8), name
        if isinstance(options, MairOptions):
            scale = 1 if name == "MaIR_CDN" else int(name[-1])
            assert options.scale == ARCHS["MaIR"].scale(options) == scale


# The specification's fingerprints -----------------------------------------------------------------


def hashed(number: int, count: int) -> np.ndarray:
    """Numbers in [-1, 1) from a 32-bit hash of (tensor, position)."""
    low = np.uint64(0xFFFFFFFF)
    a = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(2654435761)
    a = (a + np.uint64((number + 1) * 974711)) & low
    a = ((a ^ (a >> np.uint64(15))) * np.uint64(2246822519)) & low
    a = a ^ (a >> np.uint64(13))
    return a.astype(np.float64) / 2**31 - 1


def fingerprint_value(key: str, shape: tuple[int, ...], v: np.ndarray) -> np.ndarray:
    leaf = key.rpartition(".")[2]
    if leaf == "A_logs":
        return np.log(1 + np.arange(shape[-1])) + 0.1 * v
    if leaf in ("Ds", "skip_scale", "skip_scale2") or (leaf == "weight" and len(shape) == 1):
        return 1 + 0.1 * v
    if leaf == "dt_projs_bias":
        return -4 + 0.8 * v
    if len(shape) == 1:
        return 0.1 * v
    stacked = leaf in ("x_proj_weight", "dt_projs_weight")
    return v / np.sqrt(shape[-1] if stacked else np.prod(shape[1:]))


FIRST = "layers.0.residual_group.blocks.{}.self_attention"
GRAY = {"in_chans": 1, "upscale": 1, "upsampler": None, "scan_len": 8, "patch_norm": False}
CLASSIC = {
    "upscale": 4,
    "upsampler": "pixelshuffle",
    "resi_connection": "3conv",
    "img_range": 255.0,
}
FINGERPRINTS: dict[str, tuple[dict[str, Any], tuple[int, ...], str, list[float], list[float]]] = {
    "F1": ({}, (1, 3, 9, 14), FIRST.format(0),
           [0.391923812272, 0.888535089536, 0.805464731296, 0.302418564823, -55.2866591530],
           [0.017200874781, 0.718085165149]),
    "F2": (GRAY, (2, 1, 8, 11), FIRST.format(1),
           [0.206127436761, 0.811735785867, 0.349021347562, -0.355081395303, -1.1982587998],
           [-0.019650728870, 0.513467042283]),
    "F3": (CLASSIC, (1, 3, 7, 6), "layers.1.residual_group.blocks.0.self_attention",
           [0.429780186084, 0.149270930006, 0.495757687674, 0.382700944306, 1.2489013091],
           [-0.005539899805, 0.454210262636]),
    "F4": (SMALL_UNET, (1, 3, 16, 24), "latent.0.self_attention",
           [0.268929575584, 1.787652539944, 0.576995806508, 0.034540062246, -55.3303653257],
           [0.008042025155, 0.627373358596]),
}  # fmt: skip


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fingerprints(name: str) -> None:
    more, shape, tapped, expected, tap = FINGERPRINTS[name]
    network = (unet() if name == "F4" else mair(**more)).double().eval()
    state: dict[str, Tensor] = {}
    for number, (key, value) in enumerate(network.state_dict().items()):
        v = np.sqrt(3) * hashed(number, value.numel()).reshape(tuple(value.shape))
        state[key] = torch.from_numpy(fingerprint_value(key, tuple(value.shape), v))
    network.load_state_dict(state)
    found: list[Tensor] = []
    network.get_submodule(tapped).register_forward_hook(lambda _m, _i, output: found.append(output))
    pixels = 0.5 + 0.5 * hashed(1000, int(np.prod(shape)))
    with torch.no_grad():
        out = network(torch.from_numpy(pixels).view(shape))
    wave = torch.arange(out.numel()).double().sin()
    corners = [out.flatten()[0], out.flatten()[-1]]
    values = [out.mean(), out.std(correction=0), *corners, wave @ out.flatten()]
    assert torch.stack(values).tolist() == pytest.approx(expected, rel=1e-9, abs=2e-11)
    (inner,) = found
    assert [inner.mean().item(), inner.std(correction=0).item()] == pytest.approx(tap, rel=1e-9)


# The written-out form -----------------------------------------------------------------------------


def written_out(mamba: VisionMamba, x: Tensor, size: tuple[int, int], scan: NestedScan) -> Tensor:
    """VMM step by step on `(B, L, C)`: gather, project, scan, put back, gate, add, normalise."""
    batch, inner, (_, rank) = x.shape[0], mamba.inner, mamba.dt_projs_weight.shape[1:]
    u, z = mamba.in_proj(x).chunk(2, dim=2)
    u = F.silu(mamba.conv2d(u.transpose(1, 2).unflatten(2, size)))
    xs = scan.scan(u)  # (B, 4, D, L)
    projected = torch.einsum("bkdl,kcd->bkcl", xs, mamba.x_proj_weight)
    states = mamba.A_logs.shape[1]
    low_rank, inputs, outputs = projected.split([rank, states, states], dim=2)
    delta = torch.einsum("bkrl,kdr->bkdl", low_rank, mamba.dt_projs_weight)
    y = selective_scan(
        xs.flatten(1, 2),
        delta.flatten(1, 2),
        -torch.exp(mamba.A_logs),
        inputs,
        outputs,
        mamba.Ds,
        delta_bias=mamba.dt_projs_bias.flatten(),
        softplus=True,
        backend="reference",
    )
    maps = scan.unscan(y.unflatten(1, (4, inner)), size).flatten(1, 2)  # (B, 4D, H, W)
    total = mamba.gating(maps).unflatten(1, (4, inner)).sum(1)
    normalised = mamba.out_norm(total.flatten(2).transpose(1, 2))
    assert normalised.shape == (batch, size[0] * size[1], inner)
    return mamba.out_proj(normalised * F.silu(z))


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 8), (8, 5), (6, 3)])
@pytest.mark.parametrize("shift", [0, 2, 7])
def test_block_is_the_written_out_one(size: tuple[int, int], shift: int) -> None:
    torch.manual_seed(0)
    mamba, scan = VisionMamba(10, 3, 1.5).double(), NestedScan(8, shift)
    x, weights = noise((2, size[0] * size[1], 10)).requires_grad_(), noise((2, 1, 10), seed=1)
    found = mamba(x, size, scan.orders(*size))
    expected = written_out(mamba, x, size, scan)
    assert relative(found, expected) < 1e-13
    wanted = [x, *mamba.parameters()]
    ours = torch.autograd.grad((found * weights).sum(), wanted)
    theirs = torch.autograd.grad((expected * weights).sum(), wanted)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= 1e-11 * b.norm() + 1e-15


def test_the_groups_alternate_and_the_u_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    keep = ResidualMambaBlock.forward

    def forward(self: ResidualMambaBlock, x: Tensor, size: Any, order: Tensor) -> Tensor:
        seen.append(order)
        return keep(self, x, size, order)

    monkeypatch.setattr(ResidualMambaBlock, "forward", forward)
    straight, shifted = NestedScan(4).orders(6, 7), NestedScan(4, 2).orders(6, 7)
    with torch.no_grad():
        mair(depths=[3, 2])(torch.rand(1, 3, 6, 7))
        expected = [straight, shifted, straight, straight, shifted]
        assert [torch.equal(a, b) for a, b in zip(seen, expected, strict=True)] == [True] * 5
        seen.clear()
        unet()(torch.rand(1, 3, 8, 16))
    for order in seen:
        height = {128: 8, 32: 4, 8: 2, 2: 1}[order.shape[1]]
        assert torch.equal(order, NestedScan(4).orders(height, 2 * height))


# Weights ------------------------------------------------------------------------------------------


def test_an_official_file_loads_strictly(tmp_path: Path) -> None:
    """With the tables and the mean that other tools store beside the weights."""
    source, network = mair(), mair()
    more = {"mean": torch.zeros(1, 3, 1, 1), "xs_scan_ids": torch.arange(6)}
    more |= {"layers.0.xs_shift_scan_ids_inverse": torch.arange(6)}
    torch.save({"params": source.state_dict() | more}, tmp_path / "official.pth")
    report = load_weights(network, tmp_path / "official.pth")
    assert set(report.ignored) == set(more) and not report.missing and not report.unexpected
    for key, value in source.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)
    with pytest.raises(WeightsError, match=r"1 unexpected: layers\.0\.mean"):
        load_weights(network, source.state_dict() | {"layers.0.mean": torch.zeros(3)})


def test_fine_tuning_starts_from_another_scale() -> None:
    source, network = mair(upscale=2), mair(upscale=3)
    own = network.upsample.state_dict()
    report = load_weights(network, source.state_dict(), strict=False)
    assert [key.split()[0] for key in report.mismatched] == ["upsample.0.weight", "upsample.0.bias"]
    assert torch.equal(network.conv_first.weight, source.conv_first.weight)
    assert torch.equal(network.upsample.state_dict()["0.weight"], own["0.weight"])


@pytest.mark.parametrize("kind", ["MaIR", "MaIRUNet"])
def test_network_starts_as_published(kind: str) -> None:
    torch.manual_seed(0)
    wide = {"embed_dim": 64, "depths": [1], "ssm_ratio": 2.0, "d_state": 5}
    network = mair(**wide) if kind == "MaIR" else unet(dim=64, ssm_ratio=2.0)
    name = "layers.0.residual_group.blocks.0" if kind == "MaIR" else "encoder_level1.0"
    block = network.get_submodule(name)
    assert isinstance(block, ResidualMambaBlock)
    mamba = block.self_attention
    states = mamba.A_logs.shape[1]
    assert torch.equal(
        mamba.A_logs.detach().exp().round(), torch.arange(1.0, states + 1).expand(512, -1)
    )
    assert bool((mamba.Ds == 1).all() and (block.skip_scale == 1).all())
    steps = F.softplus(mamba.dt_projs_bias.detach()).log()
    assert 1e-3 - 1e-6 < steps.min().exp() < 1.2e-3 and 0.085 < steps.max().exp() < 0.1 + 1e-6
    assert steps.mean().exp().item() == pytest.approx(1e-2, rel=0.15)
    for weight, bound in ((mamba.x_proj_weight, 128**-0.5), (mamba.dt_projs_weight, 4**-0.5)):
        assert 0.97 * bound < weight.abs().max() <= bound
    fc1 = block.get_submodule("conv_blk.fc1" if kind == "MaIR" else "mlp.fc1")
    assert isinstance(fc1, nn.Linear) and isinstance(fc1.bias, Tensor)
    if kind == "MaIR":
        assert mamba.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert mamba.in_proj.weight.abs().max() > 0.06 and not fc1.bias.any()
    else:
        assert 0.97 / 8 < mamba.in_proj.weight.abs().max() <= 1 / 8 and bool(fc1.bias.any())


# Training and precision ---------------------------------------------------------------------------


def test_stochastic_depth_grows_and_spares_the_mlp() -> None:
    network = mair(depths=[2, 3], drop_path_rate=0.4)
    blocks = [m for m in network.modules() if isinstance(m, ResidualMambaBlock)]
    kept = [block.kept_share.item() for block in blocks]
    assert kept == pytest.approx([1, 0.9, 0.8, 0.7, 0.6])
    blocks = [m for m in unet(drop_path_rate=0.2).modules() if isinstance(m, ResidualMambaBlock)]
    assert [block.kept_share.item() for block in blocks] == pytest.approx([0.8] * 8)
    block, order = ResidualMambaBlock(8, 1, 1.0, 1.0, drop_path=0.25), NestedScan(2).orders(1, 2)
    x = torch.rand(1, 2, 8).expand(400, -1, -1)
    torch.manual_seed(0)
    with torch.no_grad():
        out = block(x, (1, 2), order)
        branch = block.self_attention(block.ln_1(x[:1]), (1, 2), order)
        whole = [x[:1], x[:1] + branch / 0.75]
        dropped, kept = (
            after + block.get_submodule("conv_blk")(block.ln_2(after)) for after in whole
        )
        assert torch.allclose(block.eval()(x[:1], (1, 2), order), _block_of(block, x[:1], branch))
    is_dropped = torch.isclose(out, dropped, atol=1e-6).flatten(1).all(1)
    assert bool((is_dropped | torch.isclose(out, kept, atol=1e-6).flatten(1).all(1)).all())
    assert 0.18 < is_dropped.float().mean() < 0.32


def _block_of(block: ResidualMambaBlock, x: Tensor, branch: Tensor) -> Tensor:
    after = x + branch
    return after + block.get_submodule("conv_blk")(block.ln_2(after))


def test_dropout_is_for_training_only() -> None:
    network = mair(drop_rate=0.5, drop_path_rate=0)
    lq = torch.rand(1, 3, 4, 5)
    with torch.no_grad():
        assert not torch.equal(network(lq), network(lq))
        network.eval()
        assert torch.equal(network(lq), network(lq))


@pytest.mark.parametrize("key", ["checkpoint", "use_checkpoint"])
@pytest.mark.parametrize("build", [mair, unet])
def test_recomputing_changes_no_number(build: Any, key: str) -> None:
    torch.manual_seed(0)
    plain = build(drop_path_rate=0.3)
    saving = build(drop_path_rate=0.3, **{key: True})
    assert saving.options.recomputes and not plain.options.recomputes
    saving.load_state_dict(plain.state_dict())
    lq, results = torch.rand(2, 3, 8, 8), []
    for network in (plain, saving):
        torch.manual_seed(1)
        out = network(lq)
        out.square().mean().backward()
        results.append([out, *(p.grad for p in network.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_recomputing_keeps_less() -> None:
    def kept(network: nn.Module) -> int:
        sizes: list[int] = []

        def note(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            network(torch.rand(1, 3, 8, 8))
        return sum(sizes)

    assert kept(mair(checkpoint=True)) < kept(mair()) / 3


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("build", [mair, unet])
def test_low_precision(build: Any, low: torch.dtype) -> None:
    torch.manual_seed(0)
    network = build(drop_path_rate=0)
    lq = noise((2, 3, 8, 16)).float()
    with torch.no_grad():
        exact = network(lq)
        of_half = copy.deepcopy(network).to(low)(lq.to(low))
        assert of_half.dtype == low and relative(of_half.float(), exact) < 0.05
    with torch.autocast("cpu", low):
        rough = network(lq)
    assert rough.dtype == torch.float32 and 0 < relative(rough, exact) < 0.02
    rough.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name


def test_the_scan_runs_in_float32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    from restore.archs.mair import block  # noqa: PLC0415

    seen: set[torch.dtype] = set()
    keep = block.map_scan

    def map_scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        seen.update(t.dtype for t in tensors if t.is_floating_point())
        assert not torch.is_autocast_enabled("cpu")
        return keep(*tensors)

    monkeypatch.setattr(block, "map_scan", map_scan)
    network = mair().eval()
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            network(torch.rand(1, 3, 4, 4))
        network.bfloat16()(torch.rand(1, 3, 4, 4).bfloat16())
        assert seen == {torch.float32}
        seen.clear()
        network.double()(torch.rand(1, 3, 4, 4).double())
        assert seen == {torch.float64}


@pytest.mark.parametrize("build", [mair, pytest.param(unet, marks=pytest.mark.slow)])
def test_compiled_whole(build: Any) -> None:
    network = build(depths=[1]) if build is mair else build()
    network = network.eval()
    lq = torch.rand(1, 3, 8, 8) if build is unet else torch.rand(1, 3, 3, 4)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    out = compiled(lq)
    assert torch.equal(out, network(lq))
    out.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


# Any input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 2), (9, 12)])
@pytest.mark.parametrize("head", ["pixelshuffle", "pixelshuffledirect", None, ""])
@pytest.mark.parametrize("scale", [2, 3])
def test_any_size_and_head(size: tuple[int, int], head: str | None, scale: int) -> None:
    network = mair(upsampler=head, upscale=scale).double().eval()
    s = scale if head else 1
    assert ARCHS["MaIR"].scale(network.options) == s
    lq = noise((2, 3, *size))
    with torch.no_grad():
        out = network(lq)
        assert out.shape == (2, 3, s * size[0], s * size[1]) and bool(out.isfinite().all())
        for index in range(2):
            assert relative(network(lq[index : index + 1]), out[index : index + 1]) < 1e-13


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 17)])
def test_the_predictor_pads_for_the_u(size: tuple[int, int]) -> None:
    network, record = unet(), ARCHS["MaIRUNet"]
    lq = noise((1, 3, *size)).float()
    found = Predictor(network, record.scale(network.options), record.size)(lq)
    assert found.shape == lq.shape
    if size == (8, 8):
        with torch.no_grad():
            assert torch.equal(found, network(lq))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels: int) -> None:
    lq = noise((1, channels, 8, 8)).float()
    with torch.no_grad():
        assert mair(in_chans=channels, upsampler="pixelshuffle")(lq).shape == (1, channels, 16, 16)
        assert unet(inp_channels=channels, out_channels=channels)(lq).shape == lq.shape
    assert not mair(in_chans=channels).mean.any() and mair().mean.any()


def test_dual_pixel_adds_the_first_feature() -> None:
    network = unet(dual_pixel_task=True, inp_channels=6, bias=True)
    keys = list(network.state_dict())
    assert keys[-4:] == ["skip_conv.weight", "skip_conv.bias", "output.weight", "output.bias"]
    lq = noise((1, 6, 8, 16)).float()
    with torch.no_grad():
        out = network(lq)
        assert out.shape == (1, 3, 8, 16)
        network.skip_conv.weight.add_(0.1)
        assert not torch.allclose(network(lq), out)
    biased = {key.rpartition(".")[0] for key in keys if key.endswith(".bias") and "." in key}
    convolutions = {n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    plain = {n for n in convolutions - biased}
    assert plain == {
        "patch_embed.proj",
        *(f"{n}.body.0" for n in ("down1_2", "down2_3", "down3_4", "up4_3", "up3_2", "up2_1")),
    }


def test_neither_layout_nor_input_is_changed() -> None:
    network = mair().eval()
    lq = noise((2, 3, 6, 8)).float()
    before, last = lq.clone(), lq.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(network(lq), network(last))
    assert torch.equal(lq, before) and lq.is_contiguous()


# Options ------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "two spellings that differ": (
        {"checkpoint": False, "use_checkpoint": True},
        "use_checkpoint",
        "use_checkpoint is another spelling of checkpoint, which is false",
    ),
    "no stages for 5": (
        {"upscale": 5, "upsampler": "pixelshuffle"},
        "upsampler",
        "use pixelshuffledirect, which takes any scale",
    ),
    "a head mistyped": ({"upsampler": "pixelshufle"}, "upsampler", "did you mean 'pixelshuffle'?"),
    "no groups": ({"depths": []}, "depths", "a length ≥ 1"),
    "an empty group": ({"depths": [2, 0]}, "depths.1", "a number ≥ 1"),
    "certain dropping": ({"drop_path_rate": 1.0}, "drop_path_rate", "a number < 1"),
    "an inner width of 0": ({"ssm_ratio": 0.1}, "ssm_ratio", "a number ≥ 0.5"),
    "no stripes": ({"scan_len": 0}, "scan_len", "a number ≥ 1"),
    "an odd width": ({"type": "MaIRUNet", "dim": 25}, "dim", "use 24 or 26"),
    "an image skip of other channels": (
        {"type": "MaIRUNet", "inp_channels": 6},
        "out_channels",
        "make both the same, or set dual_pixel_task: true",
    ),
    "three levels": ({"type": "MaIRUNet", "num_blocks": [4, 6, 6]}, "num_blocks", "length"),
    "an unknown key": ({"d_states": 4}, "d_states", "did you mean 'd_state'?"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_work_are_refused(name: str) -> None:
    options, key, says = REFUSED[name]
    with pytest.raises(OptionError) as caught:
        network_options({"type": "MaIR", **options})
    (problem,) = caught.value.problems
    assert problem.where == f"network_g.{key}"
    assert says in str(problem)


def test_both_spellings_of_checkpoint_may_agree() -> None:
    for value in (False, True):
        options = network_options({"type": "MaIR", "checkpoint": value, "use_checkpoint": value})
        assert isinstance(options, MairOptions) and options.recomputes is value


def test_keys_without_effect_are_named() -> None:
    of_both = {"img_size": 64, "batch_size": 8, "dynamic_ids": False}
    for options in ({"type": "MaIR", "patch_size": 1} | of_both, {"type": "MaIRUNet"} | of_both):
        ignored = {path[-1] for path, _ in without_effect(network_options(options))}
        assert ignored == set(options) - {"type"}
    network_options({"type": "MaIR", "img_size": [64, 48]})
