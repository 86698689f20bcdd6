"""Floor 4. A set under a scoring rule: every image once, shared over the ranks, the same digits on
any number of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from restore.data.pair import ImagePair
from restore.data.source import Source
from restore.evaluation.predictor import Predictor
from restore.metrics.protocols import ScoringRule
from restore.metrics.scores import bicubic, score
from restore.reports.records import ImageRow
from restore.world import World

Metric = Callable[[np.ndarray, np.ndarray], float]
"""Restored and target, integers, without the border -> a figure."""


@dataclass(frozen=True)
class Provenance:
    """What was tested: goes into every row."""

    network: str
    weights_sha256: str
    commit: str


@dataclass(frozen=True)
class Seen:
    """One image of an evaluation, for whoever wants to save or show it."""

    set: str
    pair: ImagePair
    restored: np.ndarray

    def baseline(self) -> np.ndarray:
        """The input at the target's size without a network; made at each call."""
        return bicubic(self.pair.view, self.pair.scale)


class Evaluator:
    """Scores a predictor on one source."""

    def __init__(
        self,
        name: str,
        source: Source,
        rule: ScoringRule,
        border: int,
        scale: int,
        world: World,
        *,
        further: Mapping[str, Metric] | None = None,
    ) -> None:
        self._further = dict(further or {})
        self.name, self.source, self.rule, self.border = name, source, rule, border
        self._scale, self._world = scale, world
        self._baselines: dict[int, tuple[float, float]] = {}

    def run(
        self,
        predictor: Predictor,
        provenance: Provenance,
        each: Callable[[int, Seen], None] | None = None,
    ) -> list[ImageRow]:
        """One row per image, in the source's order, on every rank.

        `each(index, seen)` is called on the rank that restored the image. Images without ground
        truth get rows with NaN scores. Raises DataError for an image that cannot be used.
        """
        count = len(self.source)
        cells = torch.zeros(count, 7 + len(self._further), dtype=torch.float64)
        for index in range(self._world.rank, count, self._world.size):
            cells[index] = torch.tensor(self._score(index, predictor, each), dtype=torch.float64)
        # an infinite or NaN cell stays so: the other ranks add zeros to it
        table = self._world.sum(cells).tolist()
        return [self._row(index, values, provenance) for index, values in enumerate(table)]

    def _score(
        self, index: int, predictor: Predictor, each: Callable[[int, Seen], None] | None
    ) -> list[float]:
        pair = self.source[index]
        start = time.perf_counter()
        restored = predictor.restore(pair.lq)
        seconds = time.perf_counter() - start
        scores = [math.nan] * 4
        if pair.gt is not None:
            scores[:2] = score(self.rule, restored, pair.gt, self.border)
            scores[2:] = self._baseline(index, pair)
        if each is not None:
            each(index, Seen(self.name, pair, restored))
        own = [self._own(metric, restored, pair.gt) for metric in self._further.values()]
        return [*scores, restored.shape[1], restored.shape[0], seconds, *own]

    def _own(self, metric: Metric, restored: np.ndarray, target: np.ndarray | None) -> float:
        """A further metric of one image; NaN without ground truth."""
        if target is None:
            return math.nan
        inside = slice(self.border, -self.border or None)
        return float(metric(restored[inside, inside], target[inside, inside]))

    def _baseline(self, index: int, pair: ImagePair) -> tuple[float, float]:
        assert pair.gt is not None
        if index not in self._baselines:
            without = bicubic(pair.view, self._scale)
            self._baselines[index] = score(self.rule, without, pair.gt, self.border)
        return self._baselines[index]

    def _row(self, index: int, values: list[float], provenance: Provenance) -> ImageRow:
        psnr, ssim, input_psnr, input_ssim, width, height, seconds, *own = values
        return ImageRow(
            set=self.name,
            image=self.source.name(index),
            protocol=self.rule.name,
            border=self.border,
            psnr=psnr,
            ssim=ssim,
            input_psnr=input_psnr,
            input_ssim=input_ssim,
            width=int(width),
            height=int(height),
            seconds=seconds,
            network=provenance.network,
            weights_sha256=provenance.weights_sha256,
            commit=provenance.commit,
            further=dict(zip(self._further, own, strict=True)),
        )
