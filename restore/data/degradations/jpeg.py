"""Floor 3. JPEG compression: what comes back from a baseline JPEG file of the image.

The tables of artefact removal encode with libjpeg's scaling of the standard quantisation tables
(quality 10, 20, 30, 40). Colour is stored as Y and two chroma planes of half the width and height
(4:2:0): OpenCV's default, asked for by name here, so that a changed default changes no data. Gray
has one plane and no chroma.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from restore.image_flaws import flaw


@dataclass(frozen=True)
class Jpeg:
    """Compression of one quality, or of one drawn from [low, high] for each image; 1..100."""

    quality: int | tuple[int, int]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`image: (H, W[, 3])` uint8 -> the same, compressed; uint16 is taken to 8 bits and back,
        as the format has no more. Draws nothing for a single quality. Raises DataError IMG13."""
        quality = self.quality
        if isinstance(quality, tuple):
            quality = int(rng.integers(quality[0], quality[1], endpoint=True))
        if image.dtype == np.uint8:
            return compressed(image, quality)
        eight = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return compressed(eight, quality).astype(np.uint16) * 257


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """uint8 `(H, W[, 3])` RGB or gray, stored as JPEG and read again."""
    settings = (
        cv2.IMWRITE_JPEG_QUALITY, quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        cv2.IMWRITE_JPEG_PROGRESSIVE, 0,
    )  # fmt: skip
    gray = image.ndim == 2
    stored = image if gray else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    try:
        done, data = cv2.imencode(".jpg", np.ascontiguousarray(stored), settings)
    except cv2.error:
        done, data = False, np.empty(0, np.uint8)
    if not done:
        size = f"{image.shape[1]}x{image.shape[0]} pixels"
        raise flaw("IMG13", "degradation JPEG", size, "a size that JPEG can hold")
    read = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR_RGB)
    assert read is not None, "OpenCV cannot read what it wrote"
    return read
