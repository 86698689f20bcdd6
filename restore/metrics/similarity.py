"""Floor 3. Structural similarity (Wang et al., 2004) in the dialects that papers print.

A dialect is a window, what surrounds the image, whether windows reach over the colour channels,
and which covariance is taken. All are computed in float64, by the compiled kernel of `kernels/` or,
where there is no compiler, strip by strip with OpenCV: the same digits to 1e-9.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from ctypes import c_double, c_int, c_long, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from restore.metrics.protocols import Dialect
from restore.ops import native

SOURCES = Path(__file__).parent / "kernels"
STRIP = 64  # rows of a strip: its temporaries stay in the cache
_KINDS = {np.dtype(t): n for n, t in enumerate((np.uint8, np.uint16, np.float32, np.float64))}


@dataclass(frozen=True, eq=False)
class Window:
    """What one SSIM value looks at."""

    taps: np.ndarray
    """The window is their outer product; an odd number of them, sum 1, symmetric."""
    around: Literal["nothing", "zeros", "edge"]
    """Windows stay inside the image, or look at zeros or the nearest pixel beyond it."""
    volume: bool = False
    """The window goes over the channels, too, with the same taps and the nearest channel."""
    unbias: float = 1.0
    """Of the covariance: N / (N - 1) for the sample's, 1 for the population's."""

    @property
    def radius(self) -> int:
        """Pixels from the window's centre to its rim."""
        return len(self.taps) // 2

    def mix(self, channels: int) -> np.ndarray | None:
        """`(channels, channels)` weights of a window over the channels; None where there is none.

        Row c: what each channel gives to the window centred on c, channels beyond the last one
        counted as the nearest.
        """
        if not self.volume or channels == 1:
            return None
        weights = np.zeros((channels, channels))
        for centre in range(channels):
            for k, tap in enumerate(self.taps):
                weights[centre, min(max(centre + k - self.radius, 0), channels - 1)] += tap
        return weights


_GAUSSIAN = cv2.getGaussianKernel(11, 1.5, cv2.CV_64F)[:, 0].copy()
DIALECTS: dict[Dialect, Window] = {
    # MATLAB's ssim_index and BasicSR
    "valid2d": Window(_GAUSSIAN, "nothing"),
    # MATLAB's ssim of an H×W×3 array, and NAFNet's; of one channel the plane with its edge repeated
    "volume3d": Window(_GAUSSIAN, "edge", volume=True),
    # the torch form with padded convolutions: GRL, FFA-Net
    "zeropad": Window(_GAUSSIAN, "zeros"),
    # scikit-image's structural_similarity as it comes
    "skimage7": Window(np.full(7, 1 / 7), "nothing", unbias=49 / 48),
}


@cache
def compiled() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be built, which is said once."""
    try:
        library = native.library("metrics", SOURCES)
    except native.BuildError as error:
        logging.getLogger("restore").info("metrics without compiled kernels, slower: %s", error)
        return None
    for name in ("ssim_sum", "luma_squares"):
        getattr(library, name).restype = c_double
    return library


def mean_similarity(
    a: np.ndarray, b: np.ndarray, peak: float, dialect: Dialect, *, luma: bool = False
) -> float:
    """Mean of the similarity map of two images of one shape `(H, W)` or `(H, W, C)`.

    Values are limited to 0..`peak` first. `luma`: the BT.601 luma of `(H, W, 3)` uint8 or uint16
    images is compared, and `peak` is 255. Sides are at least the window's unless it looks beyond.
    """
    window = DIALECTS[dialect]
    if luma or a.dtype != b.dtype or a.dtype not in _KINDS:
        dtype = a.dtype if luma else np.dtype(np.float64)
        a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
    a, b = (_surrounded(_with_channels(image), window) for image in (a, b))
    library = compiled()
    if library is None:
        total, count = 0.0, 0
        for values in _maps(a, b, peak, window, luma):
            total, count = total + float(values.sum()), count + values.size
        return total / count
    radius = window.radius
    places = (a.shape[0] - 2 * radius) * (a.shape[1] - 2 * radius) * (1 if luma else a.shape[2])
    return _compiled_sum(library, a, b, peak, window, luma) / places


def similarity_map(a: np.ndarray, b: np.ndarray, peak: float, dialect: Dialect) -> np.ndarray:
    """The float64 map behind `mean_similarity`, `(H', W', C)`: H' = H - 10 for `valid2d`."""
    window = DIALECTS[dialect]
    a, b = (_surrounded(_with_channels(image), window) for image in (a, b))
    return np.concatenate(list(_maps(a, b, peak, window, luma=False)))


