"""Batches of tensors score as images one by one do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from restore.errors import DataError
from restore.metrics import psnr, ssim
from restore.metrics.batched import psnr_batch, score_batch, ssim_batch
from restore.metrics.protocols import PROTOCOLS, Dialect
from restore.metrics.scores import score
from restore.metrics.similarity import DIALECTS

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TOGETHER = [name for name, rule in PROTOCOLS.items() if rule.align == "none"]


def pictures(
    shape: tuple[int, ...] = (3, 3, 30, 26), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 batches `(B, C, H, W)`: ramps with noise, and ramps."""
    rng = np.random.default_rng(seed)
    clean = np.linspace(20, 220, shape[-1]) + rng.normal(0, 6, shape[:2])[..., None, None]
    clean = clean + np.zeros(shape)
    both = (clean + rng.normal(0, 9, shape), clean)
    return [np.clip(np.rint(i), 0, 255).astype(np.uint8) for i in both]


def unit(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).double() / 255


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("device", DEVICES)
def test_rules_give_the_digits_of_single_images(name: str, border: int, device: str) -> None:
    restored, target = pictures()
    pair = (unit(image).to(device) for image in (restored, target))
    found = score_batch(PROTOCOLS[name], *pair, border)
    for i in range(len(target)):
        a, b = (np.ascontiguousarray(x[i].transpose(1, 2, 0)) for x in (restored, target))
        expected = score(PROTOCOLS[name], a, b, border)
        assert (found[0][i].item(), found[1][i].item()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", DEVICES)
def test_any_type_and_number_of_channels(dialect: Dialect, dtype: torch.dtype, device: str) -> None:
    restored, target = (unit(i).to(device, dtype) for i in pictures((2, 1, 14, 19)))
    restored[0, 0, 0, 0] = 3.0
    found = psnr_batch(restored, target, border=1), ssim_batch(restored, target, dialect=dialect)
    assert found[0].dtype == found[1].dtype == torch.float64
    for i in range(2):
        a, b = (image[i, 0].double().cpu().numpy() for image in (restored, target))
        assert found[0][i].item() == pytest.approx(psnr(a, b, data_range=1.0, border=1), abs=1e-10)
        single = ssim(a, b, data_range=1.0, dialect=dialect)
        assert found[1][i].item() == pytest.approx(single, abs=1e-10)


def test_equal_images_and_stored_pixels() -> None:
    image = unit(pictures()[1])
    off = image + 0.3 / 255  # rounds back
    assert score_batch(PROTOCOLS["sr-y"], off, image, 0)[0].tolist() == [math.inf] * 3
    assert score_batch(PROTOCOLS["sidd-val"], off, image, 0)[0][0] == pytest.approx(
        58.588, abs=1e-2
    )
    assert ssim_batch(image, image).tolist() == [1.0] * 3


def test_refusals() -> None:
    image = unit(pictures((1, 3, 12, 12))[0])
    with pytest.raises(DataError, match="DAT14"):
        psnr_batch(image, image, border=6)
    with pytest.raises(DataError, match="DAT12"):
        ssim_batch(image, image, border=1)
    with pytest.raises(AssertionError):
        score_batch(PROTOCOLS["realblur-rgb"], image, image, 0)
