"""Every named protocol against an independent computation, whose digits are stored here, too.

Independent: scipy.ndimage and scikit-image on whole arrays, written without our metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restore.errors import DataError
from restore.metrics import similarity as similarity_module
from restore.metrics import ssim
from restore.metrics.protocols import PROTOCOLS, Dialect
from restore.metrics.realblur import aligned
from restore.metrics.scores import score
from restore.metrics.similarity import DIALECTS, compiled, mean_similarity, similarity_map

Pair = tuple[np.ndarray, np.ndarray]


def scene(height: int = 48, width: int = 61, seed: int = 5) -> Pair:
    """A smooth coloured scene with texture, and the same shifted, darker and noisy; uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        np.sin(x / (5 + c)) * np.cos(y / (7 - c)) + 0.3 * np.sin(x * y / 90) for c in (0, 1, 2)
    ]
    clean = 128 + 70 * np.stack(planes, axis=2)
    moved = ndimage.shift(clean, (0.4, -0.3, 0), order=3, mode="nearest")
    noisy = 0.96 * moved + rng.normal(0, 4, clean.shape)
    return tuple(np.clip(np.rint(i), 0, 255).astype(np.uint8) for i in (noisy, clean))  # pyright: ignore


# The independent side -----------------------------------------------------------------------------


def gaussian(radius: int = 5) -> np.ndarray:
    line = np.exp(-(np.arange(-radius, radius + 1.0) ** 2) / (2 * 1.5**2))
    return line / line.sum()


def map_of(a: np.ndarray, b: np.ndarray, mean: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """SSIM map on 0..255, five windowed means as in the paper."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2
    both = mean(a * b) - mu_a * mu_b
    luminance = (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)
    return luminance * (2 * both + c2) / (var_a + var_b + c2)


def valid2d(a: np.ndarray, b: np.ndarray) -> float:
    window = np.outer(gaussian(), gaussian())[..., None]
    found = map_of(a, b, lambda x: ndimage.correlate(x, window, mode="reflect"))
    return float(found[5:-5, 5:-5].mean())


def volume3d(a: np.ndarray, b: np.ndarray) -> float:
    line = gaussian()
    window = line[:, None, None] * line[:, None] * line
    return float(map_of(a, b, lambda x: ndimage.correlate(x, window, mode="nearest")).mean())


def zeropad(a: np.ndarray, b: np.ndarray) -> float:
    window = np.outer(gaussian(), gaussian())[..., None]
    return float(map_of(a, b, lambda x: ndimage.correlate(x, window, mode="constant")).mean())


def skimage7(a: np.ndarray, b: np.ndarray) -> float:
    return float(structural_similarity(a, b, data_range=255.0, channel_axis=2))


FORMS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "valid2d": valid2d,
    "volume3d": volume3d,
    "zeropad": zeropad,
    "skimage7": skimage7,
}


def luma(image: np.ndarray, rounded: bool) -> np.ndarray:
    y = image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255 + 16
    return (np.rint(y) if rounded else y)[..., None]


def independent(name: str, a: np.ndarray, b: np.ndarray, border: int) -> tuple[float, float]:
    """What the table in docs/protocols.md says, written out."""
    inside = slice(border, -border or None)
    if name == "realblur-rgb":
        return realblur(a[inside, inside], b[inside, inside])
    if name.endswith("-y") or name == "sr-y-rounded":
        rounded = name != "sr-y"
        a, b = luma(a, rounded), luma(b, rounded)
    if name == "vdsr-y":
        a = np.clip(a, 16, 235)
    a, b = a[inside, inside].astype(np.float64), b[inside, inside].astype(np.float64)
    form = {
        "grl-y": "zeropad", "grl-rgb": "zeropad", "sots-rgb": "zeropad", "dpdd-rgb": "skimage7",
        "gopro-rgb": "volume3d", "gopro-unrounded": "volume3d", "sidd-val": "volume3d",
        "mirnet-rgb3d": "volume3d",
    }.get(name, "valid2d")  # fmt: skip
    return float(peak_signal_noise_ratio(b, a, data_range=255)), FORMS[form](a, b)


def realblur(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The published script's order of calls, with scikit-image's map."""
    z, x = a.astype(np.float32) / 255, b.astype(np.float32) / 255
    z = np.float32(np.sum(x * z, dtype=np.float64) / np.sum(z * z, dtype=np.float64)) * z
    gray = [cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (x, z)]
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 0)
    eye = np.eye(3, dtype=np.float32)
    _, warp = cv2.findTransformECC(*gray, eye, cv2.MOTION_HOMOGRAPHY, stop, None, 5)
    size, back = (x.shape[1], x.shape[0]), cv2.WARP_INVERSE_MAP
    edge = cv2.BORDER_REFLECT
    moved = cv2.warpPerspective(z, warp, size, flags=cv2.INTER_CUBIC + back, borderMode=edge)
    mask = cv2.warpPerspective(np.ones_like(z), warp, size, flags=cv2.INTER_NEAREST + back)
    p, q = x * mask, moved * mask
    psnr = 10 * math.log10(mask.sum() / ((p - q).astype(np.float64) ** 2).sum())
    _, found = structural_similarity(
        p.astype(np.float64),
        q.astype(np.float64),
        channel_axis=2,
        gaussian_weights=True,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )
    found, mask = (found * mask)[5:-5, 5:-5], mask[5:-5, 5:-5]
    return psnr, float(np.mean(found.sum(axis=(0, 1)) / mask.sum(axis=(0, 1))))


