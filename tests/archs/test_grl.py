"""GRL against the official network's numbers: outputs, gradients, modules, tables, keys, files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from restore.archs import build_network, load_weights
from restore.archs.build import network_options
from restore.archs.grl.blocks import StripeAttention, WindowAttention
from restore.archs.grl.layers import LocalBranch, PooledAnchors
from restore.archs.grl.network import GRL
from restore.archs.grl.tables import Grid, Mask, coordinates, expanded, grid
from restore.archs.grl_options import GRL_PRESETS, GrlOptions
from restore.archs.table import ARCHS
from restore.archs.weights import read_weights
from restore.errors import WeightsError

from helpers import BENCHMARKS, module_at, noise

FILL_RULE = "golden/fill_mair_grl.py"
CASES = (
    "small_cached_32x32",
    "small_recomputed_16x48",
    "small_padded_21x27_b2",
    "small_padconst_5x9",
    "small_groups_cab_ps_32x32",
    "small_gray_denoise_df1",
    "full_sr_tiny_x4_32x40",
)
COUNTS = {
    **{f"sr_grl_tiny_c3x{s}": n for s, n in ((2, 885_420), (3, 894_075), (4, 906_192))},
    **{f"sr_grl_small_c3x{s}": n for s, n in ((2, 3_340_003), (3, 3_524_643), (4, 3_487_715))},
    **{f"sr_grl_base_c3x{s}": n for s, n in ((2, 20_053_587), (3, 20_238_227), (4, 20_201_299))},
    **{"dn_grl_tiny_c1": 877_921, "dn_grl_small_c1": 3_115_617, "dn_grl_base_c1": 19_798_781},
    **{"dn_grl_tiny_c3": 880_227, "dn_grl_small_c3": 3_120_227, "dn_grl_base_c3": 19_805_263},
    **{"jpeg_grl_small_c1": 3_115_617, "jpeg_grl_small_c3": 3_120_227, "dm_grl_small": 3_120_227},
    "db_motion_grl_base": 19_805_263,
    "db_defocus_single_pixel_grl_base": 19_805_263,
    "db_defocus_dual_pixel_grl_base": 19_810_123,
    **dict.fromkeys(("bsr_grl_base", "bsr_psnr_grl_base"), 20_016_659),
}
LAYOUTS = {*COUNTS, "default_ctor", "model_yaml_tiny_groups_img128"} - {"bsr_psnr_grl_base"}
PLAIN = module_at(BENCHMARKS / "plain_grl.py")


def grl(options: Any) -> GRL:
    network = build_network(options)
    assert isinstance(network, GRL)
    return network


def relative(found: Tensor, expected: np.ndarray) -> float:
    """The distance in units of the expected length."""
    there = torch.from_numpy(expected)
    return float((found.double() - there).norm() / there.norm())


# The official numbers -----------------------------------------------------------------------------


def golden_case(shared: Path, name: str, **more: Any) -> tuple[dict[str, Any], Any, GRL]:
    """What is known of a case, its arrays, and the network with its weights, in float32."""
    case = json.loads((shared / "golden/grl/open_model_info.json").read_text())[name]
    arrays = np.load(shared / f"golden/grl/open_{name}.npz")
    network = grl({"type": "GRL"} | case["kwargs"] | more).eval()
    module_at(shared / FILL_RULE).fill_module(network)
    return case, arrays, network


def test_no_golden_case_is_left_out(shared: Path) -> None:
    folder = shared / "golden/grl"
    assert set(json.loads((folder / "open_model_info.json").read_text())) == set(CASES)
    files = {file.stem.removeprefix("open_module_") for file in folder.glob("open_module_*.npz")}
    assert files == {*ATTENTIONS, "anchor_avgpool_df4", "cab_36"}
    assert {f.stem.removeprefix("keys_") for f in folder.glob("keys_*.json")} == LAYOUTS


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_the_official_ones(shared: Path, name: str) -> None:
    _, arrays, network = golden_case(shared, name)
    lq = torch.from_numpy(arrays["input"])
    with torch.no_grad():
        assert relative(network(lq.float()), arrays["output"]) <= 1e-5
        network.double()
        found: dict[str, Tensor] = {}
        taps = {key.partition("__")[2] for key in arrays if key.startswith("tap")}
        for key in taps:
            network.get_submodule(key).register_forward_hook(
                lambda _module, _inputs, output, key=key: found.update({key: output})
            )
        assert relative(network(lq), arrays["output"]) <= 1e-11
    assert set(found) == taps
    check_taps(found, arrays, module_at(shared / FILL_RULE))


def check_taps(found: dict[str, Tensor], arrays: Any, rule: Any) -> None:
    """Inner outputs, whole or as mean, deviation, largest and a random projection."""
    for key, output in found.items():
        if f"tap__{key}" in arrays:
            expected = arrays[f"tap__{key}"]
            assert relative(output.reshape(expected.shape), expected) <= 1e-11, key
            continue
        flat = output.flatten().numpy()
        direction = rule.signal("tapdot", (flat.size,))
        stats = [flat.mean(), flat.std(), np.abs(flat).max(), flat @ direction]
        slack = 1e-10 * np.abs(arrays[f"tapstat__{key}"]).max()
        assert stats == pytest.approx(arrays[f"tapstat__{key}"], rel=1e-9, abs=slack), key


LARGE_ARE_SLOW = [
    pytest.param(name, marks=pytest.mark.slow if name.startswith("full") else ()) for name in CASES
]


@pytest.mark.parametrize("name", LARGE_ARE_SLOW)
def test_loss_and_gradients_are_the_official_ones(shared: Path, name: str) -> None:
    """The norm of every parameter's gradient; the input's and some others whole."""
    less_memory = {"use_checkpoint": True} if name.startswith("full") else {}  # else it takes 5 GB
    case, arrays, network = golden_case(shared, name, **less_memory)
    network.double()
    lq = torch.from_numpy(arrays["input"]).requires_grad_()
    output = network(lq)
    target = module_at(shared / FILL_RULE).image(f"target/{name}", tuple(output.shape))
    loss = (output - torch.from_numpy(target)).abs().mean()
    loss.backward()
    assert loss.item() == pytest.approx(case["l1_loss"], rel=1e-12)
    norms = case["grad_norms"]
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert set(gradients) == set(norms)
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert gradient.norm().item() == pytest.approx(norms[name], rel=1e-9, abs=1e-13), name
        if f"grad__{name}" in arrays:
            assert relative(gradient, arrays[f"grad__{name}"]) <= 1e-9, name
    assert lq.grad is not None
    assert relative(lq.grad, arrays["input_grad"]) <= 1e-10


@pytest.mark.parametrize("name", LARGE_ARE_SLOW)
def test_the_plain_twin_is_the_official_network_too(shared: Path, name: str) -> None:
    _, arrays, network = golden_case(shared, name)
    twin = PLAIN.PlainGRL(network.options).eval()
    twin.load_state_dict(network.state_dict())
    with torch.no_grad():
        output = twin.double()(torch.from_numpy(arrays["input"]))
    assert relative(output, arrays["output"]) <= 1e-11


# Single modules -----------------------------------------------------------------------------------

ATTENTIONS: dict[str, tuple[int, tuple[int, int], tuple[int, int], int, bool]] = {
    # heads, map, cell, down factor, shifted
    "winattn_w4_shift": (3, (8, 12), (4, 4), 1, True),
    "winattn_w8_noshift": (2, (16, 8), (8, 8), 1, False),
    "stripeattn_4x8_df2_shift": (3, (8, 16), (4, 8), 2, True),
    "stripeattn_8x8_df4_noshift": (2, (16, 16), (8, 8), 4, False),
}


def double_grid(size: tuple[int, int], cell: tuple[int, int], down: int) -> Grid:
    half = (cell[0] // 2, cell[1] // 2)
    return grid(size, cell, half, down, (0, 0), torch.device("cpu"), torch.float64)


def check_module(
    module: nn.Module, arrays: Any, inputs: dict[str, Tensor], run: Callable[..., Tensor]
) -> None:
    """Output and all gradients of one module with its stored weights, in float64."""
    state = {k.removeprefix("param__"): arrays[k] for k in arrays if k.startswith("param__")}
    module.double().load_state_dict({key: torch.from_numpy(v) for key, v in state.items()})
    leaves = {key: value.clone().requires_grad_() for key, value in inputs.items()}
    output = run(*leaves.values())
    expected = arrays["output"]
    assert relative(output.detach().reshape(expected.shape), expected) <= 1e-12
    output.backward(torch.from_numpy(arrays["cotangent"]).reshape(output.shape))
    for key, leaf in leaves.items():
        assert leaf.grad is not None
        expected = arrays[f"gradin_{key}"]
        assert relative(leaf.grad.reshape(expected.shape), expected) <= 1e-11
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None
        assert relative(parameter.grad, arrays[f"grad__{key}"]) <= 1e-10, key


def as_map(tokens: np.ndarray, size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(tokens).unflatten(1, size)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attentions_are_the_official_ones(shared: Path, name: str) -> None:
    heads, size, cell, down, shifted = ATTENTIONS[name]
    arrays = np.load(shared / f"golden/grl/open_module_{name}.npz")
    stripes = name.startswith("stripe")
    module = (StripeAttention if stripes else WindowAttention)(heads, shifted, 0.0)
    inputs = {"qkv": as_map(arrays["in_qkv"], size)}
    if stripes:
        inputs["anchor"] = torch.from_numpy(arrays["in_anchor"])
    cells = double_grid(size, cell, down)
    check_module(module, arrays, inputs, lambda *maps: module(*maps, cells))


def test_pooled_anchors_are_the_official_ones(shared: Path) -> None:
    arrays = np.load(shared / "golden/grl/open_module_anchor_avgpool_df4.npz")
    options = GrlOptions(embed_dim=18, anchor_window_down_factor=4)  # only the factor is read
    body = nn.Module()
    body.add_module("body", nn.Sequential(PooledAnchors(16, options)))
    inputs = {"x": as_map(arrays["in_x"], (8, 12))}
    check_module(body, arrays, inputs, body.get_submodule("body"))


def test_the_local_branch_is_the_official_one(shared: Path) -> None:
    arrays = np.load(shared / "golden/grl/open_module_cab_36.npz")
    module = LocalBranch(36)
    check_module(module, arrays, {"x": as_map(arrays["in_x"], (6, 8))}, module)


# Tables -------------------------------------------------------------------------------------------


def size_of(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def entries(cell: tuple[int, int], anchors: tuple[int, int], table: Tensor) -> Tensor:
    """`table: (R, R')` at every token and reversed anchor, anchors turned back; `(N, M)`."""
    found = expanded(table[None], cell, anchors, slice(0, cell[0]))
    return found[0, 0].flip(1)


def test_coordinates_and_pairs_are_the_official_ones(shared: Path) -> None:
    arrays = np.load(shared / "golden/grl/open_tables.npz")
    names = [key.removesuffix("__table") for key in arrays if key.endswith("__table")]
    assert len(names) == 12
    for name in names:
        cell, down = size_of(name.split("_")[0][1:]), int(name.split("_df")[1])
        few = (cell[0] // down, cell[1] // down)
        table = coordinates(cell, few)
        assert table.dtype == torch.float32
        np.testing.assert_array_equal(table.numpy(), arrays[f"{name}__table"][0])
        np.testing.assert_array_equal(
            PLAIN.coordinate_table(cell, down).numpy(), arrays[f"{name}__table"]
        )
        number = torch.arange(table[..., 0].numel()).view(table.shape[:2])
        there = entries(cell, few, number)
        back = expanded(number.flip(0, 1)[None], few, cell, slice(0, few[0]))[0, 0].flip(0)
        for found, plain, key in zip(
            (there, back), PLAIN.index_tables(cell, down), ("w2a", "a2w"), strict=True
        ):
            assert torch.equal(found, plain)
            if f"{name}__idx_{key}" in arrays:
                np.testing.assert_array_equal(found.numpy(), arrays[f"{name}__idx_{key}"])
            else:
                step = 97 if key == "w2a" else 31
                rows = arrays[f"{name}__idx_{key}_rows"]
                np.testing.assert_array_equal(found.numpy()[::step], rows)


def dense(mask: Mask | None, shape: tuple[int, int]) -> Tensor:
    return torch.zeros(shape) if mask is None else mask.rows[mask.labels]


def assembled(cells: Grid, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The masks of every cell, row by row, anchors turned back: of tokens, of anchors."""
    tokens, anchors = int(np.prod(cells.cell)), int(np.prod(cells.anchors))
    across = size[1] // cells.cell[1]
    count = size[0] // cells.cell[0] * across
    found = torch.full((count, tokens, anchors), torch.nan)
    back = torch.full((count, anchors, tokens), torch.nan)
    for region in cells.regions:
        for row in range(region.top, region.bottom):
            for column in range(region.left, region.right):
                place = row * across + column
                found[place] = dense(region.of_tokens, (tokens, anchors)).flip(1)
                back[place] = dense(region.of_anchors, (anchors, tokens)).flip(0)
    return found, back


