"""Floor 2. MATLAB's `imresize(…, 'bicubic')`, to the last bit, without MATLAB.

A resize is two banded sparse matrices, one per axis: the Keys cubic (a = -0.5), widened by 1/scale
when shrinking (antialiasing), rows normalised, taps beyond the border mirrored. For integer images
MATLAB rounds and saturates after each of the two passes, which is what makes the official
LR_bicubic files of DIV2K and Set5 reproducible to the byte.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from scipy import sparse

Edge = Literal["mirror", "clamp"]
Scale = float | int | Fraction


def imresize(
    image: np.ndarray,
    scale: Scale | None = None,
    *,
    size: tuple[int, int] | None = None,
    round_between_passes: bool = True,
    edge: Edge = "mirror",
) -> np.ndarray:
    """`image` `(H, W)` or `(H, W, C)` resized as MATLAB's `imresize` does it.

    `scale` gives `ceil(H·scale) × ceil(W·scale)`; `size=(height, width)` names the result instead.
    uint8 and uint16 images keep their type and are rounded and saturated after the vertical and
    after the horizontal pass (`round_between_passes=False`: once at the end, as some older tools
    do); floating-point images keep their type and are not rounded. float32 is computed in float32,
    all else in float64. `edge="clamp"` repeats the border pixel, as MATLAB did up to 2014.
    Source: MATLAB's documented behaviour; verified against the official LR files of Set5.
    Raises ValueError for shapes, types or sizes that make no sense.
    """
    if image.ndim not in (2, 3) or not image.size:
        raise ValueError(f"imresize takes (H, W) or (H, W, C), got shape {image.shape}")
    if image.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        raise ValueError(f"imresize takes uint8, uint16, float32 or float64, got {image.dtype}")
    height, width = image.shape[:2]
    (out_height, y_scale), (out_width, x_scale) = _targets(height, width, scale, size)
    work = np.float32 if image.dtype == np.float32 else np.float64
    passes = [(0, height, out_height, y_scale), (1, width, out_width, x_scale)]
    passes.sort(key=lambda p: p[3])  # MATLAB shrinks the more shrunk axis first; vertical on a tie
    result = image
    for number, (axis, side, out_side, axis_scale) in enumerate(passes):
        weights = _weights(side, out_side, axis_scale, edge, np.dtype(work).char)
        result = _along(axis, weights, result.astype(work, copy=False))
        if image.dtype.kind == "u" and (round_between_passes or number == 1):
            result = _saturate(result, image.dtype)
    return result


def _targets(
    height: int, width: int, scale: Scale | None, size: tuple[int, int] | None
) -> tuple[tuple[int, Fraction], tuple[int, Fraction]]:
    """Per axis: output side and exact scale."""
    if (scale is None) == (size is None):
        raise ValueError("imresize takes either a scale or a size")
    if size is not None:
        if min(size) < 1:
            raise ValueError(f"imresize: size {size} is not positive")
        return (size[0], Fraction(size[0], height)), (size[1], Fraction(size[1], width))
    exact = exact_scale(scale if scale is not None else 1)
    return (math.ceil(height * exact), exact), (math.ceil(width * exact), exact)


def exact_scale(scale: Scale | str) -> Fraction:
    """A scale as a fraction: `1/3`, `"1/3"`, `0.3333333333333333` and 4 mean what they look like.

    Raises ValueError for anything that is not a positive finite number.
    """
    try:
        exact = Fraction(scale)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"not a scale: {scale!r}") from error
    if exact <= 0:
        raise ValueError(f"a scale is positive, got {scale!r}")
    simple = exact.limit_denominator(1000)
    return simple if abs(float(simple) - float(exact)) <= 1e-12 * float(exact) else exact


@lru_cache(maxsize=64)
def _weights(side: int, out_side: int, scale: Fraction, edge: Edge, char: str) -> Any:
    """The sparse `(out_side, side)` matrix of one axis."""
    factor = float(scale)
    shrink = min(factor, 1.0)
    taps = math.ceil(4 / shrink) + 2
    centre = (np.arange(1, out_side + 1) / factor) + 0.5 * (1 - 1 / factor)  # MATLAB counts from 1
    first = np.floor(centre - 2 / shrink)
    index = first[:, None] + np.arange(taps)
    value = shrink * _cubic(shrink * (centre[:, None] - index))
    value /= value.sum(axis=1, keepdims=True)
    source = index.astype(np.int64) - 1
    if edge == "mirror":
        period = np.mod(source, 2 * side)
        source = np.where(period < side, period, 2 * side - 1 - period)
    else:
        source = np.clip(source, 0, side - 1)
    rows = np.repeat(np.arange(out_side), taps)
    matrix = sparse.coo_array((value.ravel(), (rows, source.ravel())), shape=(out_side, side))
    matrix = matrix.tocsr()  # sums taps that fall on one pixel
    matrix.eliminate_zeros()
    return matrix.astype(char)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel, a = -1/2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _along(axis: int, weights: Any, image: np.ndarray) -> np.ndarray:
    """`weights @ image` along `axis` 0 or 1."""
    if axis == 0:
        flat = np.ascontiguousarray(image).reshape(image.shape[0], -1)
        return (weights @ flat).reshape(-1, *image.shape[1:])
    swapped = _swapped(image)
    result = (weights @ swapped.reshape(swapped.shape[0], -1)).reshape(-1, *swapped.shape[1:])
    return _swapped(result)


def _swapped(image: np.ndarray) -> np.ndarray:
    """The first two axes exchanged, contiguous; by OpenCV where it can, which is much faster."""
    if image.ndim == 3 and image.shape[2] not in (1, 3):
        return np.ascontiguousarray(image.swapaxes(0, 1))
    swapped = cv2.transpose(np.ascontiguousarray(image))
    return swapped[..., None] if swapped.ndim < image.ndim else swapped


def _saturate(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round half away from zero, as MATLAB does, into the range of `dtype`."""
    top = np.iinfo(dtype).max
    return np.floor(np.clip(values, 0, top) + 0.5).astype(dtype)
