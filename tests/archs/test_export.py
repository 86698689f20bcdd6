"""Networks as files: the same image from ONNX, TorchScript and torch.export, at any size."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from restore.archs import build_network, fuse
from restore.archs.architecture import SizeRule
from restore.archs.build import network_options
from restore.archs.export import (
    TARGETS,
    TOLERANCE,
    ExportForm,
    differences,
    example_image,
    example_sizes,
    export_form,
    read,
    require,
    write,
)
from restore.archs.grl.exported import ExportedGRL
from restore.archs.grl.network import GRL
from restore.archs.layers import mirrored
from restore.archs.table import ARCHS, architecture_of
from restore.errors import BackendError, OptionError
from restore.evaluation.predictor import Predictor
from restore.ops.selective_scan import map_scan, selective_scan
from restore.ops.selective_scan.standard import standard_operators

SMALL: dict[str, dict[str, Any]] = {
    "SPAN": {"feature_channels": 8, "upscale": 2},
    "MIRNet_v2": {"n_feat": 16, "n_MRB": 1},
    "MIMOUNet": {"num_res": 1},
    "MIMOUNetPlus": {"num_res": 1},
    "MIMOUNetPlusCFA": {"num_res": 1, "widths": [8, 12, 16], "reduction": 4, "fuse_outputs": True},
    "MaIR": {"embed_dim": 12, "depths": [2], "d_state": 4, "upscale": 2, "scan_len": 4},
    "MaIRUNet": {
        "dim": 4,
        "num_blocks": [1, 1, 1, 1],
        "num_refinement_blocks": 1,
        "scan_len": 4,
    },
    "GRL": {
        "embed_dim": 16,
        "depths": [4],
        "num_heads_window": [2],
        "num_heads_stripe": [4],
        "window_size": 4,
        "stripe_size": [4, 8],
        "stripe_shift": True,
        "mlp_ratio": 2,
        "anchor_window_down_factor": 2,
        "upsampler": "pixelshuffledirect",
        "upscale": 2,
    },
}
QUICK = {"SPAN", "MIMOUNet"}
"""Exported in every run of the tests; ONNX and torch.export take some ten seconds of the others."""
CASES = [
    pytest.param(
        target, name, id=f"{target} {name}",
        marks=[pytest.mark.slow] if target != "torchscript" and name not in QUICK else [],
    )
    for target in TARGETS
    for name in SMALL
]  # fmt: skip
TINY_SIZES = ((2, 3), (3, 9), (8, 8))


def network_of(name: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    network = build_network({"type": name} | SMALL[name] | more).eval()
    with torch.no_grad():  # first weights hardly show where a mask, a bias or a path is wrong
        for key, parameter in network.named_parameters():
            if ".cpb_mlp." in key or ".qkv." in key:
                parameter.copy_(torch.randn_like(parameter))
            elif key.endswith("A_logs"):
                parameter.copy_(torch.randn_like(parameter) - 1)
    return network


def options_of(name: str, **more: Any) -> Any:
    return network_options({"type": name} | SMALL[name] | more)


def truth_of(name: str, network: nn.Module, **more: Any) -> Predictor:
    options = options_of(name, **more)
    architecture = architecture_of(options)
    return Predictor(fuse(network), architecture.scale(options), architecture.size)


def skip_without(target: str) -> None:
    for package in TARGETS[target].needs:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{target} needs {package}: pip install {package}")


def exported(target: str, name: str, folder: Path, **more: Any) -> Path:
    network = network_of(name, **more)
    path = folder / f"net{TARGETS[target].suffix}"
    write(export_form(network, options_of(name, **more)), target, path, 3, {"network_g": name})
    return path


def test_every_network_of_the_table_is_exported_here() -> None:
    assert set(SMALL) == set(ARCHS)


@pytest.mark.parametrize(("target", "name"), CASES)
def test_a_file_restores_as_the_network_does(target: str, name: str, tmp_path: Path) -> None:
    skip_without(target)
    run = read(target, exported(target, name, tmp_path))
    truth = truth_of(name, network_of(name))
    unit = export_form(network_of(name), options_of(name)).unit
    seen = dict(differences(run, truth, 3, unit))
    assert len(seen) == 3
    assert max(seen.values()) <= TOLERANCE, seen
    for size in TINY_SIZES:
        image = example_image(3, size)
        with torch.no_grad():
            torch.testing.assert_close(run(image), truth(image), rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["torch-export", "onnx"])
def test_grl_whose_map_may_be_one_cell(target: str, tmp_path: Path) -> None:
    """As in the published sizes, where a stripe is as large as what sides are padded to."""
    skip_without(target)
    more = {"depths": [2], "window_size": 8, "stripe_size": [8, 8]}
    run = read(target, exported(target, "GRL", tmp_path, **more))
    truth = truth_of("GRL", network_of("GRL", **more), **more)
    for size in ((8, 8), (5, 30), (2, 3), (17, 16)):
        image = example_image(3, size)
        with torch.no_grad():
            torch.testing.assert_close(run(image), truth(image), rtol=0, atol=TOLERANCE)


def test_the_comparison_sees_another_network(tmp_path: Path) -> None:
    run = read("torchscript", exported("torchscript", "SPAN", tmp_path))
    other = network_of("SPAN")
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    assert max(d for _, d in differences(run, truth_of("SPAN", other), 3, 1)) > TOLERANCE
    shorter = lambda image: run(image)[..., :-1]  # noqa: E731
    assert dict(differences(shorter, run, 3, 1)).popitem()[1] == float("inf")


# ONNX ---------------------------------------------------------------------------------------------


def model_of(name: str, folder: Path) -> Any:
    skip_without("onnx")
    return importlib.import_module("onnx").load(exported("onnx", name, folder))


def test_span_is_exported_fused(tmp_path: Path) -> None:
    model = model_of("SPAN", tmp_path)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 20 + 1 + 1  # one a unit, conv_cat and the upsampler
    assert json.loads({p.key: p.value for p in model.metadata_props}["restore"])["version"]
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]


@pytest.mark.slow
def test_mair_needs_standard_operators_only(tmp_path: Path) -> None:
    model = model_of("MaIR", tmp_path)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    scans = [node for node in model.graph.node if node.op_type == "Scan"]
    assert len(scans) == 2  # one a block


# The parts ----------------------------------------------------------------------------------------


@given(
    height=st.integers(1, 12), width=st.integers(1, 12), minimum=st.integers(1, 20),
    multiple=st.integers(1, 9),
)  # fmt: skip
def test_padding_in_the_graph_is_the_predictors(
    height: int, width: int, minimum: int, multiple: int
) -> None:
    size, image = SizeRule(minimum, multiple), torch.rand(1, 2, height, width)
    seen: list[Tensor] = []

    class Keep(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    for run in (ExportForm(Keep(), size, 1), Predictor(Keep(), 1, size)):
        assert torch.equal(run(image), image)
    assert torch.equal(seen[0], seen[1])


def test_what_is_compared_has_one_unit_and_more() -> None:
    more = {"window_size": 32, "stripe_size": [64, 64], "anchor_window_down_factor": 4}
    form = export_form(network_of("GRL", **more), options_of("GRL", **more))
    assert form.unit == 64
    assert example_sizes(64) == ((77, 125), (64, 96), (127, 59))


def test_mirroring_starts_again_at_the_other_end() -> None:
    x = torch.arange(3.0).view(1, 3)
    assert mirrored(x, 1, torch.arange(9)).tolist() == [[0, 1, 2, 1, 0, 1, 2, 1, 0]]


@settings(max_examples=20)
@given(height=st.integers(1, 5), width=st.integers(1, 5), seed=st.integers(0, 99))
def test_the_standard_scan_is_the_scan(height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    directions, channels, states, rank, pixels = 3, 4, 2, 2, height * width
    order = torch.stack([torch.randperm(pixels) for _ in range(directions)])
    inputs = (
        torch.randn(2, pixels, channels).double(),
        torch.randn(2, pixels, directions, rank + 2 * states).double(),
        order,
        torch.randn(directions, channels, rank).double(),
        torch.randn(directions, channels).double(),
        -torch.rand(directions, channels, states).double(),
        torch.randn(directions, channels).double(),
    )
    with standard_operators():
        found = map_scan(*inputs)
    for own, expected in zip(found, map_scan(*inputs), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rest", ["all", "none"])
def test_the_standard_scan_of_sequences(rest: str) -> None:
    torch.manual_seed(0)
    u, delta = torch.randn(2, 4, 9).double(), torch.randn(2, 4, 9).double()
    A, B, C = -torch.rand(4, 3).double(), *torch.randn(2, 2, 2, 3, 9).double()
    D, bias = (torch.randn(2, 4).double()) if rest == "all" else (None, None)
    inputs: Any = (u, delta, A, B, C, D)
    with standard_operators():
        found = selective_scan(*inputs, delta_bias=bias, softplus=rest == "all")
    expected = selective_scan(*inputs, delta_bias=bias, softplus=rest == "all")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


GRL_FORMS: dict[str, dict[str, Any]] = {
    "as above": {},
    "no shift of stripes": {"stripe_shift": False},
    "odd windows": {"window_size": 3, "stripe_size": [6, 6]},
    "a shift below the down factor": {"anchor_window_down_factor": 4, "embed_dim": 32},
    "down factor 1": {"anchor_window_down_factor": 1},
    "same size": {"upsampler": "", "upscale": 1},
    "local branch": {"local_connection": True, "embed_dim": 24, "init_method": "r"},
    "enlarged in steps": {"upsampler": "nearest+conv", "upscale": 4},
}


@pytest.mark.parametrize("form", GRL_FORMS)
def test_grl_in_one_graph_is_grl(form: str) -> None:
    network = network_of("GRL", **GRL_FORMS[form])
    assert isinstance(network, GRL)
    drawn = torch.random.get_rng_state()
    whole = ExportedGRL(network)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    for size in ((37, 21), (16, 24), (5, 40), (1, 1), (9, 8)):
        image = example_image(3, size)
        with torch.no_grad():
            torch.testing.assert_close(whole(image), network(image), rtol=0, atol=2e-5)


def test_grl_masks_matter() -> None:
    """So that a test without them could not pass."""
    network = network_of("GRL")
    assert isinstance(network, GRL)
    whole, image = ExportedGRL(network), example_image(3, (16, 16))
    for parts in whole._grids:
        object.__setattr__(parts, "shift", (0, 0))
    with torch.no_grad():
        assert (whole(image) - network(image)).abs().max() > 1e-3


# Refusals -----------------------------------------------------------------------------------------


def code(error: pytest.ExceptionInfo[Any]) -> str:
    return error.value.problems[0].code


def test_grl_with_stripes_that_depend_on_the_size_is_refused() -> None:
    more = {"stripe_groups": [2, None]}
    with pytest.raises(BackendError) as error:
        export_form(network_of("GRL", **more), options_of("GRL", **more))
    assert code(error) == "ENV42"


def test_a_network_that_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if bool(x.sum() > 0) else -x

    with pytest.raises(BackendError) as error:
        write(ExportForm(Odd(), SizeRule(), 1), "torch-export", tmp_path / "odd.pt2", 3, {})
    assert code(error) == "ENV41"
    assert "onnx, torchscript" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_package_and_a_wrong_suffix_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError) as error:
        require("torchscript", ".onnx")
    assert code(error) == "OPT43"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError) as missing:
        require("onnx", ".onnx")
    assert code(missing) == "ENV40"
    require("torchscript", ".ts")
