"""`restore inspect`, `restore convert` and `--arch`: what weights are, and their two forms."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from restore.archs import build_network, load_weights
from restore.archs.build import network_options
from restore.archs.detect import preset_options
from restore.archs.table import ARCHS, PRESETS
from restore.archs.weights import about_weights, describe, write_safetensors
from restore.archs.weights_file import file_sha256
from restore.commands.main import main
from restore.options_yaml import dump
from restore.recipes.build import load_pretrained
from restore.recipes.trees import PathOptions


def lightning(file: Path, network: nn.Module) -> Path:
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, file)
    return file


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of a network that the weights tell, and of two that they do not."""
    folder = tmp_path_factory.mktemp("official")
    torch.manual_seed(0)
    presets = ("SPAN-S_x4", "MaIR-T_x2", "dn_grl_small_c1")
    return {
        name: lightning(folder / f"{name}.ckpt", build_network(preset_options(name)))
        for name in presets
    }


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


# inspect ------------------------------------------------------------------------------------------


def test_inspect_says_what_a_file_is(
    weights: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = answer(capsys, "inspect", weights["SPAN-S_x4"])
    assert (code, err) == (0, "")
    assert "164 tensors, 1,840,488 numbers of float32, in state_dict" in out
    assert "network    SPAN ×4" in out and "variants   SPAN-S_x4" in out
    assert "prefix     model." in out and "feature_channels 48" in out
    assert "assumed    img_range 255.0" in out and file_sha256(weights["SPAN-S_x4"]) in out


def test_inspect_says_what_a_file_does_not_tell(
    weights: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = answer(capsys, "inspect", weights["MaIR-T_x2"])[1]
    assert "NOT told   scan_len" in out and "--arch MaIR-T_x2   (scan_len 8)" in out
    out = answer(capsys, "inspect", weights["dn_grl_small_c1"])[1]
    assert "NOT told   window_size, stripe_size, anchor_window_down_factor" in out
    for name in ("dn_grl_small_c1", "jpeg_grl_small_c1"):
        options: Any = ARCHS["GRL"].presets[name]
        assert f"--arch {name}   (window_size {options.window_size}, " in out


def test_inspect_as_json(weights: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "inspect", "--json", weights["MaIR-T_x2"])
    about = json.loads(out)
    assert code == 0 and about["network"] == "MaIR" and about["scale"] == 2 and about["exact"]
    assert about["told"]["ssm_ratio"] == 1.1 and about["untold"] == ["scan_len"]
    assert about["presets"] == {"MaIR-T_x2": "scan_len 8"} and about["prefix"] == "model."


def test_inspect_of_a_file_that_is_not_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = build_network(preset_options("SPAN-S_x2")).state_dict()
    del state["conv_cat.bias"]
    torch.save({"params": state}, tmp_path / "net.pth")
    code, out, _ = answer(capsys, "inspect", tmp_path / "net.pth")
    assert code == 1 and "missing    1: conv_cat.bias" in out and "nearest to SPAN-S_x2" in out
    torch.save({"a": torch.zeros(2)}, tmp_path / "net.pth")
    code, out, _ = answer(capsys, "inspect", tmp_path / "net.pth")
    assert code == 1 and "network    none known here: a, …" in out


def test_another_sha256_is_refused(
    weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = weights["SPAN-S_x4"]
    digest = file_sha256(file)
    assert answer(capsys, "inspect", "--sha256", digest[:12], file)[0] == 0
    code, out, err = answer(capsys, "inspect", "--sha256", "0" * 64, file)
    assert (code, out) == (2, "") and err.startswith("error[WGT08]: another file than expected")
    target = tmp_path / "a.safetensors"
    code, _, err = answer(capsys, "convert", "--sha256", "0" * 64, file, target)
    assert code == 2 and "WGT08" in err and not target.exists()
    assert answer(capsys, "convert", "--sha256", digest, file, target)[0] == 0


# convert ------------------------------------------------------------------------------------------


def test_convert_asks_for_what_the_weights_do_not_tell(
    weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, target = weights["MaIR-T_x2"], tmp_path / "a.safetensors"
    code, out, err = answer(capsys, "convert", file, target)
    assert (
        (code, out) == (2, "") and err.startswith("error[WGT15]") and "MaIR-T_x2: scan_len 8" in err
    )
    code, _, err = answer(capsys, "convert", "--arch", "MaIR-S_x2", file, target)
    assert code == 2 and err.startswith("error[WGT01]") and not target.exists()
    code, _, err = answer(capsys, "convert", "--arch", "MaIR-T_x9", file, target)
    assert code == 2 and err.startswith("error[OPT24]")
    assert answer(capsys, "convert", "--arch", "MaIR-T_x2", file, target)[0] == 0
    told = about_weights(target)
    assert network_options(told["network_g"]) == preset_options("MaIR-T_x2")
    # once told, it is never asked for again
    assert answer(capsys, "convert", target, tmp_path / "b.pth")[0] == 0
    _, out, _ = answer(capsys, "inspect", target)
    assert "header has scan_len 8" in out and "NOT told" not in out


def test_a_default_that_the_weights_do_not_tell_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build_network({"type": "MaIR", "embed_dim": 8, "depths": [1]})
    torch.save({"params": network.state_dict()}, tmp_path / "a.pth")
    words = ["convert", "--arch", "MaIR", "--set", "embed_dim=8", "--set", "depths=[1]"]
    code, _, err = answer(capsys, *words, tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert code == 0 and "scan_len: the weights do not tell it; the default is taken" in err
    more = ["--set", "scan_len=4"]
    code, _, err = answer(capsys, *words, *more, tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert code == 0 and "scan_len" not in err
    assert about_weights(tmp_path / "b.safetensors")["network_g"]["scan_len"] == 4


def test_the_header_says_licence_and_origin(
    weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, target = weights["SPAN-S_x4"], tmp_path / "a.safetensors"
    assert answer(capsys, "convert", file, target)[0] == 0
    told = about_weights(target)
    assert told["scale"] == 4 and told["network_g"]["feature_channels"] == 48
    assert told["license"] == ARCHS["SPAN"].license
    assert told["provenance"] == {
        "file": "SPAN-S_x4.ckpt",
        "sha256": file_sha256(file),
        "container": "state_dict",
        "prefix": "model.",
    }
    again = tmp_path / "b.safetensors"
    assert answer(capsys, "convert", "--license", "CC0", target, again)[0] == 0
    assert about_weights(again) == {**told, "license": "CC0"}


def run_folder(folder: Path, network: Any) -> Path:
    """A run as training leaves it, as far as weights are concerned."""
    saved = folder / "checkpoints" / "step_00000300"
    saved.mkdir(parents=True)
    about = describe(network.options, 2)
    write_safetensors(saved / "model.safetensors", network.state_dict(), about)
    (saved / "MANIFEST.json").write_text("{}")
    numbers = {"step": 300, "samples": 1200, "best": {"psnr": 30.5}, "ranks": 1}
    (saved / "state.json").write_text(json.dumps(numbers))
    (folder / "checkpoints" / "latest.json").write_text('{"step": 300}')
    (folder / "run.json").write_text(json.dumps({"versions": {"torch": "2"}, "commit": "abc"}))
    train = {"type": "PairedImageDataset", "dataroot_gt": "/private/x", "gt_size": 32}
    options = {"manual_seed": 7, "train": {"total_iter": 300}, "datasets": {"train": train}}
    (folder / "options.yml").write_text(dump(options))
    return folder


def test_the_header_of_a_run_says_how_it_was_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = build_network({"type": "SPAN", "feature_channels": 4, "upscale": 2})
    run, target = run_folder(tmp_path / "mine", network), tmp_path / "a.safetensors"
    assert answer(capsys, "convert", run, target)[0] == 0
    told = about_weights(target)
    assert told["license"] == "not stated: trained here"
    assert told["provenance"] == {
        "run": "mine",
        "weights": "model",
        "step": 300,
        "samples": 1200,
        "best": {"psnr": 30.5},
        "versions": {"torch": "2"},
        "commit": "abc",
        "manual_seed": 7,
        "train": {"total_iter": 300},
        "data": {"type": "PairedImageDataset", "gt_size": 32},
    }
    assert "/private" not in json.dumps(told)


def test_to_pth_whatever_the_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = build_network({"type": "MIMOUNet", "num_res": 1})
    torch.save({"model": network.state_dict()}, tmp_path / "a.pkl")
    middle, back = tmp_path / "b.safetensors", tmp_path / "c.ckpt"
    assert answer(capsys, "convert", "--key", "model", tmp_path / "a.pkl", middle)[0] == 0
    code, _, err = answer(capsys, "convert", middle, back)
    assert code == 2 and "--to pth" in err
    assert answer(capsys, "convert", "--to", "pth", middle, back)[0] == 0
    other = build_network({"type": "MIMOUNet", "num_res": 1})
    load_weights(other, back)
    content = torch.load(back, weights_only=True)["params"]
    assert all(torch.equal(value, content[key]) for key, value in network.state_dict().items())


def test_one_way_to_name_the_network(weights: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("network_g: {type: SPAN}")
    words = ["--arch", "SPAN-S_x4", "--opt", str(tmp_path / "a.yml"), str(weights["SPAN-S_x4"])]
    assert main(["convert", *words, str(tmp_path / "a.pth")]) == 2


@pytest.mark.parametrize("arch", ["MaIR-T_x2", "MaIR/MaIR-T_x2"])
def test_a_variant_by_either_name(
    weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], arch: str
) -> None:
    file, target = weights["MaIR-T_x2"], tmp_path / "a.safetensors"
    assert answer(capsys, "convert", "--arch", arch, file, target)[0] == 0
    assert network_options(about_weights(target)["network_g"]) == PRESETS["MaIR-T_x2"]
    again = tmp_path / "b.safetensors"
    assert answer(capsys, "convert", "--arch", arch, "--set", "scan_len=4", file, again)[0] == 0
    assert about_weights(again)["network_g"]["scan_len"] == 4
    other = arch.replace("MaIR-T", "MaIR-S")
    code, _, err = answer(capsys, "convert", "--arch", other, file, tmp_path / "c.pth")
    assert code == 2 and "error[WGT01]: the weights are not of MaIR-S_x2" in err


def test_a_name_means_one_network() -> None:
    variants = [name for entry in ARCHS.values() for name in entry.presets]
    assert len(variants) == len(set(variants)) and not set(variants) & set(ARCHS)


# In a run -----------------------------------------------------------------------------------------


def test_a_run_says_where_in_the_file_its_weights_were(
    weights: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    network = build_network(preset_options("SPAN-S_x4"))
    with caplog.at_level(logging.INFO, logger="restore"):
        load_pretrained(network, PathOptions(pretrain_network_g=str(weights["SPAN-S_x4"])))
    assert caplog.messages[0].endswith("(164 tensors, under state_dict model.)")
