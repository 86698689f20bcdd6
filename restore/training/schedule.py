"""Floor 5. The learning rate as a pure function of the step: nothing to save."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import accumulate

from restore.section import Section
from restore.training.options import (
    CosineAnnealingRestartCyclicLR,
    CosineAnnealingRestartLR,
    MultiStepLR,
    MultiStepRestartLR,
    TrainOptions,
)

Schedule = Callable[[int], float]


def schedule_of(options: TrainOptions) -> Schedule:
    """The rate for 0-based step `i`: the value BasicSR trains iteration `i + 1` with."""
    base = float(getattr(options.optim_g, "lr"))  # noqa: B009 (every optimiser has one)
    course = _course(options.scheduler, base)
    warmup = options.warmup_iter

    def rate(step: int) -> float:
        if step + 1 < warmup:
            return base / warmup * (step + 1)
        return course(step)

    return rate


def _course(options: Section | None, base: float) -> Schedule:
    if options is None:
        return lambda step: base
    if isinstance(options, MultiStepLR):
        return lambda step: base * options.gamma ** bisect_right(options.milestones, step)
    if isinstance(options, MultiStepRestartLR):
        return _multi_step_restart(options, base)
    if isinstance(options, CosineAnnealingRestartLR):
        return _cosine(
            options.periods,
            options.restart_weights,
            (options.eta_min,) * len(options.periods),
            base,
        )
    if isinstance(options, CosineAnnealingRestartCyclicLR):
        return _cosine(options.periods, options.restart_weights, options.eta_mins, base)
    raise TypeError(f"no schedule for {type(options).__name__}")


def _multi_step_restart(options: MultiStepRestartLR, base: float) -> Schedule:
    restarts = dict(zip(options.restarts, options.restart_weights, strict=True))

    def rate(step: int) -> float:
        since = max((r for r in restarts if r <= step), default=None)
        weight = 1.0 if since is None else restarts[since]
        # a restart sets the rate; only milestones after it count
        drops = sum(1 for m in options.milestones if (since or -1) < m <= step)
        return base * weight * options.gamma**drops

    return rate


def _cosine(
    periods: tuple[int, ...], weights: tuple[float, ...], floors: tuple[float, ...], base: float
) -> Schedule:
    ends = list(accumulate(periods))

    def rate(step: int) -> float:
        index = min(bisect_left(ends, step), len(ends) - 1)
        start = ends[index - 1] if index else 0
        phase = math.cos(math.pi * (step - start) / periods[index])
        return floors[index] + weights[index] * 0.5 * (base - floors[index]) * (1 + phase)

    return rate
