"""NIQE against the order of calls that BasicSR makes, its fits, its models and its command."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.special import gamma
from skimage import data

from restore import images
from restore.commands.main import main
from restore.errors import DataError, WeightsError
from restore.metrics import niqe as niqe_module
from restore.metrics.niqe import FEATURES, NiqeModel, _aggd, _blocks, _shapes, block_sums, fit, niqe
from restore.metrics.similarity import compiled

from helpers import BENCHMARKS, module_at

TEXTURES = [data.grass(), data.gravel(), data.brick()]


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    return module_at(BENCHMARKS / "plain_metrics.py")


@pytest.fixture(scope="module")
def model() -> NiqeModel:
    """Fitted to textures, in which nearly every block is a sharp one."""
    return fit(TEXTURES)


def pictures() -> dict[str, np.ndarray]:
    """Of texture, of flat areas, and one that ties of float32 decide."""
    flat = data.chelsea()[:200, :301].copy()
    flat[40:160, 30:200] = (90, 140, 60)
    return {"astronaut": data.astronaut()[:300, :410], "flat": flat, "coffee": data.coffee()}


@pytest.mark.parametrize("name", pictures())
@pytest.mark.parametrize("border", [0, 4])
def test_against_the_plain_order_of_calls(
    plain: ModuleType, model: NiqeModel, name: str, border: int
) -> None:
    image = pictures()[name]
    with np.errstate(all="ignore"):
        expected = plain.niqe(image[..., ::-1].copy(), model.mean, model.covariance, border)
    assert niqe(image, model, border=border) == pytest.approx(expected, abs=1e-5)


def test_both_ways_to_sum_and_both_depths(
    model: NiqeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pictures()["astronaut"]
    found = niqe(image, model)
    assert niqe(image.astype(np.uint16) * 257, model) == pytest.approx(found, abs=1e-5)
    if compiled() is None:
        pytest.skip("no C++ compiler on this machine")
    blocks = np.random.default_rng(3).normal(size=(96, 192)).astype(np.float32)
    sums = block_sums(blocks, 48), block_sums(blocks[:90, :186].copy(), 6)
    monkeypatch.setattr(niqe_module, "compiled", lambda: None)
    np.testing.assert_allclose(sums[0], block_sums(blocks, 48), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(sums[1], block_sums(blocks[:90, :186].copy(), 6), atol=1e-9)
    assert niqe(image, model) == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0])
def test_the_fit_finds_the_shape_of_a_generalised_gaussian(shape: float) -> None:
    rng = np.random.default_rng(1)
    size = (2, 400, 400)
    values = rng.gamma(1 / shape, size=size) ** (1 / shape) * rng.choice([-1, 1], size)
    image = values.astype(np.float32).reshape(800, 400)
    found, left, right = _aggd(block_sums(image, 400), _blocks(image, 400))
    assert found[:, 0] == pytest.approx(shape, rel=0.03)
    assert left[:, 0] == pytest.approx(1, rel=0.05) and right[:, 0] == pytest.approx(1, rel=0.05)
    shapes, ratios = _shapes()
    assert (np.diff(ratios) > 0).all()  # what a search in the table relies on
    assert ratios[np.searchsorted(shapes, 2.0 - 1e-9)] == pytest.approx(
        gamma(1.0) ** 2 / (gamma(0.5) * gamma(1.5)), abs=1e-9
    )


def test_worse_pictures_score_higher(model: NiqeModel) -> None:
    image = pictures()["astronaut"]
    noise = np.random.default_rng(0).normal(0, 60, image.shape)
    noisy = np.clip(image + noise, 0, 255).astype(np.uint8)
    assert niqe(noisy, model) > niqe(image, model) + 1


@pytest.mark.parametrize("shape", [(95, 300, 3), (96, 190, 3), (200, 96)])
def test_too_small_or_too_even(shape: tuple[int, ...], model: NiqeModel) -> None:
    with pytest.raises(DataError, match="DAT12"):
        niqe(np.full(shape, 90, np.uint8), model)


def test_models_travel(model: NiqeModel, tmp_path: Path) -> None:
    file = tmp_path / "model.npz"
    model.write(file)
    again = NiqeModel.read(file)
    assert np.array_equal(again.mean, model.mean) and again.mean.shape == (FEATURES,)
    assert np.array_equal(again.covariance, model.covariance)
    with np.load(file) as kept:  # BasicSR's own names and shapes
        assert kept["mu_pris_param"].shape == (1, 36) and kept["gaussian_window"].shape == (7, 7)
        assert kept["gaussian_window"].sum() == pytest.approx(1)
    for content in (b"", b"PK", b"text"):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="WGT30"):
            NiqeModel.read(file)
    np.savez(file, mu_pris_param=np.zeros(35), cov_pris_param=np.zeros((36, 36)))
    with pytest.raises(WeightsError, match="WGT30"):
        NiqeModel.read(file)


def test_too_few_blocks_for_a_model() -> None:
    with pytest.raises(DataError, match="DAT31"):
        fit([data.astronaut()[:200, :200]])


def test_the_command(tmp_path: Path, model: NiqeModel, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = tmp_path / "in", tmp_path / "model.npz"
    folder.mkdir()
    for name, image in zip("abc", TEXTURES, strict=True):
        images.write(folder / f"{name}.png", image)
    assert main(["niqe", "--fit", str(file), str(folder)]) == 0
    assert f"{file}: model of 3 images" in capsys.readouterr().out
    assert np.array_equal(NiqeModel.read(file).covariance, model.covariance)
    for old in folder.iterdir():
        old.unlink()
    for name, image in pictures().items():
        images.write(folder / f"{name}.png", image)
    assert main(["niqe", "--model", str(file), "--json", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    values = {row["image"]: row["niqe"] for row in found["rows"]}
    assert values == {name: niqe(image, model) for name, image in sorted(pictures().items())}
    assert found["niqe"] == pytest.approx(np.mean(list(values.values())))
    assert len(found["model_sha256"]) == 64 and found["protocol"] == "niqe@1"
    assert main(["niqe", "--model", str(file), str(folder / "flat.png")]) == 0
    assert found["model_sha256"][:12] in capsys.readouterr().out
    images.write(folder / "a.png", np.zeros((50, 50), np.uint8))
    assert main(["niqe", "--model", str(file), str(folder)]) == 2
    assert "DAT12" in (text := capsys.readouterr().err) and "a.png" in text
    for words in ([], ["--model", "m", "--fit", "f"]):
        assert main(["niqe", *words, str(folder)]) == 2
        assert "OPT40" in capsys.readouterr().err
    assert main(["niqe", "--model", str(file), "--border", "-1", str(folder)]) == 2
    assert "OPT18" in capsys.readouterr().err
