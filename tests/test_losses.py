"""Losses against their formulas in float64."""

from __future__ import annotations

import pytest
import torch

from restore.losses.options import CharbonnierLoss, L1Loss, MSELoss
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
