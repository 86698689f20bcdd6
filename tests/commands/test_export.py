"""`restore export`, as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from restore.archs import build_network, export
from restore.archs.build import network_options
from restore.archs.export import example_image
from restore.archs.weights import describe, write_safetensors
from restore.commands.main import main
from restore.evaluation.predictor import Predictor

NETWORK = {"type": "SPAN", "feature_channels": 8, "upscale": 2}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of ours that says which network it is for."""
    torch.manual_seed(0)
    file = tmp_path / "net.safetensors"
    about = describe(network_options(NETWORK), 2)
    write_safetensors(file, build_network(NETWORK).state_dict(), about)
    return file


def run(*argv: object) -> int:
    return main(["export", *map(str, argv)])


def test_a_file_is_written_and_its_differences_are_told(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "span.ts"
    assert run("--weights", weights, "--to", "torchscript", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all("largest difference" in line for line in lines[:3])
    assert lines[3] == f"{out}: SPAN as torchscript, {out.stat().st_size:,} bytes"
    torch.manual_seed(0)
    image = example_image(3, (9, 14))
    with torch.no_grad():
        expected = Predictor(build_network(NETWORK), 2, export.SizeRule())(image)
        torch.testing.assert_close(torch.jit.load(str(out))(image), expected, rtol=0, atol=1e-4)
    assert run("--weights", weights, "--to", "torchscript", "--no-check", "--overwrite", out) == 0
    assert "not checked" in capsys.readouterr().out


def test_weights_of_others_tell_their_network_or_it_is_named(tmp_path: Path) -> None:
    plain = tmp_path / "plain.pth"
    torch.save({"params": build_network(NETWORK).state_dict()}, plain)
    out = tmp_path / "span.ts"
    assert run("--weights", plain, "--to", "torchscript", out) == 0
    out = tmp_path / "named.ts"
    named = ["--arch", "SPAN", "--scale", 2, "--set", "feature_channels=8"]
    assert run("--weights", plain, *named, "--to", "torchscript", out) == 0


def test_what_differs_is_not_written(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(export, "TOLERANCE", 1e-12)
    monkeypatch.setattr(export, "differences", lambda *_: iter([("9×9", float("nan"))]))
    before = set(tmp_path.iterdir())
    assert run("--weights", weights, "--to", "torchscript", tmp_path / "span.ts") == 1
    assert set(tmp_path.iterdir()) == before
    assert "not written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--to", "torchscript", "net.onnx"], "OPT43"),
        (["--to", "torchscript", "there.ts"], "OPT22"),
        (["--to", "torchscript", "nowhere/net.ts"], "WGT13"),
        (["--to", "tensorrt", "net.ts"], "OPT40"),
    ],
)
def test_refusals(
    argv: list[str], code: str, weights: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.ts").write_text("mine")
    before = set(tmp_path.rglob("*"))
    assert run("--weights", weights, *argv) == 2
    assert f"error[{code}]" in capsys.readouterr().err
    assert set(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.ts").read_text() == "mine"
