"""Floor 3. PSNR and SSIM of two images, and a scoring rule applied to them."""

from __future__ import annotations

import math

import cv2
import numpy as np

from restore.errors import DataError
from restore.images import as_rgb, luma
from restore.metrics.protocols import ScoringRule
from restore.ops.resize import imresize

WINDOW, SIGMA = 11, 1.5


def psnr(
    restored: np.ndarray, target: np.ndarray, *, data_range: float | None = None, border: int = 0
) -> float:
    """Peak signal-to-noise ratio in dB of two `(H, W)` or `(H, W, C)` images; `inf` when equal.

    `data_range`: the peak, and the range that both are clamped to first. Integer images declare it
    by their type (255, 65535); floating-point ones must be given it. `border`: pixels left out on
    every side. Raises DataError when the shapes differ or the range is not declared.
    """
    a, b, peak = _comparable(restored, target, data_range, border)
    if a.dtype == b.dtype == np.uint8 and peak >= 255:
        squares = round(cv2.norm(a, b, cv2.NORM_L2SQR))  # a sum of integers, a last bit off
    else:
        squares = float(np.square(_clamped(a, peak) - _clamped(b, peak)).sum())
    return math.inf if squares == 0 else 10 * math.log10(peak * peak * a.size / squares)


def ssim(
    restored: np.ndarray, target: np.ndarray, *, data_range: float | None = None, border: int = 0
) -> float:
    """Structural similarity of two images, mean over pixels and channels; 1.0 when equal.

    The form of Wang et al. (2004) as BasicSR and MATLAB's ssim_index compute it: 11×11 Gaussian
    window, σ 1.5, population covariance, windows that lie wholly inside the image.
    Parameters and errors as for `psnr`; also raises DataError for sides below 11 pixels.
    """
    a, b, peak = _comparable(restored, target, data_range, border)
    if min(a.shape[:2]) < WINDOW:
        raise DataError.of(
            "DAT12",
            "image too small for SSIM",
            "score",
            f"{a.shape[1]}×{a.shape[0]} after the border",
            f"sides of at least {WINDOW}",
            "use a larger image or a smaller border",
        )
    a, b = _clamped(a, peak), _clamped(b, peak)
    if a.ndim == 2:
        return _ssim_plane(a, b, peak)
    planes = [_ssim_plane(a[..., c], b[..., c], peak) for c in range(a.shape[2])]
    return sum(planes) / len(planes)


def _ssim_plane(a: np.ndarray, b: np.ndarray, peak: float) -> float:
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_a, mean_b = _windowed(a), _windowed(b)
    product = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    covariance = _windowed(a * b) - product
    variances = _windowed(a * a + b * b) - squares  # only their sum is needed
    similar = (2 * product + c1) * (2 * covariance + c2)
    return float((similar / ((squares + c1) * (variances + c2))).mean())


_KERNEL = cv2.getGaussianKernel(WINDOW, SIGMA, cv2.CV_64F)


def _windowed(plane: np.ndarray) -> np.ndarray:
    """Gaussian mean of every window that lies inside `plane`."""
    half = WINDOW // 2
    return cv2.sepFilter2D(plane, cv2.CV_64F, _KERNEL, _KERNEL)[half:-half, half:-half]


def _clamped(image: np.ndarray, peak: float) -> np.ndarray:
    values = np.ascontiguousarray(image, dtype=np.float64)
    inside = image.dtype.kind == "u" and np.iinfo(image.dtype).max <= peak
    return values if inside else np.clip(values, 0, peak)


def _comparable(
    restored: np.ndarray, target: np.ndarray, data_range: float | None, border: int
) -> tuple[np.ndarray, np.ndarray, float]:
    a, b = np.asarray(restored), np.asarray(target)
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise DataError.of(
            "DAT06",
            "images to compare differ in shape",
            "score",
            f"{a.shape} and {b.shape}",
            "two images (H, W) or (H, W, C) of one shape",
            "crop or resize one of them",
        )
    if data_range is None:
        if a.dtype != b.dtype or a.dtype not in (np.uint8, np.uint16):
            raise DataError.of(
                "DAT13",
                "the data range is not declared",
                "score",
                f"{a.dtype} and {b.dtype}",
                "uint8 or uint16 images, or data_range",
                "pass data_range=1.0 or 255.0",
            )
        data_range = float(np.iinfo(a.dtype).max)
    if not 0 < data_range < math.inf:
        raise DataError.of(
            "DAT13",
            "the data range is not positive",
            "score",
            str(data_range),
            "a positive finite number",
            "pass data_range=1.0 or 255.0",
        )
    if border < 0 or 2 * border >= min(a.shape[:2]):
        raise DataError.of(
            "DAT14",
            "the border leaves no pixel" if border > 0 else "the border is not possible",
            "score",
            f"border {border} of {a.shape[1]}×{a.shape[0]}",
            "a border ≥ 0 and below half of each side",
            "use another border",
        )
    inside = slice(border, -border or None)
    return a[inside, inside], b[inside, inside], data_range


def score(
    rule: ScoringRule, restored: np.ndarray, target: np.ndarray, border: int
) -> tuple[float, float]:
    """(PSNR in dB, SSIM) of two uint8 or uint16 images under `rule`, `border` pixels shaved."""
    return _score_planes(plane(rule, restored, restored=True), plane(rule, target), border)


def _score_planes(a: np.ndarray, b: np.ndarray, border: int) -> tuple[float, float]:
    return psnr(a, b, data_range=255.0, border=border), ssim(a, b, data_range=255.0, border=border)


def plane(rule: ScoringRule, image: np.ndarray, *, restored: bool = False) -> np.ndarray:
    """What `rule` compares of an image: uint8 RGB as it is, else float64 on the 0..255 range."""
    if rule.colour == "rgb":
        rgb = as_rgb(image)
        return rgb if rgb.dtype == np.uint8 else rgb / 257.0
    if image.ndim == 2 and rule.gray == "as-is":
        y = image.astype(np.float64) / (257.0 if image.dtype == np.uint16 else 1.0)
    else:
        y = luma(as_rgb(image))
    if rule.clip_luma and restored:
        y = np.clip(y, 16, 235)
    return np.rint(y) if rule.round_luma else y


def score_bicubic(
    rule: ScoringRule, target: np.ndarray, scale: int, border: int
) -> tuple[float, float]:
    """(PSNR, SSIM) of the target shrunk and enlarged by MATLAB's bicubic: no network at all.

    The target is cut to multiples of `scale` first. Under a rule that keeps luma apart (`vdsr-y`)
    the luma plane itself is resized, in floating point, as the papers behind that rule do.
    """
    height, width = (side - side % scale for side in target.shape[:2])
    if not height or not width:
        raise DataError.of(
            "DAT12",
            "image too small to be shrunk",
            "score",
            f"{target.shape[1]}×{target.shape[0]}",
            f"sides of at least {scale}",
            "use a larger image",
        )
    target = target[:height, :width]
    if not rule.clip_luma:
        return score(rule, bicubic(imresize(target, 1 / scale), scale), target, border)
    y = plane(rule, target)
    up = imresize(imresize(y, 1 / scale), float(scale))
    return _score_planes(np.rint(np.clip(up, 16, 235)), y, border)


def bicubic(lq: np.ndarray, scale: int) -> np.ndarray:
    """The input at the target's size: MATLAB bicubic, or the input itself at scale 1."""
    return imresize(lq, scale) if scale > 1 else lq
