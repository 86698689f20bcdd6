"""Floor 3. RealBlur's scores: the restored image is brought over the target before they are
compared, since its camera pairs are neither equally bright nor aligned to the pixel.

Source: the data set's published evaluation script (Rim et al., ECCV 2020). Its steps: one gain for
all pixels, a homography by ECC maximisation, and sums over the pixels that both images reach.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from restore.errors import DataError
from restore.metrics.psnr_ssim import check_shapes, check_windows, shaved
from restore.metrics.similarity import DIALECTS, similarity_map

ITERATIONS, BLUR = 100, 5
RIM = DIALECTS["valid2d"].radius  # the map of similarity is smaller by it on every side


def score(restored: np.ndarray, target: np.ndarray, border: int) -> tuple[float, float]:
    """(PSNR in dB, SSIM) of two uint8 or uint16 RGB images where both reach after alignment.

    Raises DataError for images that differ in size, are too small or cannot be aligned.
    """
    check_shapes(restored, target)
    restored, target = shaved(restored, border), shaved(target, border)
    check_windows(target.shape, "valid2d")
    moved, seen, mask = aligned(_unit(restored), _unit(target))
    squares = float(np.square(seen - moved).sum(dtype=np.float64)) / float(mask.sum())
    similar = similarity_map(moved, seen, 1.0, "valid2d")
    counted = mask[RIM:-RIM, RIM:-RIM].astype(np.float64)
    per_channel = (similar * counted).sum(axis=(0, 1)) / counted.sum(axis=(0, 1))
    return math.inf if squares == 0 else -10 * math.log10(squares), float(per_channel.mean())


def aligned(restored: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(restored as it lies over the target, the target, the mask of what both reach).

    All `(H, W, 3)` float32, the images in [0, 1] and zero outside the mask of zeros and ones.
    Raises DataError where the alignment does not converge.
    """
    energy = float((restored * restored).sum(dtype=np.float64))
    gain = float((target * restored).sum(dtype=np.float64)) / energy if energy else 1.0
    bright = np.float32(gain) * restored
    start = np.eye(3, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, 0)
    gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (target, bright)]
    try:
        everywhere = np.full(target.shape[:2], 255, np.uint8)
        _, warp = cv2.findTransformECC(
            gray[0], gray[1], start, cv2.MOTION_HOMOGRAPHY, stop, everywhere, BLUR
        )
    except cv2.error:
        raise DataError.of(
            "DAT30",
            "images cannot be aligned",
            "score",
            "an alignment that does not converge",
            "two views of one scene",
            "check the pair, or choose another protocol",
        ) from None
    size = (target.shape[1], target.shape[0])
    moved = cv2.warpPerspective(
        bright,
        warp,
        size,
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    mask = cv2.warpPerspective(
        np.ones_like(bright), warp, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    return moved * mask, target * mask, mask


def _unit(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image).astype(np.float32) / float(np.iinfo(image.dtype).max)
