"""Losses against their formulas in float64."""

from __future__ import annotations

import pytest
import torch

from restore.losses.options import CharbonnierLoss, FrequencyLoss, L1Loss, MSELoss
from restore.losses.pixel import Loss

torch.manual_seed(0)
OUTPUT = torch.randn(2, 3, 5, 7, dtype=torch.float64)
TARGET = torch.randn(2, 3, 5, 7, dtype=torch.float64)
D = OUTPUT - TARGET


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (L1Loss(), D.abs().sum() / D.numel()),
        (L1Loss(loss_weight=0.5, reduction="sum"), 0.5 * D.abs().sum()),
        (MSELoss(), (D**2).sum() / D.numel()),
        (CharbonnierLoss(), torch.sqrt(D**2 + 1e-12).sum() / D.numel()),
        (CharbonnierLoss(eps=1e-6), torch.sqrt(D**2 + 1e-3**2).sum() / D.numel()),
        (CharbonnierLoss(eps=0.04, reduction="sum"), torch.sqrt(D**2 + 0.04).sum()),
    ],
)
def test_formula(options, expected: torch.Tensor) -> None:
    found = Loss({"pixel": options})((OUTPUT,), TARGET)
    torch.testing.assert_close(found.total, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.parts["pixel"], expected, rtol=1e-13, atol=0)


def test_charbonnier_has_a_gradient_at_zero() -> None:
    output = torch.zeros(1, 1, 2, 2, requires_grad=True)
    Loss({"pixel": CharbonnierLoss()})((output,), torch.zeros(1, 1, 2, 2)).total.backward()
    assert torch.equal(output.grad, torch.zeros(1, 1, 2, 2))


def test_parts_add_up() -> None:
    found = Loss({"a": L1Loss(), "b": MSELoss(loss_weight=2.0)})((OUTPUT,), TARGET)
    torch.testing.assert_close(found.total, found.parts["a"] + found.parts["b"])


def plain_bilinear(gt: torch.Tensor, factor: int) -> torch.Tensor:
    """Half size: the mean of each 2×2 block; quarter: the mean of the centre 2×2 of each 4×4."""
    edge = factor // 2 - 1
    inner = [gt[..., edge + y :: factor, edge + x :: factor] for y in (0, 1) for x in (0, 1)]
    return sum(inner) / 4


def plain_frequency(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The discrete Fourier transform as two matrix products."""

    def spectrum(x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            n = x.shape[-1]
            k = torch.arange(n, dtype=torch.float64)
            turns = torch.exp(-2j * torch.pi * k[:, None] * k[None] / n)
            x = (x.to(torch.complex128) @ turns).transpose(-1, -2)
        return x

    a, b = spectrum(output), spectrum(target)
    both = torch.stack([a.real - b.real, a.imag - b.imag])
    return both.abs().mean()


def test_frequency_loss() -> None:
    found = Loss({"frequency": FrequencyLoss()})((OUTPUT,), TARGET).total
    torch.testing.assert_close(found, 0.1 * plain_frequency(OUTPUT, TARGET), rtol=1e-12, atol=0)
    half = OUTPUT.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        low = Loss({"frequency": FrequencyLoss(loss_weight=1.0)})((half,), TARGET.bfloat16()).total
    assert low.dtype == torch.float32


def test_every_output_counts_against_its_own_target() -> None:
    gt = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    outputs = tuple(torch.rand(2, 3, 16 // f, 24 // f, dtype=torch.float64) for f in (1, 2, 4))
    targets = (gt, plain_bilinear(gt, 2), plain_bilinear(gt, 4))
    pairs = list(zip(outputs, targets, strict=True))
    found = Loss({"pixel": L1Loss(), "frequency": FrequencyLoss()})(outputs, gt)
    content = sum((o - t).abs().mean() for o, t in pairs)
    spectra = sum(plain_frequency(o, t) for o, t in pairs)
    torch.testing.assert_close(found.parts["pixel"], content, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.parts["frequency"], 0.1 * spectra, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.total, content + 0.1 * spectra, rtol=1e-12, atol=0)


def test_output_weights() -> None:
    gt = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    outputs = (gt + 1, plain_bilinear(gt, 2) + 2)
    loss = Loss({"pixel": L1Loss(output_weights=(0.5, 0.25))})
    torch.testing.assert_close(loss(outputs, gt).total, torch.tensor(1.0, dtype=torch.float64))
    with pytest.raises(ValueError, match="zip"):
        loss(outputs[:1], gt)
