"""Paired differences against closed forms, other implementations and known cases."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.reports.records import ImageRow
from restore.reports.statistics import bootstrap, compare

BASE = ImageRow("Set5", "", "sr-y", 4, 0.0, 0.9, 28.0, 0.8, 8, 8, 0.1, "N", "ab", "c0")


def rows(psnrs: list[float], **more: object) -> list[ImageRow]:
    return [
        replace(BASE, image=f"{k:03d}", psnr=psnr, ssim=psnr / 100, **more)  # pyright: ignore
        for k, psnr in enumerate(psnrs)
    ]


def test_differences_are_counted_image_by_image() -> None:
    (found,) = compare(rows([30, 31, 32, 33]), rows([29, 31, 33, 30]))
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.win_rate == 2.5 / 4 and found.mean == pytest.approx(0.75)
    assert found.mean_a - found.mean_b == pytest.approx(found.mean)
    assert found.worst[:2] == (("002", -1), ("001", 0))


def test_only_common_images_under_one_rule_are_compared() -> None:
    a = rows([30, 31]) + rows([40, 41], set="Set14")
    b = rows([29, 31, 50]) + rows([39, 41], set="Set14", border=2)
    (found,) = compare(a, b)
    assert (found.set, found.images) == ("Set5", 2)
    assert compare(a, rows([1], protocol="rgb")) == []


def test_images_without_a_finite_score_are_left_out() -> None:
    (found,) = compare(rows([30, math.inf, math.nan]), rows([29, 30, 30]))
    assert (found.images, found.left_out, found.mean) == (1, 2, 1.0)
    assert math.isnan(found.p) and math.isnan(found.interval.low)


def exact_signed_rank(gaps: list[float]) -> float:
    """The two-sided p by every assignment of signs (Wilcoxon 1945)."""
    ranks = np.argsort(np.argsort(np.abs(gaps))) + 1
    seen = sum(r for r, g in zip(ranks, gaps, strict=True) if g > 0)
    all_sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s)
        for signs in itertools.product((0, 1), repeat=len(gaps))
    ]
    below = sum(s <= seen for s in all_sums) / len(all_sums)
    above = sum(s >= seen for s in all_sums) / len(all_sums)
    return min(1.0, 2 * min(below, above))


@settings(max_examples=25)
@given(st.lists(st.integers(1, 10_000), min_size=5, max_size=9, unique=True), st.randoms())
def test_p_is_that_of_every_assignment_of_signs(sizes: list[int], random) -> None:
    gaps = [size * random.choice((-1, 1)) / 1000 for size in sizes]
    (found,) = compare(rows([30 + g for g in gaps]), rows([30.0] * len(gaps)))
    exact = [a - 30.0 for a in (30 + g for g in gaps)]
    assert found.p == pytest.approx(exact_signed_rank(exact), abs=1e-9)


def test_equal_runs_differ_nowhere() -> None:
    (found,) = compare(rows([30, 31, 32]), rows([30, 31, 32]))
    assert found.mean == 0 and math.isnan(found.p) and found.win_rate == 0.5
    assert (found.interval.low, found.interval.high) == (0, 0)


def test_bootstrap_is_seeded_and_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, 400).tolist()
    first, again, other = bootstrap(values), bootstrap(values), bootstrap(values, seed=1)
    assert first == again != other
    mean, error = np.mean(values), np.std(values) / 20
    assert first.low == pytest.approx(mean - 1.96 * error, abs=0.15 * error)
    assert first.high == pytest.approx(mean + 1.96 * error, abs=0.15 * error)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        interval = bootstrap(rng.normal(0.0, 1.0, 60).tolist(), draws=500)
        hits += interval.low <= 0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_blocks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [0.1, 0.4, -0.2, 0.9, 0.3]
    whole = np.random.Generator(np.random.PCG64(0)).integers(0, 5, (10_000, 5))
    means = np.asarray(values)[whole].mean(axis=1)
    interval = bootstrap(values)
    assert (interval.low, interval.high) == tuple(np.quantile(means, (0.025, 0.975)))
