"""Floor 3. A scoring rule applied to two images."""

from __future__ import annotations

import math
from ctypes import c_long, c_void_p

import numpy as np

from restore.errors import DataError
from restore.images import as_rgb, luma
from restore.metrics import realblur
from restore.metrics.protocols import ScoringRule
from restore.metrics.psnr_ssim import check_windows, psnr, shaved, ssim
from restore.metrics.similarity import compiled, mean_similarity
from restore.ops.resize import imresize

STRIP = 32
LUMA, LUMA_SCALE = (65481.0, 128553.0, 24966.0), 255_000.0  # BT.601 weights in integers


def score(
    rule: ScoringRule, restored: np.ndarray, target: np.ndarray, border: int
) -> tuple[float, float]:
    """(PSNR in dB, SSIM) of two images under `rule`, `border` pixels shaved.

    uint8 or uint16, or floating point in [0, 1] where the rule takes pixels that are not rounded.
    Raises DataError for images that cannot be compared.
    """
    if rule.align == "centre-crop":
        target = _centre(target, restored.shape[:2])
    if rule.align == "realblur":
        return realblur.score(as_rgb(restored), as_rgb(target), border)
    if _luma_of_bytes(rule, restored, target):
        return _score_luma(rule, restored, target, border)
    return _score_planes(rule, plane(rule, restored, restored=True), plane(rule, target), border)


def _score_planes(
    rule: ScoringRule, a: np.ndarray, b: np.ndarray, border: int
) -> tuple[float, float]:
    return (
        psnr(a, b, data_range=255.0, border=border),
        ssim(a, b, data_range=255.0, border=border, dialect=rule.ssim),
    )


def _luma_of_bytes(rule: ScoringRule, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the kernels can take luma on the way, so that no plane need be made."""
    plain = rule.colour == "y" and not rule.round_luma and rule.ssim == "valid2d"
    return plain and a.dtype == b.dtype == np.uint8 and a.shape == b.shape and a.ndim == 3


def _score_luma(
    rule: ScoringRule, a: np.ndarray, b: np.ndarray, border: int
) -> tuple[float, float]:
    a, b = shaved(a, border), shaved(b, border)
    check_windows(a.shape, rule.ssim)
    return luma_psnr(a, b), mean_similarity(a, b, 255.0, rule.ssim, luma=True)


def luma_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB of the unrounded luma of two uint8 RGB images of one shape; `inf` when equal."""
    mean_square = _luma_squares(a, b) / (a.shape[0] * a.shape[1])
    return math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square)


def _luma_squares(a: np.ndarray, b: np.ndarray) -> float:
    """The sum of squared differences of the luma of two uint8 RGB images."""
    library = compiled()
    if library is None or a.strides[1:] != (3, 1) or b.strides[1:] != (3, 1):
        total = 0.0
        for top in range(0, len(a), STRIP):
            part = slice(top, top + STRIP)
            steps = np.subtract(a[part], b[part], dtype=np.int16)
            total += float(np.square(steps @ np.array(LUMA)).sum())
        return total / LUMA_SCALE**2
    squares = library.luma_squares(
        c_void_p(a.ctypes.data),
        c_void_p(b.ctypes.data),
        (c_long * 2)(a.strides[0], b.strides[0]),
        c_long(a.shape[0]),
        c_long(a.shape[1]),
    )
    return squares / LUMA_SCALE**2


def _centre(target: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The middle of a target that is larger by the same even number of pixels at both ends."""
    over = [t - s for t, s in zip(target.shape[:2], shape, strict=True)]
    if any(side < 0 or side % 2 for side in over):
        return target  # refused as different in shape
    y, x = (side // 2 for side in over)
    return target[y : y + shape[0], x : x + shape[1]]


def plane(rule: ScoringRule, image: np.ndarray, *, restored: bool = False) -> np.ndarray:
    """What `rule` compares of an image: uint8 RGB as it is, else float64 on the 0..255 range."""
    if image.dtype.kind == "f":
        image = np.clip(image.astype(np.float64), 0, 1) * 255
        assert rule.colour == "rgb", "rules of luma take stored images"
        return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
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
    return _score_planes(rule, np.rint(np.clip(up, 16, 235)), y, border)


def bicubic(lq: np.ndarray, scale: int) -> np.ndarray:
    """The input at the target's size: MATLAB bicubic, or the input itself at scale 1."""
    return imresize(lq, scale) if scale > 1 else lq