def test_masks_are_the_official_ones(shared: Path) -> None:
    arrays = np.load(shared / "golden/grl/open_tables.npz")
    names = [key.removesuffix("__w2a_shape") for key in arrays if key.endswith("__w2a_shape")]
    assert len(names) == 6
    for name in names:
        size, cell, shift = (size_of(part[1:]) for part in name.split("_")[:3])
        down = int(name.split("_df")[1])
        cells = grid(size, cell, shift, down, (0, 0), torch.device("cpu"), torch.float32)
        for found, key in zip(assembled(cells, size), ("w2a", "a2w"), strict=True):
            shape = tuple(arrays[f"{name}__{key}_shape"])
            bits = np.unpackbits(arrays[f"{name}__{key}_maskbits"])[: np.prod(shape)]
            expected = torch.from_numpy(-100.0 * bits.reshape(shape)).float()
            assert torch.equal(found, expected), (name, key)


@pytest.mark.parametrize(
    ("size", "cell", "shift", "down"),
    [
        ((16, 24), (8, 8), (4, 4), 1),
        ((10, 15), (5, 5), (2, 2), 1),
        ((12, 12), (4, 6), (2, 3), 1),
        ((8, 8), (8, 8), (4, 0), 2),
        ((8, 24), (8, 8), (0, 4), 4),
    ],
)
def test_masks_of_any_size_are_the_plain_ones(
    size: tuple[int, int], cell: tuple[int, int], shift: tuple[int, int], down: int
) -> None:
    cells = grid(size, cell, shift, down, (0, 0), torch.device("cpu"), torch.float32)
    plain = PLAIN.tables(size, cell, shift, down, (0, 0), torch.zeros(()))
    of_tokens, of_anchors = assembled(cells, size)
    assert torch.equal(of_tokens, plain.mask) and torch.equal(of_anchors, plain.mask_back)


