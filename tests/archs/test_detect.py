"""Official weights: each variant is known by names and shapes, in every container and prefix, and
what the weights do not tell is asked for."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from restore.archs import build_network, load_weights
from restore.archs.build import network_options
from restore.archs.detect import (
    Detected,
    Differences,
    detect,
    options_for,
    preset_options,
    shapes_of,
)
from restore.archs.reading import FAMILIES, ratio, root
from restore.archs.table import ARCHS
from restore.archs.weights import official_state, read_weights
from restore.archs.weights_file import check_sha256, file_sha256
from restore.errors import OptionError, WeightsError

PRESETS = [(name, preset) for name, arch in ARCHS.items() for preset in arch.presets]
every_preset = pytest.mark.parametrize(
    "architecture, preset", PRESETS, ids=[preset for _, preset in PRESETS]
)

TINY: dict[str, dict[str, Any]] = {
    "SPAN": {"feature_channels": 4, "upscale": 3},
    "MIRNet_v2": {"n_feat": 16, "n_MRB": 1, "bias": True},
    "MIMOUNet": {"num_res": 1},
    "MIMOUNetPlusCFA": {"widths": (8, 16, 24), "num_res": 2, "norm": "batch", "fuse_outputs": True},
    "MaIR": {"embed_dim": 8, "depths": (2, 1), "d_state": 2, "upscale": 4, "scan_len": 2},
    "MaIRUNet": {"dim": 8, "num_blocks": (1, 2, 1, 1), "num_refinement_blocks": 1, "scan_len": 2},
    "GRL": {
        "embed_dim": 36,
        "depths": (2, 1),
        "num_heads_window": (3, 3),
        "num_heads_stripe": (2, 2),
        "local_connection": True,
        "upsampler": "pixelshuffle",
        "upscale": 4,
    },
}


def tiny(name: str, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return build_network({"type": name, **TINY[name]})


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def found_in(state: dict[str, Tensor]) -> Detected:
    found = detect(shapes(state))
    assert found is not None
    return found


# Published variants -------------------------------------------------------------------------------


@every_preset
def test_a_published_variant_is_known(architecture: str, preset: str) -> None:
    options = ARCHS[architecture].presets[preset]
    found = detect(shapes_of(options))
    assert found is not None
    assert found.architecture == architecture and not found.differences
    assert preset in found.presets and found.prefix == ""
    scale = ARCHS[architecture].scale
    assert scale(found.options) == scale(options)
    hidden = {*found.family.asks, *found.family.assumes}
    for key, value in found.told.items():
        assert getattr(options, key) == value, key
    for name in found.presets:  # all that fit differ in nothing but what leaves no trace
        other = ARCHS[architecture].presets[name]
        assert all(
            getattr(other, key) == getattr(options, key)
            for key in type(options).model_fields
            if key not in hidden
        )


@every_preset
def test_only_what_leaves_a_trace_is_taken_from_the_weights(architecture: str, preset: str) -> None:
    """Where variants differ in it, no options come without a preset; with it, those."""
    known = shapes_of(ARCHS[architecture].presets[preset])
    published = ARCHS[architecture].presets[preset]
    if architecture in FAMILIES and FAMILIES[architecture].asks:
        with pytest.raises(WeightsError) as caught:
            options_for(known, "net.pth")
        (problem,) = caught.value.problems
        assert problem.code == "WGT15" and preset in problem.expected
        for key in FAMILIES[architecture].asks:
            assert f"{key} {getattr(published, key)}" in problem.expected
    else:
        assert options_for(known, "net.pth") == published
    assert options_for(known, "net.pth", preset) == published


def test_presets_have_names_of_their_own() -> None:
    names = [preset for _, preset in PRESETS]
    assert len(names) == len(set(names))


def test_a_preset_that_does_not_fit_is_refused() -> None:
    known = shapes_of(preset_options("MaIR-T_x2"))
    with pytest.raises(WeightsError) as caught:
        options_for(known, "net.pth", "MaIR-T_x3")
    assert "error[WGT01]: the weights are not of MaIR-T_x3 (net.pth)" in str(caught.value)
    assert "choose MaIR-T_x2" in str(caught.value)
    with pytest.raises(OptionError, match="OPT24"):
        options_for(known, "net.pth", "MaIR-T_x5")


# Any network, any container, any prefix -----------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_a_network_of_no_published_size_is_read_back(name: str) -> None:
    network = tiny(name)
    found = found_in(network.state_dict())
    assert found.architecture == name and not found.differences and found.presets == ()
    options: Any = network.options
    for key, value in found.told.items():
        if not key.endswith("ratio"):
            assert getattr(options, key) == value, key
    again = build_network(found.options)
    load_weights(again, network.state_dict())


CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "bare": lambda state: state,
    "params": lambda state: {"params": state},
    "params_ema": lambda state: {"params_ema": state, "params": {}},
    "state_dict": lambda state: {"state_dict": state, "epoch": 7, "pytorch-lightning_version": "1"},
    "model": lambda state: {"model": state, "optimizer": {"state": {}}, "epoch": 3000},
    "net_g": lambda state: {"net_g": state},
}


FORMS = [*((container, "") for container in CONTAINERS), ("bare", "module."), ("params", "module.")]
FORMS += [("state_dict", p) for p in ("model.", "model.module.", "net.")] + [("model", "net_g.")]


@pytest.mark.parametrize("container, prefix", FORMS)
@pytest.mark.parametrize("name", TINY)
def test_official_containers_and_prefixes(
    tmp_path: Path, name: str, container: str, prefix: str
) -> None:
    network, other = tiny(name, 1), tiny(name, 2)
    state = official_state(network)
    content = CONTAINERS[container](OrderedDict((prefix + k, v) for k, v in state.items()))
    torch.save(content, tmp_path / "net.pkl")
    report = load_weights(other, tmp_path / "net.pkl")
    assert report.container == ("" if container == "bare" else container)
    assert report.prefix == prefix and not report.missing and not report.mismatched
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in network.state_dict().items())
    found = found_in({prefix + key: value for key, value in state.items()})
    assert (found.architecture, found.prefix) == (name, prefix) and not found.differences


def test_a_trainers_other_networks_do_not_hide_the_generator() -> None:
    state = tiny("GRL").state_dict()
    content = {f"model_g.{k}": v for k, v in state.items()}
    content |= {f"model_d.conv{k}.weight": torch.zeros(3, 3) for k in range(4)}
    content |= {"current_val_metric": torch.zeros(1), "model_g.table_w": torch.zeros(2)}
    found = found_in(content)
    assert (found.architecture, found.prefix, bool(found.differences)) == ("GRL", "model_g.", False)


@pytest.mark.parametrize("content", [{}, {"a": (1, 2)}, {"conv_1.sk.weight": (4, 3, 1, 1)}])
def test_what_is_no_network_of_ours_is_not_guessed(content: dict[str, tuple[int, ...]]) -> None:
    assert detect(content) is None
    with pytest.raises(WeightsError, match="WGT14"):
        options_for(content, "net.pth")


@settings(max_examples=60)
@given(data=st.data())
def test_no_broken_file_makes_detection_fail(data: st.DataObject) -> None:
    """Keys left out and shapes changed give an answer, or none; never another error."""
    name = data.draw(st.sampled_from(sorted(TINY)))
    known = dict(shapes_of(network_options({"type": name, **TINY[name]})))
    keys = sorted(known)
    for key in data.draw(st.lists(st.sampled_from(keys), max_size=30)):
        known.pop(key, None)
    for key in data.draw(st.lists(st.sampled_from(keys), max_size=5)):
        known[key] = tuple(data.draw(st.lists(st.integers(0, 9), max_size=4)))
    found = detect(known)
    assert found is None or str(found)


# Reports ------------------------------------------------------------------------------------------


def test_the_strict_report_names_the_variant_that_the_file_is_of() -> None:
    with torch.device("meta"):
        network = build_network(preset_options("SPAN_x2"))
    file = build_network(preset_options("SPAN-S_x4")).state_dict()
    with pytest.raises(WeightsError) as caught:
        load_weights(network, file)
    assert "the file is of SPAN, SPAN-S_x4: check type" in str(caught.value)


def test_the_nearest_variant_comes_with_what_differs() -> None:
    options = preset_options("MaIR-T_x3").model_copy(update={"embed_dim": 64, "upscale": 2})
    found = detect(shapes_of(options))
    assert found is not None and found.presets == ()
    assert str(found) == "MaIR, nearest to MaIR-T_x2 with embed_dim 64 for 60"


def test_differences_are_told_apart() -> None:
    known = dict(shapes_of(preset_options("MIMO-UNet")))
    whole = dict(known)
    del known["SCM1.conv.main.0.bias"]
    known |= {"extra": (1,), "ConvsOut.0.main.0.bias": (4,)}
    found = detect(known)
    assert found is not None and found.presets == () and found.nearest == "MIMO-UNet"
    assert found.differences == Differences.between(known, whole, "")
    assert found.differences.missing == ("SCM1.conv.main.0.bias",)
    assert found.differences.unexpected == ("extra",)
    assert found.differences.mismatched == ("ConvsOut.0.main.0.bias (4,) ≠ (3,)",)
    assert len(found.differences) == 3


@given(st.integers(4, 400), st.floats(0.5, 8))
def test_a_ratio_gives_the_width_that_it_was_read_from(width: int, exact: float) -> None:
    pairs = [(width << level, int((width << level) * exact)) for level in range(3)]
    found = ratio(*pairs[:1])
    assert int(width * found) == pairs[0][1]


def test_published_ratios_are_read_as_they_are_written() -> None:
    for width, value in ((60, 1.1), (60, 1.6), (180, 1.3), (180, 2.5), (48, 1.5), (24, 1.2)):
        assert ratio((width, int(width * value))) == value


@pytest.mark.parametrize("number", [0, 2, 3, 8.5])
def test_a_number_that_is_no_square(number: float) -> None:
    with pytest.raises(ValueError, match="no square"):
        root(number)


# What trainers leave beside the tensors -----------------------------------------------------------


def omegaconf() -> dict[str, ModuleType]:
    """Modules with classes as omegaconf pickles them: objects with a state, types inside it."""
    base, config, nodes = (ModuleType(f"omegaconf.{n}") for n in ("base", "dictconfig", "nodes"))

    def made(module: ModuleType, name: str) -> type:
        kind = type(name, (), {"__module__": module.__name__})
        setattr(module, name, kind)
        return kind

    kinds = {base: ("ContainerMetadata", "Metadata"), config: ("DictConfig",), nodes: ("AnyNode",)}
    for module, names in kinds.items():
        for name in names:
            made(module, name)
    return {"omegaconf": ModuleType("omegaconf"), **{m.__name__: m for m in (base, config, nodes)}}


def settings_of_a_trainer(modules: dict[str, ModuleType]) -> Any:
    nodes: Any = modules["omegaconf.nodes"]
    node = nodes.AnyNode()
    base: Any = modules["omegaconf.base"]
    node.__dict__ |= {
        "_val": 64,
        "_metadata": base.Metadata(),
        "flags": defaultdict(dict, {"a": {}}),
    }
    config: Any = modules["omegaconf.dictconfig"]
    tree = config.DictConfig()
    metadata = base.ContainerMetadata()
    metadata.__dict__ |= {"ref_type": Any, "object_type": dict, "key_type": int}
    tree.__dict__ |= {"_content": {"embed_dim": node}, "_metadata": metadata, "_parent": None}
    return tree


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_settings_and_scores_of_a_trainer_do_not_stand_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    modules = omegaconf()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    network, other = tiny("GRL", 1), tiny("GRL", 2)
    content = {
        "state_dict": {f"model.{k}": v for k, v in network.state_dict().items()},
        "hyper_parameters": settings_of_a_trainer(modules),
        "best_psnr": np.float64(31.5),
        "curve": np.arange(3.0),
        "dtype": np.dtype("float32"),
        "args": argparse.Namespace(lr=1e-4, path=PurePosixPath("x")),
        "optimizer": defaultdict(dict, {0: {"step": 3}}),
        "version": torch.__version__,
    }
    file = tmp_path / "net.ckpt"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    for name in modules:  # they are not needed for reading
        monkeypatch.delitem(sys.modules, name)
    read = read_weights(file)
    assert read["optimizer"] == {0: {"step": 3}} and not hasattr(read["args"], "lr")
    assert all(type(read[k]).__name__ == "Inert" for k in ("best_psnr", "curve", "dtype", "args"))
    load_weights(other, file)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in network.state_dict().items())


def test_stand_ins_do_not_stay_allowed() -> None:
    before = torch.serialization.get_safe_globals()
    with pytest.raises(WeightsError):
        read_weights("gone.pth")
    assert torch.serialization.get_safe_globals() == before


@pytest.mark.parametrize("call", [eval, exec, getattr, __import__, print], ids=lambda c: c.__name__)
def test_no_stand_in_is_anything_that_runs(tmp_path: Path, call: Any) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return call, ("1+1",)

    torch.save({"params": {"a": torch.zeros(1), "b": Bomb()}}, tmp_path / "net.pth")
    with warnings.catch_warnings(), pytest.raises(WeightsError) as caught:
        warnings.simplefilter("ignore")
        read_weights(tmp_path / "net.pth")
    assert caught.value.problems[0].code == "WGT02" and call.__name__ in str(caught.value)


# sha256 -------------------------------------------------------------------------------------------


def test_sha256(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    file.write_bytes(b"abc")
    whole = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(file) == check_sha256(file, whole) == check_sha256(file, "BA7816BF") == whole
    with pytest.raises(WeightsError) as caught:
        check_sha256(file, "00000000")
    assert caught.value.problems[0].code == "WGT08" and whole in str(caught.value)
    for wrong in ("", "abc", "x" * 64, whole + "0"):
        with pytest.raises(WeightsError, match="WGT08"):
            check_sha256(file, wrong)
    with pytest.raises(WeightsError, match="WGT05"):
        file_sha256(tmp_path / "gone.pth")
