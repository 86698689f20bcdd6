"""Floor 3. The noise of a camera: made on the raw mosaic, then developed with the image.

The stored image is taken back to raw light (inverse tone curve, gamma and white balance), each
Bayer site gets Gaussian noise of variance a·x + b (x the raw value: photons and read-out), the
noise is demosaicked bilinearly and developed, and its colour is smoothed as cameras do. The image
itself is not demosaicked, so without noise it comes back as it was. After "Unprocessing Images for
Learned Raw Denoising" (Brooks et al., CVPR 2019), but noisier: SIDD's phones, not DND's cameras.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

GAMMA = 2.2
READ_SLOPE, READ_OFFSET = 2.18, 1.20  # mean of ln b over ln a
EXPOSURE, EXPOSURE_SPREAD = 0.8, 0.1  # raw white over full scale
GREEN_KERNEL = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
COLOUR_KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4


@dataclass(frozen=True)
class SensorNoise:
    """Ranges to draw each image's camera and light from; see the options of the same names."""

    shot: tuple[float, float] = (0.006, 0.03)
    read_spread: float = 0.26
    red_gain: tuple[float, float] = (1.9, 2.4)
    blue_gain: tuple[float, float] = (1.5, 1.9)
    chroma_sigma: float = 1.5

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`image: (H, W[, 3])` uint8/uint16 -> the same with noise; gray is taken as RGB of three
        equal channels, and its green is what comes back."""
        peak = int(np.iinfo(image.dtype).max)
        stored = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        log_shot = rng.uniform(math.log(self.shot[0]), math.log(self.shot[1]))
        read = math.exp(rng.normal(READ_SLOPE * log_shot + READ_OFFSET, self.read_spread))
        white = float(np.clip(rng.normal(EXPOSURE, EXPOSURE_SPREAD), 0.4, 1.0))
        gains = np.array([rng.uniform(*self.red_gain), 1.0, rng.uniform(*self.blue_gain)])
        gains = (gains / white).astype(np.float32)

        levels = _light(np.linspace(0.0, 1.0, peak + 1)).astype(np.float32)
        raw = np.take(levels, stored) / gains
        sites = _mosaic(raw)
        noise = rng.standard_normal(sites.shape, dtype=np.float32)
        noise *= np.sqrt(math.exp(log_shot) * sites + read)
        raw += _demosaic(noise)
        raw *= gains
        seen = _stored(raw) - stored * np.float32(1 / peak)
        seen = _calm_colour(seen, self.chroma_sigma) * np.float32(peak) + stored
        noisy = np.clip(np.rint(seen), 0, peak).astype(image.dtype)
        return noisy if image.ndim == 3 else np.ascontiguousarray(noisy[..., 1])


def _light(stored: np.ndarray) -> np.ndarray:
    """Stored values in [0, 1] -> linear light: inverse of `_stored`."""
    return (0.5 - np.sin(np.arcsin(1 - 2 * stored) / 3)) ** GAMMA


def _stored(light: np.ndarray) -> np.ndarray:
    """Linear light -> stored values in [0, 1]: gamma, then the tone curve 3x² - 2x³."""
    x = np.clip(light, 0.0, 1.0) ** np.float32(1 / GAMMA)
    return x * x * (3 - 2 * x)


def _mosaic(raw: np.ndarray) -> np.ndarray:
    """`(H, W)`: of each pixel the channel that an RGGB sensor has there."""
    sites = raw[..., 1].copy()
    sites[::2, ::2] = raw[::2, ::2, 0]
    sites[1::2, 1::2] = raw[1::2, 1::2, 2]
    return sites


def _demosaic(sites: np.ndarray) -> np.ndarray:
    """An RGGB mosaic `(H, W)` -> `(H, W, 3)`, bilinear; mirrored so that the pattern goes on."""
    red, green, blue = np.zeros_like(sites), sites.copy(), np.zeros_like(sites)
    red[::2, ::2] = sites[::2, ::2]
    blue[1::2, 1::2] = sites[1::2, 1::2]
    green[::2, ::2] = green[1::2, 1::2] = 0
    planes = ((red, COLOUR_KERNEL), (green, GREEN_KERNEL), (blue, COLOUR_KERNEL))
    return np.dstack(
        [cv2.filter2D(p, -1, kernel, borderType=cv2.BORDER_REFLECT_101) for p, kernel in planes]
    )


def _calm_colour(noise: np.ndarray, sigma: float) -> np.ndarray:
    """The noise with its colour (what differs from the channels' mean) smoothed."""
    if not sigma:
        return noise
    gray = noise.mean(axis=2, keepdims=True)
    return gray + cv2.GaussianBlur(noise - gray, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
