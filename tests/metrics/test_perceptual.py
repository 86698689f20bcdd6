"""LPIPS and DISTS against numbers of their published packages, on weights made by a rule."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from restore import images
from restore.commands.main import main
from restore.errors import BackendError, DataError, WeightsError
from restore.metrics.perceptual import ALEXNET, VGG16, Dists, Lpips

from helpers import hashed

# lpips 0.1.4 and DISTS_pytorch 0.1 in float64 on the files of `made`, torchvision stood in for
PUBLISHED = {"LPIPS": 0.1251678863, "DISTS": 0.05809959928}

ALEX_SHAPES = {
    0: (64, 3, 11),
    3: (192, 64, 5),
    6: (384, 192, 3),
    8: (256, 384, 3),
    10: (256, 256, 3),
}
STAGES = (64, 128, 256, 512, 512)


def backbone(shapes: dict[int, tuple[int, int, int]]) -> dict[str, torch.Tensor]:
    """Weights of a classifier's `features`, of a size that keeps the features' scale."""
    state = {}
    for n, (out, into, side) in shapes.items():
        values = hashed(n, out * into * side * side) * (6 / (into * side * side)) ** 0.5
        state[f"features.{n}.weight"] = torch.from_numpy(values).float().view(out, into, side, side)
        state[f"features.{n}.bias"] = torch.from_numpy(hashed(100 + n, out)).float() / 10
    return state


def vgg_shapes() -> dict[int, tuple[int, int, int]]:
    shapes, into = {}, 3
    for width, numbers in zip(STAGES, VGG16, strict=True):
        for n in numbers:
            shapes[n], into = (width, into, 3), width
    return shapes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(backbone(ALEX_SHAPES), folder / "alexnet.pth")
    torch.save(backbone(vgg_shapes()), folder / "vgg16.pth")
    widths = [ALEX_SHAPES[n][0] for n in ALEXNET]
    heads = {
        f"lin{k}.model.1.weight": torch.from_numpy(np.abs(hashed(k, w))).float().view(1, w, 1, 1)
        for k, w in enumerate(widths)
    }
    torch.save(heads, folder / "alex.pth")
    count = 3 + sum(STAGES)
    both = {
        name: torch.from_numpy(np.abs(hashed(k, count))).float().view(1, count, 1, 1)
        for k, name in enumerate(("alpha", "beta"))
    }
    torch.save(both, folder / "dists.pt")
    return folder


def pair() -> list[np.ndarray]:
    target = np.random.default_rng(0).integers(0, 256, (45, 61, 3)).astype(np.uint8)
    return [(0.7 * target + 0.3 * target[::-1]).astype(np.uint8), target]


def metric(name: str, folder: Path) -> Lpips | Dists:
    if name == "LPIPS":
        return Lpips(folder / "alexnet.pth", folder / "alex.pth")
    return Dists(folder / "vgg16.pth", folder / "dists.pt")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_numbers_of_the_published_packages(name: str, made: Path) -> None:
    measure = metric(name, made)
    a, b = pair()
    assert measure(a, b) == pytest.approx(PUBLISHED[name], rel=1e-6)
    assert measure(a.astype(np.uint16) * 257, b) == pytest.approx(measure(a, b), rel=1e-9)
    assert measure(a, a) == pytest.approx(0, abs=1e-12)
    gray = a[..., 0]
    assert measure(gray, gray) == pytest.approx(0, abs=1e-12)
    for p, q in ((a, b[1:]), (a[:9, :9], b[:9, :9])):
        with pytest.raises(DataError, match=name):
            measure(p, q)


def test_files_that_are_something_else(made: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    for file in (tmp_path / "gone.pth", tmp_path / "text.pth", made / "alex.pth"):
        with pytest.raises(WeightsError, match="WGT31"):
            Lpips(file, made / "alex.pth")
        with pytest.raises(WeightsError, match="WGT31"):
            Dists(file, made / "dists.pt")


@pytest.mark.parametrize(("kind", "package"), [(Lpips, "lpips"), (Dists, "DISTS_pytorch")])
def test_heads_of_a_package_that_is_not_there(
    kind: type[Lpips] | type[Dists], package: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=f"DEV04.*{package}.*pip install lpips dists-pytorch"):
        kind(made / "alexnet.pth")


def test_columns_of_the_score_command(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, image in zip(("sr.png", "hr.png"), pair(), strict=True):
        images.write(tmp_path / name, image)
    words = ["score", str(tmp_path / "sr.png"), str(tmp_path / "hr.png")]
    words += ["--lpips", str(made / "alexnet.pth"), "--lpips-heads", str(made / "alex.pth")]
    words += ["--dists", str(made / "vgg16.pth"), "--dists-heads", str(made / "dists.pt")]
    assert main(words) == 0
    head, *_, last = capsys.readouterr().out.splitlines()
    assert head.split()[-2:] == ["LPIPS", "DISTS"]
    assert last.split()[-2:] == [f"{PUBLISHED[name]:.5f}" for name in ("LPIPS", "DISTS")]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dists"] == found["rows"][0]["dists"] == pytest.approx(PUBLISHED["DISTS"])
