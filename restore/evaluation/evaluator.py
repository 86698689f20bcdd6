"""Floor 4. A set under a scoring rule: every image once, shared over the ranks, the same digits on
any number of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from restore.data.pair import ImagePair
from restore.data.source import Source
from restore.evaluation.predictor import Predictor, stored
from restore.metrics.protocols import ScoringRule
from restore.metrics.scores import bicubic, score
from restore.reports.records import ImageRow
from restore.world import World


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
        self, name: str, source: Source, rule: ScoringRule, border: int, scale: int, world: World
    ) -> None:
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
        cells = torch.zeros(count, 7, dtype=torch.float64)
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
        output = predictor.unrounded(pair.lq)
        restored = stored(output, pair.lq.dtype)
        seconds = time.perf_counter() - start
        scores = [math.nan] * 4
        if pair.gt is not None:
            compared = output if self.rule.pixels == "unrounded" else restored
            scores[:2] = score(self.rule, compared, pair.gt, self.border)
            scores[2:] = self._baseline(index, pair)
        if each is not None:
            each(index, Seen(self.name, pair, restored))
        return [*scores, restored.shape[1], restored.shape[0], seconds]

    def _baseline(self, index: int, pair: ImagePair) -> tuple[float, float]:
        assert pair.gt is not None
        if index not in self._baselines:
            without = bicubic(pair.view, self._scale)
            self._baselines[index] = score(self.rule, without, pair.gt, self.border)
        return self._baselines[index]

    def _row(self, index: int, values: list[float], provenance: Provenance) -> ImageRow:
        psnr, ssim, input_psnr, input_ssim, width, height, seconds = values
        return ImageRow(
            set=self.name,
            image=self.source.name(index),
            protocol=self.rule.stamp,
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
        )
