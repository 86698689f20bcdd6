"""Rates against torch's own schedulers and against BasicSR's formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from restore.training.options import TrainOptions
from restore.training.schedule import schedule_of


def rates(scheduler: dict | None, warmup: int = -1, total: int = 60) -> list[float]:
    options = TrainOptions.model_validate(
        {
            "total_iter": total,
            "optim_g": {"type": "Adam", "lr": 2e-4},
            "scheduler": scheduler,
            "warmup_iter": warmup,
            "pixel_opt": {"type": "L1Loss"},
        }
    )
    schedule = schedule_of(options)
    return [schedule(step) for step in range(total)]


def torch_rates(make, total: int = 60) -> list[float]:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-4)
    scheduler = make(optimiser)
    found = []
    for _ in range(total):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return found


def test_constant() -> None:
    assert set(rates(None)) == {2e-4}


@pytest.mark.parametrize("name", ["MultiStepLR", "MultiStepRestartLR"])
def test_multi_step_is_torchs(name: str) -> None:
    ours = rates({"type": name, "milestones": (10, 11, 40), "gamma": 0.5})
    truth = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [10, 11, 40], 0.5))
    assert ours == pytest.approx(truth, rel=1e-12)


def test_multi_step_restart() -> None:
    ours = rates(
        {
            "type": "MultiStepRestartLR",
            "milestones": (10, 30),
            "gamma": 0.5,
            "restarts": (0, 20),
            "restart_weights": (1.0, 0.8),
        }
    )
    expected = [2e-4] * 10 + [1e-4] * 10 + [1.6e-4] * 10 + [0.8e-4] * 30
    assert ours == pytest.approx(expected, rel=1e-12)


def test_one_cosine_period_is_torchs() -> None:
    ours = rates({"type": "CosineAnnealingRestartLR", "periods": (60,), "eta_min": 1e-7})
    truth = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 60, 1e-7))
    assert ours == pytest.approx(truth, rel=1e-9)


@given(
    periods=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    data=st.data(),
)
def test_cyclic_cosine_is_its_formula(periods: list[int], data: st.DataObject) -> None:
    weights = [data.draw(st.floats(0.1, 2)) for _ in periods]
    floors = [data.draw(st.floats(0, 1e-3)) for _ in periods]
    total = sum(periods)
    ours = rates(
        {
            "type": "CosineAnnealingRestartCyclicLR",
            "periods": tuple(periods),
            "restart_weights": tuple(weights),
            "eta_mins": tuple(floors),
        },
        total=total,
    )
    ends = [sum(periods[: i + 1]) for i in range(len(periods))]
    for step, rate in enumerate(ours):
        i = next(k for k, end in enumerate(ends) if step <= end)  # a period's end belongs to it
        start = ends[i - 1] if i else 0
        swing = 1 + math.cos(math.pi * (step - start) / periods[i])
        expected = floors[i] + weights[i] * 0.5 * (2e-4 - floors[i]) * swing
        assert rate == pytest.approx(expected, rel=1e-12)


STEPS = st.lists(st.integers(1, 59), max_size=6, unique=True).map(sorted)


@given(
    milestones=STEPS,
    gamma=st.floats(0.05, 2),
    restarts=st.dictionaries(st.integers(0, 59), st.floats(0.1, 2), max_size=4),
)
def test_any_restarts_are_basicsrs(
    milestones: list[int], gamma: float, restarts: dict[int, float]
) -> None:
    """Its rule for one iteration after the other; at one step a restart goes before a milestone."""
    ours = rates(
        {
            "type": "MultiStepRestartLR",
            "milestones": tuple(milestones),
            "gamma": gamma,
            "restarts": tuple(restarts),
            "restart_weights": tuple(restarts.values()),
        }
    )
    rate, expected = 2e-4, []
    for step in range(60):
        if step in restarts:
            rate = 2e-4 * restarts[step]
        elif step in milestones:
            rate *= gamma
        expected.append(rate)
    assert ours == pytest.approx(expected, rel=1e-12)


COURSES = st.one_of(
    st.none(),
    st.builds(lambda m: {"type": "MultiStepLR", "milestones": tuple(m), "gamma": 0.3}, STEPS),
    st.builds(
        lambda p, e: {"type": "CosineAnnealingRestartLR", "periods": (p, 60 - p), "eta_min": e,
                      "restart_weights": (1.0, 0.5)},
        st.integers(1, 59), st.floats(0, 1e-5),
    ),
)  # fmt: skip


@given(course=COURSES, warmup=st.integers(-1, 70))
def test_warm_up_comes_before_any_course(course: dict | None, warmup: int) -> None:
    """And never raises the rate beyond the base; after it the course is as if there were none."""
    with_it, without = rates(course, warmup=warmup), rates(course)
    ramp = max(0, min(warmup - 1, 60))
    assert with_it[:ramp] == pytest.approx([2e-4 * (k + 1) / warmup for k in range(ramp)])
    assert with_it[ramp:] == without[ramp:]
    assert all(0 <= rate <= 2e-4 for rate in with_it)


def test_warm_up_rises_in_a_line() -> None:
    ours = rates({"type": "MultiStepLR", "milestones": (30,), "gamma": 0.5}, warmup=10)
    assert ours[:9] == pytest.approx([2e-5 * i for i in range(1, 10)])
    assert ours[9:30] == [2e-4] * 21 and ours[30] == 1e-4