def _with_channels(image: np.ndarray) -> np.ndarray:
    return image[..., None] if image.ndim == 2 else image


def _surrounded(image: np.ndarray, window: Window) -> np.ndarray:
    """The image with what its outermost windows see, so that all windows lie inside."""
    if window.around == "nothing":
        return image
    sides = ((window.radius,) * 2, (window.radius,) * 2, (0, 0))
    return np.pad(image, sides, mode="constant" if window.around == "zeros" else "edge")


def _compiled_sum(
    library: ctypes.CDLL, a: np.ndarray, b: np.ndarray, peak: float, window: Window, luma: bool
) -> float:
    mix = window.mix(a.shape[2])
    strides = [_longs(*(step // image.itemsize for step in image.strides)) for image in (a, b)]
    return library.ssim_sum(
        c_void_p(a.ctypes.data),
        c_void_p(b.ctypes.data),
        *strides,
        _longs(*a.shape),
        c_int(_KINDS[a.dtype]),
        c_double(peak),
        c_int(luma),
        c_void_p(window.taps.ctypes.data),
        c_int(window.radius),
        c_double(window.unbias),
        c_void_p(None if mix is None else mix.ctypes.data),
    )


def _longs(*values: int) -> ctypes.Array[c_long]:
    return (c_long * len(values))(*values)


def _maps(
    a: np.ndarray, b: np.ndarray, peak: float, window: Window, luma: bool
) -> Iterator[np.ndarray]:
    """The map in strips of rows, each float64 `(rows, W', C)`."""
    rows = a.shape[0] - 2 * window.radius
    for top in range(0, rows, STRIP):
        part = slice(top, min(top + STRIP, rows) + 2 * window.radius)
        yield _map(_values(a[part], peak, luma), _values(b[part], peak, luma), peak, window)


def _values(image: np.ndarray, peak: float, luma: bool) -> np.ndarray:
    if luma:
        top = float(np.iinfo(image.dtype).max)
        red, green, blue = image[..., 0], image[..., 1], image[..., 2]
        return ((65.481 * red + 128.553 * green + 24.966 * blue) / top + 16.0)[..., None]
    return np.clip(image.astype(np.float64), 0, peak)


def _map(a: np.ndarray, b: np.ndarray, peak: float, window: Window) -> np.ndarray:
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_a, mean_b = _means(a, window), _means(b, window)
    product = mean_a * mean_b
    squares = mean_a * mean_a + mean_b * mean_b
    covariance = window.unbias * (_means(a * b, window) - product)
    variances = window.unbias * (_means(a * a + b * b, window) - squares)  # only their sum counts
    similar = (2 * product + c1) * (2 * covariance + c2)
    return similar / ((squares + c1) * (variances + c2))


def _means(values: np.ndarray, window: Window) -> np.ndarray:
    """Weighted mean of every window that lies inside `values`."""
    inside = slice(window.radius, -window.radius)
    planes = [
        cv2.sepFilter2D(np.ascontiguousarray(values[..., c]), cv2.CV_64F, window.taps, window.taps)
        for c in range(values.shape[2])
    ]
    means = np.stack([plane[inside, inside] for plane in planes], axis=2)
    mix = window.mix(values.shape[2])
    return means if mix is None else means @ mix.T