def test_a_shift_below_the_down_factor_masks_as_published() -> None:
    """Anchors do not move then: all are of region 2 beside tokens of 0, 1 and 2.

    Whole cells come out at -100 everywhere, which moves no weight: ours leave that out.
    """
    size, cell, shift, down = (16, 8), (8, 8), (2, 2), 4
    cells = grid(size, cell, shift, down, (0, 0), torch.device("cpu"), torch.float32)
    plain = PLAIN.tables(size, cell, shift, down, (0, 0), torch.zeros(()))
    for found, expected in zip(assembled(cells, size), (plain.mask, plain.mask_back), strict=True):
        constant = expected.flatten(1).std(dim=1) == 0
        assert constant.tolist() == [True, False] and bool((expected[0] == -100).all())
        assert torch.equal(found[1], expected[1]) and len(found[0].unique()) == 1


def test_known_coordinates() -> None:
    column = coordinates((8, 8), (2, 2))[:, 0, 0].tolist()
    half = [0.528321, 0.773976, 0.935785, 1.056642]
    assert column == pytest.approx([-h for h in half[::-1]] + [0] + half, abs=1e-6)
    measured = coordinates((8, 8), (8, 8), longest=14)[..., 1]
    assert measured.max().item() == pytest.approx(np.log2(5) / 3, abs=1e-6)


