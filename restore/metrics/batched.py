"""Floor 3. PSNR and SSIM of batches of tensors, on whatever device they are: a value per image.

The same rules and digits as the array forms (1e-10 in float64, whatever the tensors' type): for
scores during training on a GPU. On a CPU the array forms are many times faster.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from restore.metrics.protocols import Dialect, ScoringRule
from restore.metrics.psnr_ssim import check_border, check_windows
from restore.metrics.similarity import DIALECTS, Window


def psnr_batch(
    restored: Tensor, target: Tensor, *, data_range: float = 1.0, border: int = 0
) -> Tensor:
    """PSNR in dB of `(B, C, H, W)` tensors, `(B,)` float64; `inf` for equal images.

    Both are limited to 0..`data_range` first. Raises DataError for a border that leaves nothing.
    """
    a, b = _inside(restored, target, data_range, border)
    mean_square = (a - b).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(data_range**2 / mean_square)


def ssim_batch(
    restored: Tensor,
    target: Tensor,
    *,
    data_range: float = 1.0,
    border: int = 0,
    dialect: Dialect = "valid2d",
) -> Tensor:
    """SSIM of `(B, C, H, W)` tensors, `(B,)` float64. Errors as for `restore.metrics.ssim`."""
    a, b = _inside(restored, target, data_range, border)
    check_windows(tuple(a.shape[-2:]), dialect)
    window = DIALECTS[dialect]
    a, b = _surrounded(a, window), _surrounded(b, window)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = _means(a, window), _means(b, window)
    product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    covariance = window.unbias * (_means(a * b, window) - product)
    variances = window.unbias * (_means(a.square() + b.square(), window) - squares)
    similar = (2 * product + c1) * (2 * covariance + c2)
    return (similar / ((squares + c1) * (variances + c2))).mean(dim=(1, 2, 3))


def score_batch(
    rule: ScoringRule, restored: Tensor, target: Tensor, border: int
) -> tuple[Tensor, Tensor]:
    """(PSNR, SSIM), each `(B,)` float64, of `(B, 3, H, W)` RGB tensors in [0, 1] under `rule`.

    A rule of stored images rounds the restored one to 8 bits. Rules that align images are not for
    batches.
    """
    assert rule.align == "none", f"{rule.name} aligns images one by one"
    a, b = restored.double().clamp(0, 1) * 255, target.double().clamp(0, 1) * 255
    if rule.pixels == "stored":
        a = a.round()
    if rule.colour == "y":
        a, b = luma_batch(a), luma_batch(b)
        a = a.clamp(16, 235) if rule.clip_luma else a
        a, b = (a.round(), b.round()) if rule.round_luma else (a, b)
    return (
        psnr_batch(a, b, data_range=255.0, border=border),
        ssim_batch(a, b, data_range=255.0, border=border, dialect=rule.ssim),
    )


def luma_batch(rgb: Tensor) -> Tensor:
    """BT.601 studio-range luma `(B, 1, H, W)` of `(B, 3, H, W)` on 0..255, in float64."""
    red, green, blue = rgb.double().unbind(1)
    return ((65.481 * red + 128.553 * green + 24.966 * blue) / 255 + 16).unsqueeze(1)


def _inside(a: Tensor, b: Tensor, data_range: float, border: int) -> tuple[Tensor, Tensor]:
    assert a.shape == b.shape and a.ndim == 4, f"{tuple(a.shape)} and {tuple(b.shape)}"
    check_border(tuple(a.shape[-2:]), border)
    inside = slice(border, -border or None)
    limited = (t.double().clamp(0, data_range)[..., inside, inside] for t in (a, b))
    return next(limited), next(limited)


def _surrounded(values: Tensor, window: Window) -> Tensor:
    if window.around == "nothing":
        return values
    mode = "constant" if window.around == "zeros" else "replicate"
    return F.pad(values, (window.radius,) * 4, mode=mode)


def _means(values: Tensor, window: Window) -> Tensor:
    """Weighted mean of every window that lies inside `values`."""
    batch, channels, height, width = values.shape
    taps = torch.from_numpy(window.taps).to(values.device)
    planes = values.reshape(-1, 1, height, width)
    planes = F.conv2d(F.conv2d(planes, taps[None, None, :, None]), taps[None, None, None])
    means = planes.reshape(batch, channels, *planes.shape[-2:])
    mix = window.mix(channels)
    if mix is None:
        return means
    return torch.einsum("cj,bjhw->bchw", torch.from_numpy(mix).to(values.device), means)