# The comparison -----------------------------------------------------------------------------------

STORED = {  # (PSNR, SSIM) by `independent` of `scene()`, border 2
    "sr-y": (33.456454, 0.967285),
    "sr-y-rounded": (33.426424, 0.966682),
    "vdsr-y": (33.426424, 0.966682),
    "grl-y": (33.426424, 0.975617),
    "rgb": (30.792268, 0.942933),
    "denoise-rgb": (30.792268, 0.942933),
    "grl-rgb": (30.792268, 0.957315),
    "gopro-rgb": (30.792268, 0.972886),
    "gopro-unrounded": (30.792268, 0.972886),
    "sidd-val": (30.792268, 0.972886),
    "mirnet-rgb3d": (30.792268, 0.972886),
    "sots-rgb": (30.792268, 0.957315),
    "dpdd-rgb": (30.792268, 0.958096),
    "realblur-rgb": (37.041969, 0.967533),
}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("border", [0, 2])
def test_against_the_independent_computation(name: str, border: int) -> None:
    a, b = scene()
    found = score(PROTOCOLS[name], a, b, border)
    assert found == pytest.approx(
        independent(name, a, b, border), abs=1e-5 if "blur" in name else 1e-9
    )
    if border == 2:
        assert tuple(round(value, 6) for value in found) == pytest.approx(STORED[name], abs=2e-6)


