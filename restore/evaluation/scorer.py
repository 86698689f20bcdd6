"""Floor 4. One restored image under any number of scoring rules.

Rules of one form and border share their figures; what the input scores without a network is
remembered, since a training run asks for it at every validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from restore.data.pair import ImagePair
from restore.errors import DataError
from restore.evaluation.predictor import Restoration
from restore.metrics.protocols import Bordered, ScoringRule
from restore.metrics.psnr_ssim import shaved
from restore.metrics.scores import bicubic, score

SCORES = 4  # PSNR and SSIM of the restored image, and of the input
Metric = Callable[[np.ndarray, np.ndarray], float]
"""Restored and target, integers, without the border -> a figure."""


class Scorer:
    """Scores the images of one set."""

    def __init__(
        self, rules: Sequence[Bordered], further: Mapping[str, Metric] | None = None
    ) -> None:
        self.rules, self.further = tuple(rules), dict(further or {})
        self._baselines: dict[tuple[object, ...], tuple[float, float]] = {}

    @property
    def unrounded(self) -> bool:
        """Whether a rule takes the network's numbers as they are."""
        return any(rule.pixels == "unrounded" for rule, _ in self.rules)

    @property
    def width(self) -> int:
        """Figures of one image under one rule."""
        return SCORES + len(self.further)

    def figures(
        self, index: int, pair: ImagePair, restored: Restoration, without: Collection[int] = ()
    ) -> list[list[float] | DataError]:
        """For every rule PSNR, SSIM, those of the input, and the user's own figures; or why the
        rule cannot score this image. NaN without ground truth, and for rules in `without`."""
        nothing = [math.nan] * self.width
        if pair.gt is None:
            return [nothing] * len(self.rules)
        plain = _WithBicubic(pair)
        scores: dict[tuple[object, ...], list[float] | DataError] = {}
        own: dict[int, list[float]] = {}
        found: list[list[float] | DataError] = []
        for place, (rule, border) in enumerate(self.rules):
            if place in without:
                found.append(nothing)
                continue
            key = (rule.form, border)
            if key not in scores:
                scores[key] = self._scores(index, rule, border, plain, restored)
            got = scores[key]
            if not isinstance(got, DataError):
                if border not in own:
                    own[border] = self._own(border, restored.image, pair.gt)
                got = [*got, *own[border]]
            found.append(got)
        return found

    def _scores(
        self, index: int, rule: ScoringRule, border: int, plain: _WithBicubic, done: Restoration
    ) -> list[float] | DataError:
        """PSNR and SSIM of the restored image and of the input, or why `rule` has none."""
        target, key = plain.pair.gt, (index, rule.form, border)
        assert target is not None
        numbers = done.image if rule.pixels == "stored" else done.unrounded
        assert numbers is not None, "a rule of unrounded numbers, and none were kept"
        try:
            figures = score(rule, numbers, target, border)
            if key not in self._baselines:
                self._baselines[key] = score(rule, plain.bicubic, target, border)
        except DataError as error:
            name = plain.pair.name
            return DataError(
                *(replace(p, where=name) if p.where == "score" else p for p in error.problems)
            )
        return [*figures, *self._baselines[key]]

    def _own(self, border: int, restored: np.ndarray, target: np.ndarray) -> list[float]:
        """The user's own figures."""
        inside, wanted = shaved(restored, border), shaved(target, border)
        return [float(metric(inside, wanted)) for metric in self.further.values()]


@dataclass(frozen=True)
class _WithBicubic:
    """A pair, and its input at the target's size, made once, when it is asked for."""

    pair: ImagePair

    @cached_property
    def bicubic(self) -> np.ndarray:
        return bicubic(self.pair.view, self.pair.scale)
