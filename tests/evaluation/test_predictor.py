"""The predictor: any size in, exactly size × scale out, whatever the network's rule."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from restore.archs.architecture import SizeRule
from restore.evaluation.options import PredictorOptions
from restore.evaluation.predictor import Predictor


class Enlarge(nn.Module):
    """Repeats pixels; refuses sizes that break its rule; optionally several outputs."""

    def __init__(self, scale: int, rule: SizeRule, *, outputs: bool = False) -> None:
        super().__init__()
        self.scale, self.rule, self.outputs = scale, rule, outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        for side in x.shape[-2:]:
            assert side % self.rule.multiple == 0 and side >= self.rule.minimum
        finest = x.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)
        return (finest, x) if self.outputs else finest


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    scale=st.sampled_from([1, 2, 3]),
    multiple=st.sampled_from([1, 4, 7, 16]),
    minimum=st.sampled_from([1, 20]),
)
@settings(max_examples=80)
def test_padding_is_cropped_away(
    height: int, width: int, scale: int, multiple: int, minimum: int
) -> None:
    rule = SizeRule(minimum, multiple)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    restored = Predictor(Enlarge(scale, rule), scale, rule).restore(image)
    assert np.array_equal(restored, image.repeat(scale, 0).repeat(scale, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 3)])
def test_type_and_channels_are_kept(dtype: type, shape: tuple[int, ...]) -> None:
    top = np.iinfo(dtype).max
    image = np.random.default_rng(0).integers(0, top + 1, shape, dtype=dtype)
    network = Enlarge(2, SizeRule(), outputs=True)
    restored = Predictor(network, 2, SizeRule()).restore(image)
    assert restored.dtype == dtype and np.array_equal(restored, image.repeat(2, 0).repeat(2, 1))


def test_output_is_clamped_and_rounded() -> None:
    class Shift(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 3 - 0.25

    image = np.array([[0, 60, 255]], np.uint8)
    restored = Predictor(Shift(), 1, SizeRule()).restore(image)
    assert restored.tolist() == [[0, 116, 255]]  # 180 - 63.75 = 116.25


@pytest.mark.parametrize("ensemble", [4, 8])
def test_self_ensemble_is_the_mean_over_its_forms(ensemble: Literal[4, 8]) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 3, padding=1)
    lq = torch.rand(1, 3, 5, 7)
    flips = [(), (3,), (2,), (2, 3)]
    forms = [(dims, False) for dims in flips] + [(dims, True) for dims in flips]
    with torch.no_grad():
        outputs = []
        for dims, swapped in forms[:ensemble]:
            x = lq.flip(dims) if dims else lq
            y = network(x.mT).mT if swapped else network(x)
            outputs.append(y.flip(dims) if dims else y)
        expected = sum(outputs) / ensemble
    predictor = Predictor(network, 1, SizeRule(), options=PredictorOptions(ensemble=ensemble))
    torch.testing.assert_close(predictor(lq), expected)
    assert not torch.allclose(Predictor(network, 1, SizeRule())(lq), expected, atol=1e-4)


@pytest.mark.parametrize("ensemble", [1, 4, 8])
def test_self_ensemble_undoes_every_turn(ensemble: Literal[1, 4, 8]) -> None:
    rule = SizeRule(4, 4)
    image = np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    predictor = Predictor(Enlarge(2, rule), 2, rule, options=PredictorOptions(ensemble=ensemble))
    assert np.array_equal(predictor.restore(image), image.repeat(2, 0).repeat(2, 1))
