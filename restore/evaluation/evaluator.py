"""Floor 4. A set under a scoring rule: every image once, shared over the ranks, the same digits on
any number of them.

While the network works on an image, one thread decodes the next and another scores and saves the
one before; both keep the images' order.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from restore.data.pair import ImagePair
from restore.data.source import Source
from restore.evaluation.predictor import Predictor, Restoration
from restore.metrics.protocols import ScoringRule
from restore.metrics.scores import bicubic, score
from restore.reports.records import ImageRow
from restore.world import World

UNSCORED = 2  # restored images that may wait to be scored: memory against a slow image
CELLS = 11  # numbers of a row, the user's own metrics aside
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

        `each(index, seen)` is called on the rank that restored the image, in a thread of its own,
        one image after the other. Images without ground truth get rows with NaN scores. Raises
        DataError for an image that cannot be used, BackendError when memory does not suffice.
        """
        count = len(self.source)
        mine = range(self._world.rank, count, self._world.size)
        cells = torch.zeros(count, CELLS + len(self._further), dtype=torch.float64)
        for index, values in self._scored(list(mine), predictor, each):
            cells[index] = torch.tensor(values, dtype=torch.float64)
        # an infinite or NaN cell stays so: the other ranks add zeros to it
        table = self._world.sum(cells).tolist()
        return [self._row(i, values, predictor, provenance) for i, values in enumerate(table)]

    def _scored(
        self, indices: list[int], predictor: Predictor, each: Callable[[int, Seen], None] | None
    ) -> list[tuple[int, list[float]]]:
        """(index, numbers of its row) of each image; an error of a thread is raised here."""
        scored: list[tuple[int, list[float]]] = []
        waiting: deque[tuple[int, Future[list[float]]]] = deque()
        unrounded = self.rule.pixels == "unrounded"
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as scorer:
            try:
                ahead = reader.submit(self.source.__getitem__, indices[0]) if indices else None
                for place, index in enumerate(indices):
                    assert ahead is not None
                    pair = ahead.result()
                    if place + 1 < len(indices):
                        ahead = reader.submit(self.source.__getitem__, indices[place + 1])
                    start = time.perf_counter()
                    restored = predictor.run(pair.lq, unrounded=unrounded)
                    seconds = time.perf_counter() - start
                    job = scorer.submit(self._score, index, pair, restored, seconds, each)
                    waiting.append((index, job))
                    while len(waiting) > UNSCORED:
                        done, job = waiting.popleft()
                        scored.append((done, job.result()))
                scored += [(index, job.result()) for index, job in waiting]
            finally:  # after an error, what has not begun is left out
                reader.shutdown(wait=False, cancel_futures=True)
                scorer.shutdown(wait=False, cancel_futures=True)
        return scored

    def _score(
        self,
        index: int,
        pair: ImagePair,
        restored: Restoration,
        seconds: float,
        each: Callable[[int, Seen], None] | None,
    ) -> list[float]:
        scores = [math.nan] * 4
        if pair.gt is not None:
            numbers = restored.image if restored.unrounded is None else restored.unrounded
            scores[:2] = score(self.rule, numbers, pair.gt, self.border)
            scores[2:] = self._baseline(index, pair)
        if each is not None:
            each(index, Seen(self.name, pair, restored.image))
        height, width = restored.image.shape[:2]
        cut = restored.tiles, restored.tile, restored.overlap, restored.difference
        own = [self._own(metric, restored.image, pair.gt) for metric in self._further.values()]
        return [*scores, width, height, seconds, *cut, *own]

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

    def _row(
        self, index: int, values: list[float], predictor: Predictor, provenance: Provenance
    ) -> ImageRow:
        psnr, ssim, input_psnr, input_ssim, width, height, seconds, *cut = values[:CELLS]
        tiles, tile, overlap, difference = cut
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
            precision=predictor.options.precision,
            ensemble=predictor.options.ensemble,
            tiling=predictor.options.tiling if tiles > 1 else "whole",
            tiles=int(tiles),
            tile=int(tile),
            overlap=int(overlap),
            tile_difference=difference,
            further=dict(zip(self._further, values[CELLS:], strict=True)),
        )