# Keys, counts, files ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_state_dict_has_the_official_keys(shared: Path, name: str) -> None:
    layout = json.loads((shared / f"golden/grl/keys_{name}.json").read_text())
    options = network_options({"type": "GRL"} | layout["kwargs"])
    assert isinstance(options, GrlOptions) and options.multiple == layout["pad_size"]
    if name in GRL_PRESETS:
        unsized = options.model_copy(update={"img_size": None})
        assert unsized.model_dump() == GRL_PRESETS[name].model_dump()
    state = build_network(options, meta=True).state_dict()
    official = [(k, tuple(s)) for k, s, _, kind in layout["state_dict"] if kind == "parameter"]
    assert [(key, tuple(value.shape)) for key, value in state.items()] == official
    buffers = [key for key, *_, kind in layout["state_dict"] if kind == "buffer"]
    assert len(buffers) == 13
    assert all(re.fullmatch(ARCHS["GRL"].ignored_keys, key) for key in buffers)
    assert not any(re.fullmatch(ARCHS["GRL"].ignored_keys, key) for key in state)


@pytest.mark.parametrize("preset", COUNTS)
def test_parameter_counts_of_the_presets(preset: str) -> None:
    assert set(GRL_PRESETS) == set(COUNTS)
    network = build_network(GRL_PRESETS[preset], meta=True)
    assert sum(p.numel() for p in network.parameters()) == COUNTS[preset]
    assert list(network.state_dict()) == [name for name, _ in network.named_parameters()]


