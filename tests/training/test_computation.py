"""Precision, layout, parts and compilation of a step: what they change and what they must not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from restore.archs import build_network
from restore.training.computation import Computation, not_compiled
from restore.training.options import OPTIMISERS
from restore.training.state import TrainState, build_optimiser
from restore.world import World

from helpers import SMALL_NETWORKS


def state(kind: str, computation: Computation, optimiser: str = "Adam") -> TrainState:
    torch.manual_seed(1)
    network = build_network(SMALL_NETWORKS[kind])
    options = OPTIMISERS[optimiser].model_validate({"type": optimiser, "lr": 1e-3})
    return TrainState(
        network, build_optimiser(options, network), lambda step: 1e-3,
        ema_decay=0.9, grad_clip=0.5, seed=5, world=World(), computation=computation,
    )  # fmt: skip


def losses(state: TrainState, steps: int, parts: int = 1) -> list[float]:
    found = []
    for _ in range(steps):
        x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(state.step))
        for index, lq in enumerate(x.chunk(parts)):
            with state.part(index, parts):
                outputs = state.forward(lq)
                assert all(output.dtype == torch.float32 for output in outputs)
                each = [(o - o.detach().mean() - 0.1).abs().mean() for o in outputs]
                loss = torch.stack(each).sum()
                state.backward(loss / parts)
            found.append(loss.item())
        state.advance(state.samples + 4)
    return found


@pytest.mark.parametrize("kind", list(SMALL_NETWORKS))
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_like_float32(kind: str, precision: str) -> None:
    exact = losses(state(kind, Computation()), 3)
    half = state(kind, Computation(precision))  # pyright: ignore
    if half._scaler is not None:
        # the scale that it begins with makes it leave out the first steps
        half._scaler.load_state_dict({**half._scaler.state_dict(), "scale": 256.0})
    assert losses(half, 3) == pytest.approx(exact, rel=0.05, abs=2e-3)
    assert all(p.dtype == torch.float32 for p in half.network.parameters())


@pytest.mark.parametrize("kind", list(SMALL_NETWORKS))
def test_layout_changes_only_rounding(kind: str) -> None:
    exact = losses(state(kind, Computation()), 2)
    assert losses(state(kind, Computation(channels_last=True)), 2) == pytest.approx(exact, rel=1e-4)


def test_the_scaler_is_saved_and_restored() -> None:
    whole = state("SPAN", Computation("fp16"))
    losses(whole, 2)
    assert whole._scaler is not None
    whole._scaler.update(123.0)
    tensors, saved = copy.deepcopy(whole.tensors()), copy.deepcopy(whole.numbers())
    rest = losses(whole, 2)
    resumed = state("SPAN", Computation("fp16"))
    resumed.restore(tensors, saved)
    assert resumed._scaler is not None and resumed._scaler.get_scale() == 123.0
    assert losses(resumed, 2) == rest


def test_an_overflow_leaves_the_step_out_and_lowers_the_scale() -> None:
    s = state("SPAN", Computation("fp16"))
    assert s._scaler is not None
    before, scale = copy.deepcopy(s.tensors()["model"]), s._scaler.get_scale()
    with s.part(0, 1):
        (output,) = s.forward(torch.rand(1, 3, 8, 8))
        s.backward(output.mean() * float("inf"))
    s.advance(1)
    assert s._scaler.get_scale() < scale and s.step == 1
    assert all(torch.equal(v, before[k]) for k, v in s.tensors()["model"].items())


def test_parts_add_up_to_the_whole_batch() -> None:
    whole, parted = (state("SPAN", Computation(), "SGD") for _ in range(2))
    losses(whole, 3)
    losses(parted, 3, parts=4)
    for key, value in whole.tensors()["model"].items():
        torch.testing.assert_close(value, parted.tensors()["model"][key], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SPAN", "MaIR"])
def test_compiled_steps_are_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # inductor draws other random numbers than torch: nothing may be dropped here
    monkeypatch.setitem(SMALL_NETWORKS, "MaIR", {**SMALL_NETWORKS["MaIR"], "drop_path_rate": 0.0})
    exact = losses(state(kind, Computation()), 2)
    compiled = state(kind, Computation(compile="default"))
    assert losses(compiled, 2) == pytest.approx(exact, rel=1e-4)
    keys = set(compiled.network.state_dict())
    assert keys == set(state(kind, Computation()).network.state_dict())
    with not_compiled(), torch.no_grad():  # another size compiles nothing
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        compiled.network.eval()(torch.rand(1, 3, 10, 13))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before
    assert isinstance(compiled.network, nn.Module)
