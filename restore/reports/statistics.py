"""Floor 2. Whether a difference between two runs is one: paired over images, with its interval.

A mean over 100 images hides that 60 of them got worse. Everything here is of paired differences
(A less B, image by image), which a set's spread of difficulty does not blur.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from restore.catalog import locate
from restore.reports.records import ImageRow, mean

DRAWS = 10_000
SEED = 0


@dataclass(frozen=True)
class Interval:
    """95 % of the bootstrapped means lie between `low` and `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A less B on the images of one set that both have a finite score of.

    `p`: two-sided Wilcoxon signed-rank test that the differences are symmetric about zero; NaN
    where all of them are zero or there are fewer than two. `wins`, `ties` and `losses` are A's;
    `left_out`: images without a finite score in both. `worst`: images from A's largest loss on.
    """

    set: str
    protocol: str
    measure: str
    images: int
    left_out: int
    mean_a: float
    mean_b: float
    mean: float
    interval: Interval
    p: float
    wins: int
    ties: int
    losses: int
    worst: tuple[tuple[str, float], ...]

    @property
    def win_rate(self) -> float:
        """Share of images that A does better, a tie counting half."""
        return (self.wins + self.ties / 2) / self.images if self.images else math.nan


def bootstrap(values: Sequence[float], seed: int = SEED, draws: int = DRAWS) -> Interval:
    """The percentile interval of the mean, `draws` times drawn with replacement (Efron 1979).

    The same values and seed give the same digits on every machine.
    """
    if len(values) < 2:
        return Interval(math.nan, math.nan)
    numbers = np.asarray(values, dtype=np.float64)
    rng = np.random.Generator(np.random.PCG64(seed))
    means = np.empty(draws)
    block = max(1, 4_000_000 // len(numbers))  # tens of MB at a time, however large the set
    for start in range(0, draws, block):
        shape = (min(block, draws - start), len(numbers))
        means[start : start + shape[0]] = numbers[rng.integers(0, len(numbers), shape)].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(low), float(high))


def compare(
    a: Sequence[ImageRow], b: Sequence[ImageRow], measure: str = "psnr", worst: int = 5
) -> list[Difference]:
    """One Difference per (set, protocol, border) that both runs hold, in A's order.

    `measure`: `psnr` or `ssim`.
    """
    theirs = {_key(row): row for row in b}
    groups: dict[tuple[str, str, int], list[tuple[ImageRow, ImageRow]]] = {}
    for row in a:
        if _key(row) in theirs:
            group = groups.setdefault((row.set, row.protocol, row.border), [])
            group.append((row, theirs[_key(row)]))
    return [_difference(pairs, measure, worst) for pairs in groups.values()]


def _key(row: ImageRow) -> tuple[str, str, str, int]:
    return row.set, row.image, row.protocol, row.border


def _difference(pairs: Sequence[tuple[ImageRow, ImageRow]], measure: str, worst: int) -> Difference:
    scores = [(row.image, getattr(row, measure), getattr(other, measure)) for row, other in pairs]
    finite = [(n, x, y) for n, x, y in scores if math.isfinite(x) and math.isfinite(y)]
    gaps = [x - y for _, x, y in finite]
    ranked = sorted(zip(gaps, (n for n, _, _ in finite), strict=True))
    first = pairs[0][0]
    return Difference(
        set=first.set,
        protocol=first.protocol,
        measure=measure,
        images=len(finite),
        left_out=len(scores) - len(finite),
        mean_a=mean(x for _, x, _ in finite),
        mean_b=mean(y for _, _, y in finite),
        mean=mean(gaps),
        interval=bootstrap(gaps),
        p=_wilcoxon(gaps),
        wins=sum(gap > 0 for gap in gaps),
        ties=sum(gap == 0 for gap in gaps),
        losses=sum(gap < 0 for gap in gaps),
        worst=tuple((name, gap) for gap, name in ranked[:worst]),
    )


def _wilcoxon(gaps: Sequence[float]) -> float:
    if len(gaps) < 2 or not any(gaps):
        return math.nan
    wilcoxon = locate("scipy.stats:wilcoxon")  # slow to import: when there is something to test
    return float(wilcoxon(gaps).pvalue)
