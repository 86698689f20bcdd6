"""The demo's blurred, noisy and hazy pairs: as bad as written here, paired by their own layouts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from restore import images
from restore.data.options import PairedImageDataset, SIDDBlocksDataset
from restore.data.prepare import demo, demo_pairs
from restore.data.sources import Source, check_source, open_source
from restore.metrics.scores import psnr

INPUT_PSNR = {
    "GOPRO_Large/train/astronaut/blur/000001.png": 28.97,
    "GOPRO_Large/train/rocket/blur/000001.png": 30.08,
    "GOPRO_Large/train/hubble_deep_field/blur/000001.png": 22.54,
    "GOPRO_Large/train/retina/blur/000001.png": 29.05,
    "GOPRO_Large/train/ihc/blur/000001.png": 25.28,
    "GOPRO_Large/train/brick/blur/000001.png": 33.09,
    "GOPRO_Large/train/grass/blur/000001.png": 17.90,
    "GOPRO_Large/train/gravel/blur/000001.png": 20.17,
    "GOPRO_Large/test/chelsea/blur/000001.png": 31.07,
    "GOPRO_Large/test/chelsea/blur/000002.png": 29.13,
    "GOPRO_Large/test/chelsea/blur/000003.png": 28.19,
    "GOPRO_Large/test/motorcycle_left/blur/000001.png": 22.25,
    "GOPRO_Large/test/motorcycle_left/blur/000002.png": 21.04,
    "GOPRO_Large/test/motorcycle_left/blur/000003.png": 20.13,
    "SIDD_Medium_Srgb/Data/0001_001_DEMO_00000_00000_0000_N/0001_NOISY_SRGB_010.PNG": 29.20,
    "SIDD_Medium_Srgb/Data/0002_002_DEMO_00000_00000_0000_N/0002_NOISY_SRGB_010.PNG": 22.90,
    "SIDD_Medium_Srgb/Data/0003_003_DEMO_00000_00000_0000_N/0003_NOISY_SRGB_010.PNG": 27.38,
    "SIDD_Medium_Srgb/Data/0004_004_DEMO_00000_00000_0000_N/0004_NOISY_SRGB_010.PNG": 21.11,
    "SIDD_Medium_Srgb/Data/0005_005_DEMO_00000_00000_0000_N/0005_NOISY_SRGB_010.PNG": 22.32,
    "SIDD_Medium_Srgb/Data/0006_006_DEMO_00000_00000_0000_N/0006_NOISY_SRGB_010.PNG": 26.69,
    "SIDD_Medium_Srgb/Data/0007_007_DEMO_00000_00000_0000_N/0007_NOISY_SRGB_010.PNG": 19.70,
    "SIDD_Medium_Srgb/Data/0008_008_DEMO_00000_00000_0000_N/0008_NOISY_SRGB_010.PNG": 24.02,
    "ITS/hazy/1_1_0.64.png": 17.07,
    "ITS/hazy/1_2_1.31.png": 9.83,
    "ITS/hazy/2_1_0.79.png": 13.14,
    "ITS/hazy/2_2_1.46.png": 8.03,
    "ITS/hazy/3_1_0.94.png": 10.16,
    "ITS/hazy/3_2_1.61.png": 5.91,
    "ITS/hazy/4_1_1.09.png": 12.60,
    "ITS/hazy/4_2_1.76.png": 8.17,
    "ITS/hazy/5_1_1.24.png": 12.39,
    "ITS/hazy/5_2_0.71.png": 18.70,
    "ITS/hazy/6_1_1.39.png": 10.65,
    "ITS/hazy/6_2_0.86.png": 16.90,
    "ITS/hazy/7_1_1.54.png": 10.92,
    "ITS/hazy/7_2_1.01.png": 16.76,
    "ITS/hazy/8_1_1.69.png": 11.99,
    "ITS/hazy/8_2_1.16.png": 17.27,
    "SOTS/indoor/hazy/1400_1.png": 14.12,
    "SOTS/indoor/hazy/1400_2.png": 11.97,
    "SOTS/indoor/hazy/1400_3.png": 9.24,
    "SOTS/indoor/hazy/1400_4.png": 10.78,
    "SOTS/indoor/hazy/1401_1.png": 16.00,
    "SOTS/indoor/hazy/1401_2.png": 13.26,
    "SOTS/indoor/hazy/1401_3.png": 10.17,
    "SOTS/indoor/hazy/1401_4.png": 12.06,
    "SOTS/outdoor/hazy/0001_0.8_0.5.png": 20.66,
    "SOTS/outdoor/hazy/0001_0.85_0.7.png": 15.60,
    "SOTS/outdoor/hazy/0001_0.9_0.6.png": 16.55,
    "SOTS/outdoor/hazy/0001_1_0.9.png": 12.54,
    "SOTS/outdoor/hazy/0002_0.8_0.5.png": 17.41,
    "SOTS/outdoor/hazy/0002_0.85_0.7.png": 15.59,
    "SOTS/outdoor/hazy/0002_0.9_0.6.png": 15.33,
    "SOTS/outdoor/hazy/0002_1_0.9.png": 12.22,
    "SIDD_Validation/ValidationNoisyBlocksSrgb.mat": 23.55,
}
# how a set is paired -> (dataroot_gt, dataroot_lq, pairs, mean input PSNR of the real set)
SETS = {
    "gopro-train": ("GOPRO_Large/train", "GOPRO_Large/train", 8, 25.6),
    "gopro-test": ("GOPRO_Large/test", "GOPRO_Large/test", 6, 25.6),
    "sidd-train": ("SIDD_Medium_Srgb/Data", "SIDD_Medium_Srgb/Data", 8, 23.7),
    "sidd-blocks": ("SIDD_Validation", "", 12, 23.7),
    "reside-its": ("ITS/clear", "ITS/hazy", 16, 12.0),
    "reside-indoor": ("SOTS/indoor/gt", "SOTS/indoor/hazy", 8, 12.0),
    "reside-outdoor": ("SOTS/outdoor/gt", "SOTS/outdoor/hazy", 8, 15.9),
}
NEAR = 0.6  # dB between the demo's mean and the real set's
HELD_OUT = {"chelsea", "motorcycle_left"}


@pytest.fixture(scope="module")
def folder(demo_set: Path) -> Path:
    return demo_set


@pytest.fixture(scope="module")
def manifest(folder: Path) -> dict[str, dict[str, object]]:
    return json.loads((folder / "MANIFEST.json").read_text())


def opened(folder: Path, name: str) -> Source:
    gt, lq, _, _ = SETS[name]
    if name == "sidd-blocks":
        return open_source(
            SIDDBlocksDataset(dataroot=str(folder / gt)), 1, channels=3, training=False
        )
    options = PairedImageDataset(
        dataroot_gt=str(folder / gt),
        dataroot_lq=str(folder / lq),
        pairing=name.partition("-")[0],  # type: ignore
    )
    return open_source(options, 1, channels=3, training=name.endswith(("train", "its")))


@pytest.mark.parametrize("name", SETS)
def test_every_pair_is_as_bad_as_its_manifest_says(
    folder: Path, manifest: dict[str, dict[str, object]], name: str
) -> None:
    source = opened(folder, name)
    check_source(source, patch=128)
    _, _, count, real = SETS[name]
    assert len(source) == count
    found = []
    for index in range(count):
        pair = source[index]
        assert pair.gt is not None and pair.gt.dtype == pair.lq.dtype == np.uint8
        found.append(psnr(pair.lq, pair.gt, data_range=255.0, border=0))
        if name != "sidd-blocks":
            path = source.files(index)[0].relative_to(folder).as_posix()
            assert found[-1] == pytest.approx(manifest[path]["input_psnr"], abs=1e-3)
            assert found[-1] == pytest.approx(INPUT_PSNR[path], abs=0.02)
    mean = math.fsum(found) / count
    if name == "sidd-blocks":
        path = "SIDD_Validation/ValidationNoisyBlocksSrgb.mat"
        assert mean == pytest.approx(manifest[path]["input_psnr"], abs=1e-3)
        assert mean == pytest.approx(INPUT_PSNR[path], abs=0.02)
    assert abs(mean - real) < NEAR, f"{mean:.2f}"


def test_the_manifest_tells_of_every_input(manifest: dict[str, dict[str, object]]) -> None:
    told = {name for name, entry in manifest.items() if "input_psnr" in entry}
    assert told == set(INPUT_PSNR)
    assert all(entry["origin"] for entry in manifest.values())
    assert all(manifest[name]["degradation"] for name in told)


def test_no_test_image_is_trained_on(manifest: dict[str, dict[str, object]]) -> None:
    for path in demo_pairs.PATHS:
        held_out = path.startswith(("GOPRO_Large/test/", "SOTS/", "SIDD_Validation/"))
        origins = set(str(manifest[path]["origin"]).removeprefix("scikit-image: ").split())
        assert origins <= HELD_OUT if held_out else not origins & HELD_OUT, path


def test_clear_images_are_the_demo_s_own(folder: Path) -> None:
    for ours, other in (
        ("GOPRO_Large/train/astronaut/sharp/000001.png", "DIV2K/DIV2K_train_HR/0001.png"),
        ("GOPRO_Large/test/chelsea/sharp/000003.png", "benchmark/DemoTest/HR/chelsea.png"),
        ("ITS/clear/8.png", "DIV2K/DIV2K_train_HR/0008.png"),
        ("SOTS/indoor/gt/1400.png", "benchmark/DemoTest/HR/motorcycle_left.png"),
    ):
        assert np.array_equal(images.read(folder / ours), images.read(folder / other))


def test_strengths_are_spread_over_their_range() -> None:
    for count in (1, 2, 3, 6, 8, 16):
        values = demo_pairs._spread((0.0, 1.0), count)
        middles = [(k + 0.5) / count for k in range(count)]
        assert sorted(values) == pytest.approx(middles, abs=0.006)


def test_the_motorcycle_s_depth() -> None:
    with np.load(demo._source(demo.DISPARITY)) as held:
        disparity = held["arr_0"]
    depth = demo_pairs.depth_of_motorcycle(disparity)
    assert depth.shape == disparity.shape and np.isfinite(depth).all() and depth.max() == 1
    metres = 994.978 * 193.001 / 1000 / (disparity[np.isfinite(disparity)] + 31.086)
    assert depth.min() == pytest.approx(metres.min() / metres.max(), abs=1e-4)
    assert metres.min() == pytest.approx(2.11, abs=0.01)
    assert metres.max() == pytest.approx(5.02, abs=0.01)


def test_haze_follows_the_motorcycle_s_depth(folder: Path) -> None:
    """Far wall and near wheel: the same scene is veiled more where it is farther."""
    gt = images.read(folder / "SOTS/indoor/gt/1400.png").astype(float)
    hazy = images.read(folder / "SOTS/indoor/hazy/1400_3.png").astype(float)
    light = 0.95 * 255
    clear = (light - hazy) / np.maximum(light - gt, 1)  # t, where the image is not near A itself
    dark = gt.max(axis=2) < 100
    wall, wheel = np.s_[20:120, 300:500], np.s_[380:480, 150:300]
    assert np.median(clear[wall][dark[wall]]) < np.median(clear[wheel][dark[wheel]]) - 0.15
