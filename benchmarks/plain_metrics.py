"""PSNR, SSIM, NIQE and imresize in the order of calls that BasicSR makes, in our own words.

The reference of `metrics.py` where no BasicSR checkout is at hand, and of the tests: whole-image
temporaries, five 2-D filters per SSIM, one loop over blocks, one matrix product per row.
Images are BGR uint8 `(H, W, 3)`, as OpenCV reads them.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from scipy.ndimage import convolve
from scipy.special import gamma


def to_y(image: np.ndarray) -> np.ndarray:
    """`(H, W)` luma on 0..255, float32, not rounded."""
    unit = image.astype(np.float32) / 255.0
    y = np.dot(unit, [24.966, 128.553, 65.481]) + 16.0
    return (y / 255.0).astype(np.float32) * 255.0


def _shaved(image: np.ndarray, border: int) -> np.ndarray:
    return image[border : len(image) - border, border : image.shape[1] - border]


def psnr(a: np.ndarray, b: np.ndarray, border: int, *, y: bool = False) -> float:
    """Peak signal-to-noise ratio in dB."""
    a, b = _shaved(a, border), _shaved(b, border)
    if y:
        a, b = to_y(a), to_y(b)
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return math.inf if error == 0 else float(10.0 * np.log10(255.0 * 255.0 / error))


def ssim(a: np.ndarray, b: np.ndarray, border: int, *, y: bool = False) -> float:
    """Mean of the channels' structural similarity."""
    a, b = _shaved(a, border), _shaved(b, border)
    if y:
        a, b = to_y(a)[..., None], to_y(b)[..., None]
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.mean([_ssim(a[..., c], b[..., c]) for c in range(a.shape[2])]))


def _ssim(a: np.ndarray, b: np.ndarray) -> float:
    line = cv2.getGaussianKernel(11, 1.5)
    window = np.outer(line, line.T)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.filter2D(values, -1, window)[5:-5, 5:-5]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_a, mu_b = mean(a), mean(b)
    square_a, square_b, both = mu_a**2, mu_b**2, mu_a * mu_b
    variance_a, variance_b = mean(a**2) - square_a, mean(b**2) - square_b
    covariance = mean(a * b) - both
    top = (2 * both + c1) * (2 * covariance + c2)
    return float((top / ((square_a + square_b + c1) * (variance_a + variance_b + c2))).mean())


# NIQE ---------------------------------------------------------------------------------------------


def niqe(
    image: np.ndarray, mean: np.ndarray, covariance: np.ndarray, border: int, block: int = 96
) -> float:
    """NIQE under the pristine Gaussian of `mean` `(36,)` and `covariance` `(36, 36)`."""
    y = _shaved(to_y(image.astype(np.float32)), border).round()
    down, across = len(y) // block, y.shape[1] // block
    y = y[: down * block, : across * block]
    line = cv2.getGaussianKernel(7, 7 / 6)
    window = line @ line.T
    scales = []
    for scale in (1, 2):
        mu = convolve(y, window, mode="nearest")
        sigma = np.sqrt(np.abs(convolve(np.square(y), window, mode="nearest") - np.square(mu)))
        normal = (y - mu) / (sigma + 1)
        side = block // scale
        rows = []
        for j in range(across):
            for i in range(down):
                part = normal[i * side : (i + 1) * side, j * side : (j + 1) * side]
                rows.append(_features(part))
        scales.append(np.array(rows))
        if scale == 1:
            y = imresize(y / 255.0, 0.5) * 255.0
    features = np.concatenate(scales, axis=1)
    whole = features[~np.isnan(features).any(axis=1)]
    distance = mean - np.nanmean(features, axis=0)
    inverse = np.linalg.pinv((covariance + np.cov(whole, rowvar=False)) / 2)
    return float(np.sqrt(distance @ inverse @ distance))


