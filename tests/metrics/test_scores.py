"""PSNR and SSIM against their formulas written out, every protocol by hand, and published rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from restore import images
from restore.errors import DataError
from restore.metrics import psnr, ssim
from restore.metrics.options import MetricsOptions, Protocol
from restore.metrics.protocols import PROTOCOLS, default_border
from restore.metrics.scores import bicubic, plane, score, score_bicubic
from restore.ops.resize import imresize

RNG = np.random.default_rng(0)


def pair(shape: tuple[int, ...], dtype: Any = np.uint8, noise: float = 0.1) -> list[np.ndarray]:
    """A smooth picture with noise on it, and the picture."""
    ramp = np.add.outer(np.linspace(0, 3, shape[0]), np.linspace(0, 5, shape[1]))
    clean = 0.5 + 0.45 * np.sin(
        ramp.reshape(*shape[:2], *(1,) * (len(shape) - 2)) + np.zeros(shape)
    )
    both = [np.clip(clean + noise * RNG.standard_normal(shape), 0, 1), clean]
    if np.dtype(dtype).kind == "f":
        return [image.astype(dtype) for image in both]
    return [np.rint(image * np.iinfo(dtype).max).astype(dtype) for image in both]


def refused(code: str, *arguments: Any, **options: Any) -> str:
    texts = set()
    for metric in (psnr, ssim):
        with pytest.raises(DataError) as caught:
            metric(*arguments, **options)
        (problem,) = caught.value.problems
        assert problem.code == code
        texts.add(str(problem))
    assert len(texts) == 1
    return texts.pop()


# The formulas, written out ------------------------------------------------------------------------


def plain_psnr(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    differences = a.astype(np.float64).ravel() - b.astype(np.float64).ravel()
    return 20 * math.log10(peak / math.sqrt(sum(d * d for d in differences.tolist()) / a.size))


def plain_ssim(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    """Wang et al. (2004), window by window."""
    if a.ndim == 3:
        return float(np.mean([plain_ssim(a[..., c], b[..., c], peak) for c in range(a.shape[2])]))
    x, y = a.astype(np.float64), b.astype(np.float64)
    line = np.exp(-(np.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            p, q = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p = (window * (p - mean_p) ** 2).sum()
            var_q = (window * (q - mean_q) ** 2).sum()
            both = (window * (p - mean_p) * (q - mean_q)).sum()
            luminance = (2 * mean_p * mean_q + c1) / (mean_p**2 + mean_q**2 + c1)
            values.append(luminance * (2 * both + c2) / (var_p + var_q + c2))
    return float(np.mean(values))


@pytest.mark.parametrize("shape", [(17, 23), (20, 14, 3), (11, 11), (12, 11, 2)])
@pytest.mark.parametrize(
    ("dtype", "peak"),
    [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0), (np.float64, 1.0)],
)
def test_against_the_formulas(shape: tuple[int, ...], dtype: Any, peak: float) -> None:
    a, b = pair(shape, dtype)
    declared = {"data_range": peak} if np.dtype(dtype).kind == "f" else {}
    assert psnr(a, b, **declared) == pytest.approx(plain_psnr(a, b, peak), abs=1e-9)
    assert ssim(a, b, **declared) == pytest.approx(plain_ssim(a, b, peak), abs=1e-9)
    assert psnr(b, a, **declared) == psnr(a, b, **declared)
    assert ssim(b, a, **declared) == pytest.approx(ssim(a, b, **declared), abs=1e-12)


@pytest.mark.parametrize("shape", [(40, 33), (31, 28, 3)])
@pytest.mark.parametrize(("dtype", "peak"), [(np.uint8, 255), (np.float64, 1.0)])
def test_ssim_is_scikit_images_gaussian_one(
    shape: tuple[int, ...], dtype: Any, peak: float
) -> None:
    a, b = pair(shape, dtype)
    expected = structural_similarity(
        a,
        b,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=peak,
        channel_axis=2 if len(shape) == 3 else None,
    )
    assert ssim(a, b, data_range=peak) == pytest.approx(expected, abs=1e-4)


def test_integers_and_the_same_numbers_as_floats_score_alike() -> None:
    for dtype, peak in ((np.uint8, 255.0), (np.uint16, 65535.0)):
        a, b = pair((19, 16, 3), dtype)
        floats = a.astype(np.float64), b.astype(np.float64)
        assert psnr(a, b) == pytest.approx(psnr(*floats, data_range=peak), abs=1e-12)
        assert ssim(a, b) == pytest.approx(ssim(*floats, data_range=peak), abs=1e-12)
        assert psnr(a, b) == psnr(a, b, data_range=peak)


def test_identical_images() -> None:
    for dtype in (np.uint8, np.uint16, np.float32, np.float64):
        a, _ = pair((13, 15, 3), dtype)
        assert psnr(a, a.copy(), data_range=None if a.dtype.kind == "u" else 1.0) == math.inf
        assert ssim(a, a.copy(), data_range=None if a.dtype.kind == "u" else 1.0) == 1.0


def test_the_worst_image() -> None:
    black, white = np.zeros((12, 12, 3), np.uint8), np.full((12, 12, 3), 255, np.uint8)
    assert psnr(black, white) == 0.0
    assert psnr(np.where(white, 254, white).astype(np.uint8), white) == pytest.approx(
        20 * math.log10(255)
    )
    assert 0 < ssim(black, white) < 2e-4


def test_a_large_error_is_summed_exactly() -> None:
    """255² times more pixels than a 32-bit sum holds; the strided view must not matter either."""
    black, white = np.zeros((700, 901, 3), np.uint8), np.full((700, 901, 3), 255, np.uint8)
    assert psnr(black, white) == psnr(black, white, border=7) == 0.0
    white[3, 3, 0] = 254
    values = 700 * 901 * 3
    squares = 255**2 * (values - 1) + 254**2
    assert psnr(black, white) == 10 * math.log10(255**2 * values / squares) > 0


# Range and border ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_clamped_before_they_are_compared(dtype: Any) -> None:
    """One pixel at 1.01 must not count, nor change what the peak is."""
    target = pair((14, 14), np.float64)[1].astype(dtype)
    target[3, 4], target[7, 7] = 1.0, 0.0
    restored = target.copy()
    restored[3, 4], restored[7, 7] = 1.01, -0.2
    assert psnr(restored, target, data_range=1.0) == math.inf
    assert ssim(restored, target, data_range=1.0) == 1.0
    restored[0, 0] = target[0, 0] / 2
    before = psnr(restored, target, data_range=1.0)
    restored[3, 4] = 40.0
    assert psnr(restored, target, data_range=1.0) == before
    expected = plain_psnr(np.clip(restored.astype(np.float64), 0, 1), target, 1.0)
    assert before == pytest.approx(expected, abs=1e-9)


def test_integers_beyond_a_declared_range_are_clamped_too() -> None:
    for dtype, peak in ((np.uint16, 1023), (np.uint8, 100), (np.int32, 1023)):
        target = np.full((12, 12), peak, dtype)
        restored = target.copy()
        restored[5, 5] += 50
        assert psnr(restored, target, data_range=peak) == math.inf
        assert ssim(restored, target, data_range=peak) == 1.0


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.uint8, np.float32),
        (np.uint8, np.uint16),
        (np.int64, np.int64),
        (np.bool_, np.bool_),
    ],
)
def test_the_range_is_never_guessed(a: Any, b: Any) -> None:
    text = refused("DAT13", np.zeros((12, 12), a), np.ones((12, 12), b))
    assert np.dtype(a).name in text and np.dtype(b).name in text and "data_range" in text


@pytest.mark.parametrize("bad", [0.0, -255.0, math.inf, math.nan])
def test_a_range_that_is_none(bad: float) -> None:
    a, b = pair((12, 12), np.float64)
    refused("DAT13", a, b, data_range=bad)


@pytest.mark.parametrize("border", [0, 1, 3])
@pytest.mark.parametrize("shape", [(17, 20), (18, 17, 3)])
def test_the_border_is_left_out(shape: tuple[int, ...], border: int) -> None:
    a, b = pair(shape)
    inner = [image[border : shape[0] - border, border : shape[1] - border] for image in (a, b)]
    assert psnr(a, b, border=border) == psnr(*(np.ascontiguousarray(i) for i in inner))
    assert ssim(a, b, border=border) == ssim(*(np.ascontiguousarray(i) for i in inner))
    if border:
        spoilt = np.where(
            np.pad(
                np.ones(inner[0].shape, bool), [(border, border)] * 2 + [(0, 0)] * (len(shape) - 2)
            ),
            a,
            255 - a,
        )
        assert psnr(spoilt, b, border=border) == psnr(a, b, border=border)
        assert psnr(spoilt, b) != psnr(a, b)


@pytest.mark.parametrize("border", [6, 7, 100, -1])
def test_a_border_that_leaves_nothing(border: int) -> None:
    """A negative one would cut everything away, and nothing differs in nothing."""
    a, b = pair((30, 12))
    assert f"border {border} of 12×30" in refused("DAT14", a, b, border=border)


def test_the_largest_border_leaves_two_pixels() -> None:
    a, b = pair((12, 12))
    assert psnr(a, b, border=5) == pytest.approx(plain_psnr(a[5:7, 5:7], b[5:7, 5:7], 255))


@pytest.mark.parametrize(("shape", "border"), [((10, 30), 0), ((30, 10), 0), ((16, 30), 3)])
def test_too_small_for_ssim(shape: tuple[int, int], border: int) -> None:
    a, b = pair(shape)
    assert psnr(a, b, border=border) > 0
    with pytest.raises(DataError) as caught:
        ssim(a, b, border=border)
    (problem,) = caught.value.problems
    assert problem.code == "DAT12" and "10" in problem.got and "at least 11" in problem.expected


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((12, 12), (12, 13)),
        ((12, 12, 3), (12, 12)),
        ((12, 12, 3), (12, 12, 1)),
        ((144,), (144,)),
        ((1, 12, 12, 3), (1, 12, 12, 3)),
    ],
)
def test_shapes_that_differ(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    text = refused("DAT06", np.zeros(a, np.uint8), np.zeros(b, np.uint8))
    assert str(a) in text and str(b) in text


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 255), st.integers(0, 2**32 - 1))
def test_psnr_of_a_known_error(height: int, width: int, error: int, seed: int) -> None:
    """The same error in every pixel is 20·log10(255/error), whatever the picture."""
    target = (
        np.random.default_rng(seed).integers(0, 256 - error, (height, width, 3)).astype(np.uint8)
    )
    found = psnr((target + error).astype(np.uint8), target)
    assert found == pytest.approx(20 * math.log10(255 / error), abs=1e-9)


# The protocols ------------------------------------------------------------------------------------

PIXELS = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [10, 20, 30]]], np.uint8)
LUMA = [16.0, 235.0, 81.481, (65.481 * 10 + 128.553 * 20 + 24.966 * 30) / 255 + 16]  # 31.588…
GRAY = np.array([[0, 255, 8, 127]], np.uint8)
GRAY_LUMA = [16.0, 235.0, 219 * 8 / 255 + 16, 219 * 127 / 255 + 16]  # 22.87…, 125.07…


def test_the_protocols_are_these() -> None:
    assert tuple(PROTOCOLS) == get_args(Protocol)
    shaved = {"sr-y", "sr-y-rounded", "vdsr-y", "grl-y", "rgb"}
    for name, rule in PROTOCOLS.items():
        assert rule.name == name and rule.stamp == f"{name}@1"
        borders = [default_border(rule, scale) for scale in (1, 2, 4)]
        assert borders == ([0, 2, 4] if name in shaved else [0, 0, 0])


@pytest.mark.parametrize("restored", [True, False])
def test_planes_of_rgb(restored: bool) -> None:
    def of(name: str, image: np.ndarray) -> list[float]:
        return plane(PROTOCOLS[name], image, restored=restored)[0].tolist()

    for image in (PIXELS, PIXELS.astype(np.uint16) * 257):
        assert of("sr-y", image) == pytest.approx(LUMA, abs=1e-9)
        assert of("sr-y-rounded", image) == [16, 235, 81, 32]
        assert of("vdsr-y", image) == [16, 235, 81, 32]
        assert of("rgb", image) == PIXELS[0].tolist()
    assert plane(PROTOCOLS["rgb"], PIXELS) is PIXELS


def test_planes_of_gray() -> None:
    def of(name: str, image: np.ndarray, restored: bool = False) -> list[float]:
        return plane(PROTOCOLS[name], image, restored=restored)[0].tolist()

    for image in (GRAY, GRAY.astype(np.uint16) * 257):
        for restored in (True, False):
            assert of("sr-y", image, restored) == pytest.approx(GRAY_LUMA, abs=1e-9)
            assert of("sr-y-rounded", image, restored) == [16, 235, 23, 125]
            assert of("rgb", image, restored) == [[v] * 3 for v in GRAY[0].tolist()]
        assert of("vdsr-y", image) == [0, 255, 8, 127]  # the target as it is,
        assert of("vdsr-y", image, True) == [16, 235, 16, 127]  # the result limited


def test_halves_of_luma_round_up() -> None:
    assert plane(PROTOCOLS["vdsr-y"], np.array([[257 * 80 + 128]], np.uint16))[0, 0] == 80
    assert plane(PROTOCOLS["vdsr-y"], np.array([[257 * 80 + 129]], np.uint16))[0, 0] == 81


def flat(*colour: int, side: int = 16) -> np.ndarray:
    return np.full((side, side, len(colour)), colour, np.uint8)


def test_scores_of_two_flat_images_by_hand() -> None:
    """Luma 101.882 and 102.909, which round to 102 and 103."""
    a, b = flat(104, 100, 100), flat(100, 100, 100)
    step = 4 * 65.481 / 255

    def found(name: str) -> float:
        return score(PROTOCOLS[name], a, b, 2)[0]

    assert found("sr-y") == pytest.approx(20 * math.log10(255 / step), abs=1e-9)
    assert found("sr-y-rounded") == pytest.approx(20 * math.log10(255 / 1), abs=1e-9)
    assert found("vdsr-y") == found("sr-y-rounded")
    assert found("rgb") == pytest.approx(10 * math.log10(255**2 * 3 / 16), abs=1e-9)


def test_sixteen_bits_score_as_eight_do() -> None:
    a, b = pair((16, 18, 3))
    for rule in PROTOCOLS.values():
        if rule.align == "realblur":  # in float32; noise this small does not align
            continue
        eight = score(rule, a, b, 1)
        sixteen = score(rule, a.astype(np.uint16) * 257, b.astype(np.uint16) * 257, 1)
        assert sixteen == pytest.approx(eight, abs=1e-9)


@pytest.mark.parametrize("name", ["sr-y", "sr-y-rounded", "rgb"])
def test_gray_counts_as_its_rgb_copy(name: str) -> None:
    a, b = pair((16, 18))
    assert score(PROTOCOLS[name], a, b, 1) == score(
        PROTOCOLS[name], images.as_rgb(a), images.as_rgb(b), 1
    )


def test_ssim_of_rgb_is_the_mean_over_channels() -> None:
    a, b = pair((16, 18, 3))
    b[..., 1] = a[..., 1]
    planes = [ssim(a[..., c], b[..., c]) for c in range(3)]
    assert planes[1] == 1 and score(PROTOCOLS["rgb"], a, b, 0)[1] == pytest.approx(sum(planes) / 3)


# Bicubic rows -------------------------------------------------------------------------------------


def test_bicubic_row_step_by_step() -> None:
    target = pair((35, 41, 3))[1]
    cut = target[:33, :39]
    up = imresize(imresize(cut, 1 / 3), 3)
    for name in ("sr-y", "sr-y-rounded", "rgb"):
        found = score_bicubic(PROTOCOLS[name], target, 3, 3)
        assert found == score(PROTOCOLS[name], up, cut, 3)
    y = np.rint(images.luma(cut))
    y_up = np.rint(np.clip(imresize(imresize(y, 1 / 3), 3.0), 16, 235))
    expected = (
        plain_psnr(y_up[3:-3, 3:-3], y[3:-3, 3:-3], 255),
        plain_ssim(y_up[3:-3, 3:-3], y[3:-3, 3:-3], 255),
    )
    assert score_bicubic(PROTOCOLS["vdsr-y"], target, 3, 3) == pytest.approx(expected, abs=1e-9)


def test_bicubic_of_scale_one_is_the_input() -> None:
    lq = pair((5, 4, 3))[0]
    assert bicubic(lq, 1) is lq
    assert bicubic(lq, 2).shape == (10, 8, 3)


def test_a_target_smaller_than_the_scale() -> None:
    with pytest.raises(DataError) as caught:
        score_bicubic(PROTOCOLS["sr-y"], flat(1, 2, 3, side=3), 4, 0)
    assert caught.value.problems[0].code == "DAT12"


SET5 = {  # measured on the official files; vdsr-y is what papers print
    ("vdsr-y", 2): "33.66 0.9299",
    ("vdsr-y", 3): "30.39 0.8682",
    ("vdsr-y", 4): "28.42 0.8104",
    ("sr-y", 2): "33.6734 0.93029",
    ("sr-y", 3): "30.4033 0.86891",
    ("sr-y", 4): "28.4290 0.81114",
    ("sr-y-rounded", 2): "33.6396 0.92922",
    ("sr-y-rounded", 3): "30.3850 0.86779",
    ("sr-y-rounded", 4): "28.4164 0.81008",
    ("rgb", 2): "31.7866 0.90863",
    ("rgb", 3): "28.6236 0.83831",
    ("rgb", 4): "26.6921 0.77309",
}
PER_IMAGE = {  # baby, bird, butterfly, head, woman under sr-y
    2: "37.0781 36.8210 27.4365 34.8817 32.1498",
    3: "33.9247 32.5845 24.0385 32.9026 28.5663",
    4: "31.7842 30.1815 22.0996 31.6133 26.4665",
}


@pytest.mark.parametrize(("name", "scale"), SET5)
def test_the_published_bicubic_rows_of_set5(shared: Path, name: str, scale: int) -> None:
    files = images.list_images(shared / "data/Set5/HR")
    rows = [score_bicubic(PROTOCOLS[name], images.read(file), scale, scale) for file in files]
    assert len(rows) == 5
    means = np.mean(rows, axis=0)
    digits = (2, 4) if name == "vdsr-y" else (4, 5)
    found = " ".join(f"{mean:.{d}f}" for mean, d in zip(means, digits, strict=True))
    assert found == SET5[name, scale]
    if name == "sr-y":
        assert " ".join(f"{value:.4f}" for value, _ in rows) == PER_IMAGE[scale]


# BasicSR's metrics section ------------------------------------------------------------------------


@pytest.mark.parametrize(("y", "name"), [(True, "sr-y"), (False, "rgb")])
def test_basicsr_flags_name_a_protocol(y: bool, name: str) -> None:
    entry = {"type": "calculate_psnr", "crop_border": 3, "test_y_channel": y}
    options = MetricsOptions.model_validate({"psnr": entry})
    assert options.rule() == (PROTOCOLS[name], 3)
    assert len(options.entries()) == 1
