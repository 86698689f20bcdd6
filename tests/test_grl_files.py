"""The option files of GRL keep what their names and headers say."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from restore.archs import build_network
from restore.archs.grl_options import GRL_PRESETS
from restore.commands.shared import read_tree
from restore.data.options import channels_of
from restore.recipes.checks import check_test, check_train
from restore.recipes.trees import TestTree, TrainTree

OPTIONS = Path(__file__).parent.parent / "options"
FILES = [file for file in sorted(OPTIONS.glob("*_GRL-*.yml"))]
TESTS = [file for file in FILES if file.stem.startswith("test")]
TRAININGS = [file for file in FILES if file.stem.startswith("train")]
SIZES = {"T": "tiny", "S": "small", "B": "base"}


def each(files: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("file", files, ids=lambda file: file.stem)


@cache
def tree_of(file: Path) -> Any:
    if file.stem.startswith("train"):
        return read_tree(TrainTree, str(file), [], check_train)
    return read_tree(TestTree, str(file), [], check_test)


def sets_of(file: Path) -> list[Any]:
    sets = tree_of(file).datasets
    return [*([sets.train] if file in TRAININGS else []), *sets.evaluated().values()]


def header(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return " ".join(line[2:].strip() for line in lines if line.startswith("#"))


@cache
def parameters(variant: str) -> int:
    network = build_network(GRL_PRESETS[variant], meta=True)
    return sum(p.numel() for p in network.parameters())


def variant_of(file: Path) -> str:
    """The published variant whose weights a test file names."""
    (weights,) = re.findall(r"official (\w+)\.ckpt", header(file))
    return re.sub(r"(s\d\d|q\d\d|_gopro|_realblur_[jr])$", "", weights)


@each(TESTS)
def test_network_is_the_one_whose_weights_are_named(file: Path) -> None:
    variant = variant_of(file)
    size = SIZES[re.findall(r"_GRL-([TSB])_", file.stem)[0]]
    assert tree_of(file).network_g == GRL_PRESETS[variant] and f"_{size}" in variant


def test_every_published_variant_has_its_files() -> None:
    variants = {variant_of(file) for file in TESTS}
    assert variants == set(GRL_PRESETS) - {"bsr_psnr_grl_base"}  # a stage before the published one
    tasks = {file.stem.removeprefix("test_") for file in TESTS}
    trained = {file.stem.removeprefix("train_") for file in TRAININGS}
    assert tasks - trained == {"GRL-B_HIDE", "GRL-B_RealSRx4"} and trained <= tasks
    assert len(trained) == 9 + 18 + 8 + 1 + 3 + 2


@each(FILES)
def test_parameters_are_as_promised(file: Path) -> None:
    (promised,) = re.findall(r"([\d,]+) parameters", header(file))
    network = tree_of(file).network_g
    variants = [name for name, preset in GRL_PRESETS.items() if preset == network]
    assert parameters(variants[0]) == int(promised.replace(",", ""))


@each(FILES)
def test_degradation_and_scale_are_those_of_the_name(file: Path) -> None:
    kind = re.findall(r"_GRL-[TSB]_(.*)", file.stem)[0]
    degraded: list[Any] = [getattr(s, "degradation", None) for s in sets_of(file)]
    gray = kind.startswith("Gray")
    assert tree_of(file).network_g.in_channels == (1 if gray else 6 if "Dual" in kind else 3)
    assert all(set(channels_of(s)) <= {1, 3} for s in sets_of(file)) or "Dual" in kind
    if "DNs" in kind:
        assert {d.sigma for d in degraded} == {float(kind[-2:])}
    elif "JPEG" in kind:
        assert {d.quality for d in degraded} == {int(kind[-2:])}
    elif kind == "Demosaick":
        assert {d.pattern for d in degraded} == {"RGGB"}
    else:
        assert not any(degraded)
    scale = int(kind[-1]) if "SRx" in kind else 1
    assert tree_of(file).scale == scale == tree_of(file).network_g.upscale


@each(TRAININGS)
def test_patches_need_no_padding(file: Path) -> None:
    tree = tree_of(file)
    side = tree.datasets.train.gt_size // tree.scale
    assert tree.network_g.padded(side) == side


@each(TRAININGS)
def test_training_says_what_was_not_published(file: Path) -> None:
    text = header(file)
    if "Demosaick" in file.stem:
        assert "a single stage" in text and "private list" in text
    else:
        assert "second stage" in text and "was not published" in text
        assert "none when trained from nothing" in text


def test_real_super_resolution_says_why_it_is_not_trained() -> None:
    text = header(OPTIONS / "test_GRL-B_RealSRx4.yml")
    assert "training is not offered" in text and "GAN" in text