def test_the_forms_of_ssim_differ() -> None:
    a, b = scene()
    found = {name: ssim(a, b, dialect=name) for name in DIALECTS}
    values = sorted(found.values())
    assert min(y - x for x, y in zip(values, values[1:], strict=False)) > 1e-4, found


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "shape", [(11, 11, 3), (12, 300, 3), (75, 17, 3), (40, 33, 1), (23, 31, 2)]
)
def test_both_ways_to_compute_give_the_same_digits(
    dialect: Dialect, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled() is None:
        pytest.skip("no C++ compiler on this machine")
    rng = np.random.default_rng(7)
    ramp = np.linspace(0, 200, shape[1])[None, :, None]
    a, b = (np.clip(ramp + rng.normal(25, 9, shape), 0, 255) for _ in range(2))
    for dtype in (np.uint8, np.uint16, np.float32, np.float64):
        p, q = a.astype(dtype), b.astype(dtype)
        monkeypatch.undo()
        kernel = mean_similarity(p, q, 255.0, dialect)
        monkeypatch.setattr(similarity_module, "compiled", lambda: None)
        strips = mean_similarity(p, q, 255.0, dialect)
        assert kernel == pytest.approx(strips, abs=1e-12)
        assert strips == pytest.approx(
            float(similarity_map(p, q, 255.0, dialect).mean()), abs=1e-12
        )
        assert mean_similarity(p, p.copy(), 255.0, dialect) == 1.0
        monkeypatch.undo()
        assert mean_similarity(p, p.copy(), 255.0, dialect) == 1.0


def test_luma_on_the_way_is_the_luma_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels that read RGB against planes made first; views of odd strides, too."""
    a, b = scene(70, 83)
    rule = PROTOCOLS["sr-y"]
    planes = [luma(i, False)[..., 0] for i in (a, b)]
    expected = (
        float(peak_signal_noise_ratio(planes[1], planes[0], data_range=255)),
        ssim(*planes, data_range=255.0),
    )
    views = [
        (a, b),
        (a[:, ::-1][:, ::-1], b),
        (a[..., ::-1].copy()[..., ::-1], np.asfortranarray(b)),
    ]
    for p, q in views:
        assert score(rule, p, q, 0) == pytest.approx(expected, abs=1e-9)
    for name in ("restore.metrics.scores.compiled", "restore.metrics.similarity.compiled"):
        monkeypatch.setattr(name, lambda: None)
    assert score(rule, a, b, 0) == pytest.approx(expected, abs=1e-9)
    assert score(rule, a, a, 0) == (math.inf, 1.0)


@settings(max_examples=25)
@given(st.integers(11, 40), st.integers(11, 40), st.integers(0, 2**32 - 1))
def test_volume_of_any_size(height: int, width: int, seed: int) -> None:
    a, b = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3)).astype(np.uint8)
    assert ssim(a, b, dialect="volume3d") == pytest.approx(volume3d(a, b), abs=1e-10)
    gray = ssim(a[..., 0], b[..., 0], dialect="volume3d")  # one channel: the edge repeated, 2-D
    window = np.outer(gaussian(), gaussian())
    expected = map_of(a[..., 0], b[..., 0], lambda x: ndimage.correlate(x, window, mode="nearest"))
    assert gray == pytest.approx(float(expected.mean()), abs=1e-10)


def test_grls_rounded_window_moves_nothing() -> None:
    """GRL rounds the Gaussian to six decimals before it is normalised."""
    a, b = scene()
    line = np.round(np.exp(-(np.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2)), 6)
    window = np.outer(line / line.sum(), line / line.sum())[..., None]
    rounded = map_of(a, b, lambda x: ndimage.correlate(x, window, mode="constant")).mean()
    assert ssim(a, b, dialect="zeropad") == pytest.approx(float(rounded), abs=1e-6)


# What is not rounded, not of one size, not aligned ------------------------------------------------


def test_unrounded_pixels_count_as_they_are() -> None:
    _, b = scene()
    exact = b / 255.0 + 0.4 / 255
    exact[0, 0] = 7.0  # limited to the range
    target = b.copy()
    target[0, 0] = 255
    psnr, _ = score(PROTOCOLS["mirnet-rgb3d"], exact.astype(np.float32), target, 0)
    pixels = b[..., 0].size
    expected = 20 * math.log10(255 / 0.4) + 10 * math.log10(pixels / (pixels - 1))
    assert psnr == pytest.approx(expected, abs=1e-3)
    gray = exact[..., 0].astype(np.float32)
    copies = np.repeat(gray[..., None], 3, axis=2)
    rule = PROTOCOLS["sidd-val"]
    assert score(rule, gray, target[..., 0], 0) == score(
        rule, copies, np.stack([target[..., 0]] * 3, 2), 0
    )


def test_a_larger_target_is_cut_around_its_centre() -> None:
    a, b = scene()
    rule = PROTOCOLS["sots-rgb"]
    assert score(rule, a[3:-3, 5:-5], b, 0) == score(rule, a[3:-3, 5:-5], b[3:-3, 5:-5], 0)
    for cut in (a[:-1], a[:, 3:], np.pad(a, ((1, 1), (1, 1), (0, 0)))):
        with pytest.raises(DataError, match="DAT06"):
            score(rule, cut, b, 0)
    with pytest.raises(DataError, match="DAT06"):
        score(PROTOCOLS["gopro-rgb"], a[3:-3], b, 0)


def test_realblur_finds_gain_and_shift() -> None:
    """A darker and shifted copy scores far higher once it is aligned; the rim is masked out."""
    y, x = np.mgrid[0:90, 0:110].astype(np.float64)
    wave = np.sin(x / 6) * np.cos(y / 8) + np.sin((x + 2 * y) / 15)
    target = np.clip(np.rint(128 + 50 * np.repeat(wave[..., None], 3, axis=2)), 0, 255).astype(
        np.uint8
    )
    shifted = np.roll(target, (2, 3), axis=(0, 1))
    restored = np.rint(0.8 * shifted).astype(np.uint8)
    plain, _ = score(PROTOCOLS["rgb"], restored[5:-5, 5:-5], target[5:-5, 5:-5], 0)
    found, similar = score(PROTOCOLS["realblur-rgb"], restored[5:-5, 5:-5], target[5:-5, 5:-5], 0)
    assert plain < 25 < 40 < found and similar > 0.99
    moved, seen, mask = aligned(
        *(i[5:-5, 5:-5].astype(np.float32) / 255 for i in (restored, target))
    )
    assert (
        set(np.unique(mask)) == {0.0, 1.0}
        and not seen[mask == 0].any()
        and not moved[mask == 0].any()
    )
    assert 0.9 < mask.mean() < 1


def test_realblur_refuses_what_it_cannot_align() -> None:
    rule = PROTOCOLS["realblur-rgb"]
    flat, noise = np.zeros((40, 40, 3), np.uint8), scene(40, 40)[0]
    for pair, code in (
        ((flat, noise), "DAT30"),
        ((noise, noise[1:]), "DAT06"),
        ((noise[:9], noise[:9]), "DAT12"),
    ):
        with pytest.raises(DataError, match=code):
            score(rule, *pair, 0)
    with pytest.raises(DataError, match="DAT14"):
        score(rule, noise, noise, 20)
