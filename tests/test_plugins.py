"""A user's own network, loss, metric, degradation and data source, named in YAML by dotted path."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from restore.archs.export import example_image
from restore.options import read_options
from restore.recipes.trees import TestTree

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "plugin_project"


def project(folder: Path) -> Path:
    """A copy of the example, as a user has it."""
    return shutil.copytree(
        EXAMPLE, folder / "project", ignore=shutil.ignore_patterns("__pycache__")
    )


def run(where: Path, *argv: object) -> subprocess.CompletedProcess[str]:
    """A command in the project's folder, which is on PYTHONPATH as its README says."""
    path = os.pathsep.join([str(where), str(ROOT)])
    command = [sys.executable, *map(str, argv)]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)


def test_the_example_project_trains_tests_and_exports(tmp_path: Path) -> None:
    where = project(tmp_path)
    short = ["--set", "train.total_iter=40", "val.val_freq=40", "logger.save_checkpoint_freq=40"]
    done = run(where, ROOT / "train.py", "-opt", "train_scratches.yml", *short)
    assert done.returncode == 0, done.stderr
    assert ", wrong 0." in done.stderr
    done = run(where, ROOT / "test.py", "-opt", "test_scratches.yml")
    assert done.returncode == 0, done.stderr
    head, _, line = done.stdout.splitlines()[:3]
    assert head.split()[-1] == "wrong"
    results = where / "experiments/test_scratches/results"
    rows = list(csv.DictReader((results / "rows.csv").open()))
    assert len(rows) == 4
    of_images = [float(row["wrong"]) for row in rows]
    assert all(0 < share < 1 for share in of_images)
    mean = json.loads((results / "summary.json").read_text())["sets"]["rectangles"]["further"]
    assert mean["wrong"] == pytest.approx(sum(of_images) / 4)
    assert line.split()[-1] == f"{mean['wrong']:.4f}"
    assert f"rectangles {mean['wrong']:.4f}" in (results / "report/index.html").read_text()
    assert float(rows[0]["psnr"]) > float(rows[0]["input_psnr"]) + 1  # it has learnt something

    argv = ["--weights", "experiments/train_scratches", "--to", "torchscript", "net.ts"]
    done = run(where, "-m", "restore.commands", "export", *argv)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        assert torch.jit.load(str(where / "net.ts"))(example_image(3, (7, 9))).shape[2:] == (7, 9)


@pytest.mark.parametrize(
    ("option", "fix"),
    [
        (
            "network_g.type=scratchs.network:TWO_LEVEL",
            "No module named 'scratchs'; the folder of its module has to be on PYTHONPATH",
        ),
        (
            "network_g.type=scratches.network:TWO",
            "fix: module 'scratches.network' has no attribute 'TWO'",
        ),
        ("val.further_metrics.wrong.type=PSNR", "got 'PSNR'; expected one of your own, as"),
        ("val.further_metrics.wrong.limt=3", "unknown key of scratches.metric:WrongPixels"),
        ("val.further_metrics.wrong.limit=0", "limit is out of range"),
        ("datasets.test_1.frist=3", "did you mean 'first'?"),
        (
            "datasets.test_1.degradation.per_100_columns=0",
            "per_100_columns is out of range",
        ),
    ],
)
def test_a_mistake_in_a_users_own_part_is_named(option: str, fix: str, tmp_path: Path) -> None:
    where = project(tmp_path)
    done = run(where, ROOT / "test.py", "-opt", "test_scratches.yml", "--set", option)
    assert done.returncode == 2
    assert fix in done.stderr
    assert "Traceback" not in done.stderr
    assert not (where / "experiments").exists()


def test_a_users_options_need_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = project(tmp_path)
    code = (
        "import sys; from restore.options import read_options;"
        "from restore.recipes.trees import TrainTree;"
        "read_options(TrainTree, 'train_scratches.yml', []); sys.exit('torch' in sys.modules)"
    )
    assert run(where, "-c", code).returncode == 0
    monkeypatch.syspath_prepend(str(where))
    tree, _ = read_options(TestTree, str(where / "test_scratches.yml"), [])
    assert list(tree.val.further_metrics.chosen()) == ["wrong"]
