"""`restore info` and the restoring flags of `restore infer`, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from restore import images
from restore.archs import build_network
from restore.archs.build import network_options
from restore.archs.table import ARCHS
from restore.archs.weights import describe, write_safetensors
from restore.commands.main import main

TINY = {"type": "SPAN", "feature_channels": 4, "upscale": 2}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Weights that say which network they are for."""
    torch.manual_seed(0)
    options = network_options(TINY)
    file = tmp_path / "tiny.safetensors"
    write_safetensors(file, build_network(options).state_dict(), describe(options, 2))
    return file


def table(text: str) -> list[list[str]]:
    """The cells of the rows under the rule."""
    lines = text.split("\n\n")[-2].splitlines()
    return [line.split() for line in lines[2:]]


def test_info_of_a_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--arch", "SPAN/SPAN_x4", "--size", "3x1280x720", "--runs", "0"]) == 0
    ((name, parameters, lq, macs, *_),) = table(capsys.readouterr().out)
    assert (name, parameters, lq, macs) == ("SPAN/SPAN_x4", "498,208", "320×180", "28.63")


def test_info_by_scale_counts_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["info", "--arch", "SPAN", "--scale", "2", "--lq", "3x48x32", "--runs", "3"]
    assert main([*words, "--device", "cpu", "--dtype", "bf16"]) == 0
    text = capsys.readouterr().out
    assert "bf16 on cpu" in text and "48×32" in text
    (row,) = table(text)
    median, fast, slow = (float(row[k].strip("()")) for k in (-4, -3, -1))
    assert 0 < fast <= median <= slow


def test_info_of_weights_and_of_the_padded_size(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(tiny), "--runs", "0", "--lq", "3x40x30"]) == 0
    text = capsys.readouterr().out
    assert "tensors" in text and "SPAN ×2" in text and table(text)[0][:1] == ["SPAN"]
    assert main(["info", "--arch", "MIMOUNet", "--runs", "0", "--lq", "3x41x30"]) == 0
    assert "48×32" in capsys.readouterr().out


def test_info_of_every_variant_that_takes_the_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(ARCHS._entries, "GRL")  # takes seconds
    assert main(["info", "--all", "--runs", "0", "--lq", "6x32x32"]) == 0
    assert [row[0] for row in table(capsys.readouterr().out)] == ["dual_pixel_defocus"]
    assert main(["info", "--all", "--runs", "0", "--scale", "3", "--lq", "3x32x32"]) == 0
    names = [row[0] for row in table(capsys.readouterr().out)]
    assert names == ["SPAN_x3", "SPAN-S_x3", "MaIR-T_x3", "MaIR-S_x3", "MaIR_x3"]


@pytest.mark.parametrize(
    "words, code",
    [
        (["--arch", "SPAN/SPAN_x5"], "OPT24"),
        (["--arch", "SPANN"], "OPT24"),
        (["--arch", "MaIR/SPAN_x4"], "OPT24"),
        (["--arch", "SPAN_x4", "--scale", "2"], "OPT33"),
        (["--arch", "SPAN", "--size", "1280x720"], "OPT17"),
        (["--arch", "SPAN", "--lq", "1x64x64"], "OPT37"),
        (["--arch", "SPAN/SPAN_x4", "--scale", "2"], "OPT33"),
        (["--arch", "SPAN", "--size", "3x8x8", "--lq", "3x8x8"], "OPT40"),
        ([], "OPT41"),
    ],
)
def test_info_refuses(words: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", *words, "--runs", "0"]) == 2
    assert f"error[{code}]" in capsys.readouterr().err


# infer --------------------------------------------------------------------------------------------


def picture(file: Path, height: int, width: int) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    images.write(file, noise)
    return file


def test_infer_in_tiles_gives_the_whole_image(tiny: Path, tmp_path: Path) -> None:
    source = picture(tmp_path / "in.png", 190, 230)
    words = ["infer", "--weights", str(tiny), str(source)]
    assert main([*words, str(tmp_path / "whole.png"), "--tile", "none"]) == 0
    assert main([*words, str(tmp_path / "tiles.png"), "--tile", "120"]) == 0
    assert main([*words, str(tmp_path / "fitted.png"), "--tile-memory", "0.001"]) == 0
    expected = images.read(tmp_path / "whole.png")
    for name in ("tiles", "fitted"):
        assert np.array_equal(images.read(tmp_path / f"{name}.png"), expected)


def test_infer_as_published_and_in_half_precision(tiny: Path, tmp_path: Path) -> None:
    source = picture(tmp_path / "in.png", 210, 90)
    words = ["infer", "--weights", str(tiny), str(source)]
    for number, more in enumerate(
        (["--tiling", "mair"], ["--tiling", "grl", "--tile", "64", "--tile-overlap", "8"],
         ["--precision", "bf16"], ["--ensemble", "8"])
    ):  # fmt: skip
        target = tmp_path / f"{number}.png"
        assert main([*words, str(target), *more]) == 0
        assert images.read(target).shape == (420, 180, 3)


@pytest.mark.parametrize(
    "words, code",
    [
        (["--tile", "64", "--tile-overlap", "64"], "OPT25"),
        (["--tile", "all"], "OPT"),
        (["--tiling", "grl"], "OPT25"),
        (["--tiling", "swin"], "OPT31"),
        (["--precision", "int8"], "OPT31"),
        (["--ensemble", "2"], "OPT31"),
        (["--tile-memory", "0"], "OPT18"),
        (["--max-pixels", "100"], "IMG09"),
    ],
)
def test_infer_refuses(
    words: list[str], code: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = picture(tmp_path / "in.png", 20, 20)
    target = tmp_path / "out.png"
    assert main(["infer", "--weights", str(tiny), str(source), str(target), *words]) == 2
    error = capsys.readouterr().err
    assert f"error[{code}" in error and (words[0] in error or code in ("IMG09", "OPT25"))
    assert not target.exists()
