"""Floor 3. White Gaussian noise, as the denoising tables use it, on stored integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GaussianNoise:
    """Noise of one sigma, or of one drawn from [low, high] for each image; 0..255 units.

    The result is clipped and rounded, as files are. Papers add unclipped floats: on natural images
    the clipped input is better by about 0.2 dB at sigma 15, 0.4 at 25 and 0.8 at 50 (20.18 dB
    becomes 20.54 on CBSD68 at 25), so compare only under one of the two.
    """

    sigma: float | tuple[float, float]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`image: (H, W[, 3])` uint8/uint16 -> the same with noise."""
        low, high = self.sigma if isinstance(self.sigma, tuple) else (self.sigma, self.sigma)
        peak = int(np.iinfo(image.dtype).max)
        deviation = rng.uniform(low, high) * peak / 255
        noisy = rng.standard_normal(image.shape, dtype=np.float32)
        noisy *= np.float32(deviation)
        noisy += image
        return np.clip(np.rint(noisy, out=noisy), 0, peak, out=noisy).astype(image.dtype)
