"""Floor 3. The classical super-resolution input: MATLAB's bicubic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from restore.ops.resize import imresize


@dataclass(frozen=True)
class BicubicDown:
    """GT cut to a multiple of the scale -> LQ of 1/scale; draws nothing from the generator."""

    scale: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`image: (H, W[, C])` uint8/uint16 -> `(H/scale, W/scale[, C])` of the same type."""
        return imresize(image, 1 / self.scale)
