"""The training state: EMA, clipping, and exact save and restore for every optimiser."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from restore.errors import CheckpointError
from restore.training.options import OPTIMISERS
from restore.training.state import TrainState, build_optimiser
from restore.world import World


class Net(nn.Module):
    """With a buffer that changes and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Conv2d(4, 3, 1)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(nn.functional.dropout(self.norm(self.conv(x)), 0.2, self.training))


def state(kind: str = "Adam", ema: float = 0.9, clip: float | None = None) -> TrainState:
    torch.manual_seed(1)
    net = Net()
    options = OPTIMISERS[kind].model_validate({"type": kind, "lr": 1e-2})
    return TrainState(
        net,
        build_optimiser(options, net),
        lambda step: 1e-2 / (1 + step),
        ema_decay=ema,
        grad_clip=clip,
        seed=5,
        world=World(),
    )


def train(state: TrainState, steps: int) -> None:
    for _ in range(steps):
        generator = torch.Generator().manual_seed(state.step)
        x = torch.rand(2, 3, 6, 6, generator=generator)
        with state.part(0, 1):
            (output,) = state.forward(x)
            state.backward((output - x).abs().mean())
        state.advance(state.samples + 2)


def everything(state: TrainState) -> dict[str, torch.Tensor]:
    return {f"{f}/{k}": v for f, values in state.tensors().items() for k, v in values.items()}


@pytest.mark.parametrize("kind", list(OPTIMISERS))
def test_restored_state_continues_to_the_same_bits(kind: str) -> None:
    whole = state(kind)
    train(whole, 3)
    tensors, numbers = copy.deepcopy(whole.tensors()), copy.deepcopy(whole.numbers())
    train(whole, 3)
    resumed = state(kind)
    resumed.restore(tensors, numbers)
    assert resumed.step == 3 and resumed.samples == 6
    torch.rand(7)  # the global generator is somewhere else: it must not matter
    train(resumed, 3)
    ours, theirs = everything(resumed), everything(whole)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
    assert resumed.numbers() == whole.numbers()


def test_ema_is_its_formula_and_buffers_follow() -> None:
    s = state(ema=0.75)
    assert s.ema is not None
    expected = {k: v.clone() for k, v in s.network.named_parameters()}
    for _ in range(4):
        train(s, 1)
        for key, value in s.network.named_parameters():
            expected[key] = 0.75 * expected[key] + 0.25 * value.detach()
    for key, value in s.ema.named_parameters():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-7)
    for key, value in s.network.named_buffers():
        assert torch.equal(value, s.ema.get_buffer(key))
    assert s.evaluated is s.ema and not any(p.requires_grad for p in s.ema.parameters())
    assert state(ema=0).evaluated is not None and state(ema=0).ema is None


def test_gradients_are_clipped() -> None:
    s = state("SGD", clip=1e-3)
    before = {k: v.detach().clone() for k, v in s.network.named_parameters()}
    train(s, 1)
    moved = [(v - before[k]).pow(2).sum() for k, v in s.network.named_parameters()]
    assert torch.stack(moved).sum().sqrt().item() == pytest.approx(1e-2 * 1e-3, rel=1e-2)


def test_another_runs_checkpoint_is_refused() -> None:
    s = state()
    train(s, 1)
    with pytest.raises(CheckpointError, match=r"error\[CKP03\].*ema"):
        state(ema=0).restore(s.tensors(), s.numbers())
    other = s.tensors()
    other["optim"] = {f"exp_avg/{k}": v for k, v in other["model"].items()}
    with pytest.raises(CheckpointError, match=r"error\[CKP03\].*optimiser"):
        state().restore(other, s.numbers())
    other = s.tensors()
    other["model"] = {k: v for k, v in other["model"].items() if k != "out.bias"}
    with pytest.raises(CheckpointError, match=r"error\[CKP03\].*network.*out.bias"):
        state().restore(other, s.numbers())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", None),
        ("step", "4"),
        ("step", 1.5),
        ("step", True),
        ("step", -1),
        ("samples", []),
        ("skipped", {}),
        ("validated", -1),
        ("ranks", 0),
        ("best", [1]),
        ("best", {"step": 1}),
        ("best", {"psnr": "high"}),
        ("scaler", 3),
    ],
)
def test_numbers_that_no_run_saves_are_refused(key: str, value: object) -> None:
    s = state()
    train(s, 1)
    with pytest.raises(CheckpointError, match=rf"error\[CKP03\].*state\.json.*{key}"):
        state().restore(s.tensors(), {**s.numbers(), key: value})
    if key not in ("skipped", "scaler"):
        fewer = {k: v for k, v in s.numbers().items() if k != key}
        with pytest.raises(CheckpointError, match=rf"error\[CKP03\].*state\.json.*{key}"):
            state().restore(s.tensors(), fewer)


def test_a_state_of_other_shapes_is_refused() -> None:
    """torch would take it, and step with whatever broadcasting makes of it."""
    s = state()
    train(s, 1)
    other = s.tensors()
    other["optim"] = {**other["optim"], "exp_avg/conv.weight": torch.zeros(3, 3)}
    with pytest.raises(CheckpointError, match=r"error\[CKP03\].*exp_avg of conv.weight.*\(3, 3\)"):
        state().restore(other, s.numbers())
    for file in ("model", "optim"):
        fewer = {k: v for k, v in s.tensors().items() if k != file}
        with pytest.raises(CheckpointError, match=rf"error\[CKP03\].*{file}"):
            state().restore(fewer, s.numbers())
    uneven = s.tensors()
    uneven["optim"] = {k: v for k, v in uneven["optim"].items() if k != "exp_avg/conv.weight"}
    with pytest.raises(CheckpointError, match=r"error\[CKP03\].*optimiser"):
        state().restore(uneven, s.numbers())