def _features(block: np.ndarray) -> list[float]:
    shape, left, right = _aggd(block)
    found = [shape, (left + right) / 2]
    for turn in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = _aggd(block * np.roll(block, turn, axis=(0, 1)))
        found += [shape, (right - left) * (gamma(2 / shape) / gamma(1 / shape)), left, right]
    return found


def _aggd(block: np.ndarray) -> tuple[float, float, float]:
    values = block.flatten()
    shapes = np.arange(0.2, 10.001, 0.001)
    inverse = np.reciprocal(shapes)
    table = np.square(gamma(inverse * 2)) / (gamma(inverse) * gamma(inverse * 3))
    left = np.sqrt(np.mean(values[values < 0] ** 2))
    right = np.sqrt(np.mean(values[values > 0] ** 2))
    skew = left / right
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = shapes[np.argmin((table - ratio) ** 2)]
    width = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return float(shape), left * width, right * width


# imresize -----------------------------------------------------------------------------------------


def imresize(image: np.ndarray, scale: float) -> np.ndarray:
    """Bicubic with antialiasing, float32, `(H, W)` or `(H, W, C)`; no rounding."""
    planes = image[..., None] if image.ndim == 2 else image
    source = torch.from_numpy(planes.transpose(2, 0, 1)).float()
    result = _columns(_rows(source, scale), scale).numpy()
    return result[0] if image.ndim == 2 else result.transpose(1, 2, 0)


def _weights(side: int, out: int, scale: float) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """(weights `(out, taps)`, first tap in the padded axis, padding before, padding after)."""
    width = 4 / min(scale, 1.0)
    centre = torch.linspace(1, out, out) / scale + 0.5 * (1 - 1 / scale)
    taps = math.ceil(width) + 2
    index = torch.floor(centre - width / 2)[:, None] + torch.arange(taps)
    offset = centre[:, None] - index
    x = torch.abs(offset * scale if scale < 1 else offset)
    near = (1.5 * x**3 - 2.5 * x**2 + 1) * (x <= 1)
    far = (-0.5 * x**3 + 2.5 * x**2 - 4 * x + 2) * ((x > 1) & (x <= 2))
    weights = near + far
    weights = weights * scale if scale < 1 else weights
    weights = weights / weights.sum(dim=1, keepdim=True)
    if (weights[:, 0] == 0).any():
        weights, index = weights[:, 1:], index[:, 1:]
    if (weights[:, -1] == 0).any():
        weights, index = weights[:, :-1], index[:, :-1]
    before, after = int(1 - index.min()), int(index.max() - side)
    return weights.contiguous(), index[:, 0].long() + before - 1, before, after


def _mirrored(image: torch.Tensor, axis: int, before: int, after: int) -> torch.Tensor:
    side = image.shape[axis]
    head = image.narrow(axis, 0, before).flip(axis)
    tail = image.narrow(axis, side - after, after).flip(axis)
    return torch.cat([head, image, tail], dim=axis)


def _rows(image: torch.Tensor, scale: float) -> torch.Tensor:
    side, out = image.shape[1], math.ceil(image.shape[1] * scale)
    weights, first, before, after = _weights(side, out, scale)
    padded = _mirrored(image, 1, before, after)
    result = torch.empty(image.shape[0], out, image.shape[2])
    for i in range(out):
        for c in range(image.shape[0]):
            part = padded[c, int(first[i]) : int(first[i]) + weights.shape[1]]
            result[c, i] = part.transpose(0, 1).mv(weights[i])
    return result


def _columns(image: torch.Tensor, scale: float) -> torch.Tensor:
    side, out = image.shape[2], math.ceil(image.shape[2] * scale)
    weights, first, before, after = _weights(side, out, scale)
    padded = _mirrored(image, 2, before, after)
    result = torch.empty(image.shape[0], image.shape[1], out)
    for i in range(out):
        for c in range(image.shape[0]):
            part = padded[c, :, int(first[i]) : int(first[i]) + weights.shape[1]]
            result[c, :, i] = part.mv(weights[i])
    return result