SMALL: dict[str, Any] = {
    "type": "GRL",
    "embed_dim": 16,
    "upscale": 2,
    "upsampler": "pixelshuffledirect",
    "depths": [2, 1],
    "num_heads_window": [2, 2],
    "num_heads_stripe": [2, 1],
    "window_size": 4,
    "stripe_size": [4, 8],
    "stripe_shift": True,
    "mlp_ratio": 2,
    "anchor_window_down_factor": 2,
}
TABLES = {
    **{f"table_{which}": torch.zeros(1, 3, 3, 2) for which in ("w", "sh", "sv")},
    "index_w": torch.zeros(4, 4, dtype=torch.long),
    "mask_w": torch.full((1, 4, 4), -torch.inf),
    **{
        f"{kind}_{which}_{way}": torch.zeros(1, 4, 4)
        for kind in ("index", "mask")
        for which in ("sh", "sv")
        for way in ("a2w", "w2a")
    },
    "layers.0.blocks.0.attn.window_attn.attn_transform.relative_coords_table": torch.zeros(3),
    "layers.0.blocks.0.attn.window_attn.relative_position_index": torch.zeros(3).long(),
    "layers.0.blocks.0.attn.window_attn.attn_mask": torch.zeros(3),
}


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("", {}),
        ("model.", {}),
        ("model.", {"current_val_metric": torch.zeros(()), "best_iter": torch.ones(())}),
        ("model_g.", {"model_d.conv0.weight": torch.zeros(8, 3), "loss.vgg.weight": torch.ones(2)}),
        ("module.model_g.", {"module.model_d.conv0.weight": torch.zeros(8, 3)}),
    ],
)
@pytest.mark.parametrize("container", ["", "state_dict"])
def test_official_files_load_strictly(
    tmp_path: Path, prefix: str, beside: dict[str, Tensor], container: str
) -> None:
    torch.manual_seed(1)
    weights = grl(SMALL).state_dict()
    file = tmp_path / "sr_grl.ckpt"
    held = {prefix + key: value for key, value in (weights | TABLES).items()} | beside
    trainer = {"epoch": 3, "global_step": 10, "optimizer_states": [{"state": {}}]}
    torch.save({container: held, **trainer} if container else held, file)
    network = grl(SMALL)
    report = load_weights(network, file)
    for key, value in network.state_dict().items():
        assert torch.equal(value, weights[key]), key
    assert report.loaded == len(weights) and report.prefix == prefix
    assert report.unexpected == report.missing == ()
    assert sorted(report.ignored) == sorted([*TABLES, *beside])


def test_a_network_held_twice_is_read_once(tmp_path: Path) -> None:
    """The first stage of real-world SR: `model.` and `model_g.` are one module there."""
    weights = grl(SMALL).state_dict()
    both = {p + key: value for p in ("model.", "model_g.") for key, value in weights.items()}
    report = load_weights(grl(SMALL), {"state_dict": both})
    assert report.loaded == len(weights) and len(report.ignored) == len(weights)


def test_keys_that_only_look_like_tables_are_not_ignored() -> None:
    held = grl(SMALL).state_dict() | {"table_x": torch.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        load_weights(grl(SMALL), held)
    assert "1 unexpected: table_x" in str(caught.value)


def test_a_trainers_file_with_objects_of_its_own_is_refused(tmp_path: Path) -> None:
    """Only the objects that trainers are known to save have stand-ins (test_detect.py)."""
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": grl(SMALL).state_dict(), "hyper_parameters": Fraction(1, 2)}, file)
    with pytest.raises(WeightsError) as caught:
        read_weights(file)
    assert caught.value.problems[0].code == "WGT02"


def test_training_moves_every_parameter() -> None:
    torch.manual_seed(0)
    network = grl(SMALL | {"local_connection": True, "embed_dim": 36, "drop_path_rate": 0.0})
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    lq, gt = noise((2, 3, 12, 12)).float(), noise((2, 3, 24, 24), seed=1).float()
    losses = []
    for _ in range(4):
        optimiser.zero_grad()
        loss = (network(lq) - gt).abs().mean()
        loss.backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert bool(torch.isfinite(parameter.grad).all()), name
            off = ".cab.3.attention." in name  # about a ReLU that may be shut
            assert off or bool(parameter.grad.any()), name
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
