"""Floor 3. PSNR and SSIM of two images."""

from __future__ import annotations

import math

import cv2
import numpy as np

from restore.errors import DataError
from restore.metrics.protocols import Dialect
from restore.metrics.similarity import DIALECTS, mean_similarity


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
    restored: np.ndarray,
    target: np.ndarray,
    *,
    data_range: float | None = None,
    border: int = 0,
    dialect: Dialect = "valid2d",
) -> float:
    """Structural similarity of two images, mean over pixels and channels; 1.0 when equal.

    `dialect`: see `restore.metrics.similarity`. The default is the form of Wang et al. (2004) as
    BasicSR and MATLAB's ssim_index compute it: 11×11 Gaussian window, σ 1.5, population covariance,
    windows that lie wholly inside the image.
    Parameters and errors as for `psnr`; also raises DataError where no window fits in.
    """
    a, b, peak = _comparable(restored, target, data_range, border)
    check_windows(a.shape, dialect)
    return mean_similarity(a, b, peak, dialect)


def check_windows(shape: tuple[int, ...], dialect: Dialect) -> None:
    """Raises DataError for an image, its border left out, in which no window of `dialect` fits."""
    window = DIALECTS[dialect]
    least = 1 if window.around != "nothing" else len(window.taps)
    if min(shape[:2]) < least:
        raise DataError.of(
            "DAT12",
            "image too small for SSIM",
            "score",
            f"{shape[1]}×{shape[0]} after the border",
            f"sides of at least {least}",
            "use a larger image or a smaller border",
        )


def check_shapes(a: np.ndarray, b: np.ndarray) -> None:
    """Raises DataError for two arrays that are not two images of one shape."""
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise DataError.of(
            "DAT06",
            "images to compare differ in shape",
            "score",
            f"{a.shape} and {b.shape}",
            "two images (H, W) or (H, W, C) of one shape",
            "crop or resize one of them",
        )


def check_border(shape: tuple[int, ...], border: int) -> None:
    """Raises DataError for a border that leaves nothing of an image."""
    if border < 0 or 2 * border >= min(shape[:2]):
        raise DataError.of(
            "DAT14",
            "the border leaves no pixel" if border > 0 else "the border is not possible",
            "score",
            f"border {border} of {shape[1]}×{shape[0]}",
            "a border ≥ 0 and below half of each side",
            "use another border",
        )


def shaved(image: np.ndarray, border: int) -> np.ndarray:
    """`image` without `border` pixels on every side. Raises DataError where nothing is left."""
    check_border(image.shape, border)
    inside = slice(border, -border or None)
    return image[inside, inside]


def _clamped(image: np.ndarray, peak: float) -> np.ndarray:
    values = np.ascontiguousarray(image, dtype=np.float64)
    inside = image.dtype.kind == "u" and np.iinfo(image.dtype).max <= peak
    return values if inside else np.clip(values, 0, peak)


def _comparable(
    restored: np.ndarray, target: np.ndarray, data_range: float | None, border: int
) -> tuple[np.ndarray, np.ndarray, float]:
    a, b = np.asarray(restored), np.asarray(target)
    check_shapes(a, b)
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
    return shaved(a, border), shaved(b, border), data_range
