"""Floor 4. A set under scoring rules: every image once, shared over the ranks, the same digits on
any number of them.

While the network works on an image, one thread decodes the next and another scores and saves the
one before; both keep the images' order.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from restore.data.pair import ImagePair
from restore.data.source import Source
from restore.errors import DataError
from restore.evaluation.predictor import Predictor, Restoration
from restore.evaluation.scorer import Metric, Scorer
from restore.metrics.protocols import Bordered
from restore.metrics.scores import bicubic
from restore.reports.records import ImageRow
from restore.world import World

UNSCORED = 2  # restored images that may wait to be scored: memory against a slow image
HOW = 7  # numbers that the rows of one image share, whatever the rule
NOTE = 400  # bytes of a refusal that other ranks get to know


@dataclass(frozen=True)
class Provenance:
    """What was tested: goes into every row."""

    network: str
    weights_sha256: str
    commit: str
    compiled: bool = False
    device: str = ""
    backend: str = ""
    """Of the selective scan, for networks that have one."""


@dataclass(frozen=True)
class Seen:
    """One image of an evaluation, for whoever wants to save or show it."""

    set: str
    pair: ImagePair
    restored: np.ndarray

    def baseline(self) -> np.ndarray:
        """The input at the target's size without a network; made at each call."""
        return bicubic(self.pair.view, self.pair.scale)


@dataclass(frozen=True)
class Survey:
    """Rows under every rule that fits; by name and version, why each other one does not."""

    rows: list[ImageRow]
    refused: dict[str, str]


Each = Callable[[int, Seen], None]
"""Called with an image's index on the rank that restored it, in a thread of its own, one image
after the other."""


class Evaluator:
    """Scores a predictor on one source: every image restored once, whatever the number of rules."""

    def __init__(
        self,
        name: str,
        source: Source,
        rules: Sequence[Bordered],
        world: World,
        *,
        further: Mapping[str, Metric] | None = None,
    ) -> None:
        self.name, self.source = name, source
        self._scorer, self._world = Scorer(rules, further), world

    def run(
        self, predictor: Predictor, provenance: Provenance, each: Each | None = None
    ) -> list[ImageRow]:
        """One row per rule and image, rule by rule, images in the source's order, on every rank.

        Images without ground truth get rows with NaN scores. Raises DataError for an image that
        cannot be used or that a rule refuses, BackendError when memory does not suffice.
        """
        return self._rows(predictor, provenance, each, None)

    def survey(
        self, predictor: Predictor, provenance: Provenance, each: Each | None = None
    ) -> Survey:
        """As `run`; but a rule that refuses an image is left out with all its rows."""
        refused: dict[int, DataError] = {}
        rows = self._rows(predictor, provenance, each, refused)
        notes = self._agreed({place: str(error) for place, error in refused.items()})
        left_out = {self._scorer.rules[place][0].stamp: note for place, note in notes.items()}
        return Survey([row for row in rows if row.protocol not in left_out], left_out)

    def _rows(
        self,
        predictor: Predictor,
        provenance: Provenance,
        each: Each | None,
        refused: dict[int, DataError] | None,
    ) -> list[ImageRow]:
        count, rules = len(self.source), self._scorer.rules
        mine = range(self._world.rank, count, self._world.size)
        cells = torch.zeros(count, HOW + len(rules) * self._scorer.width, dtype=torch.float64)
        for index, values in self._scored(list(mine), predictor, each, refused):
            cells[index] = torch.tensor(values, dtype=torch.float64)
        # an infinite or NaN cell stays so: the other ranks add zeros to it
        table = self._world.sum(cells).tolist()
        return [
            self._row(place, index, values, predictor, provenance)
            for place in range(len(rules))
            for index, values in enumerate(table)
        ]

    def _scored(
        self,
        indices: list[int],
        predictor: Predictor,
        each: Each | None,
        refused: dict[int, DataError] | None,
    ) -> list[tuple[int, list[float]]]:
        """(index, numbers of its rows) of each image; an error of a thread is raised here."""
        scored: list[tuple[int, list[float]]] = []
        waiting: deque[tuple[int, Future[list[float]]]] = deque()
        unrounded = self._scorer.unrounded
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
                    job = scorer.submit(self._score, index, pair, restored, seconds, each, refused)
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
        each: Each | None,
        refused: dict[int, DataError] | None,
    ) -> list[float]:
        """The numbers of an image's rows. Refusals are noted in `refused`, raised without it."""
        figures: list[float] = []
        for place, got in enumerate(self._scorer.figures(index, pair, restored, refused or ())):
            if isinstance(got, DataError):
                if refused is None:
                    raise got
                refused[place] = got
                got = [math.nan] * self._scorer.width
            figures += got
        if each is not None:
            each(index, Seen(self.name, pair, restored.image))
        height, width = restored.image.shape[:2]
        cut = restored.tiles, restored.tile, restored.overlap, restored.difference
        return [width, height, seconds, *cut, *figures]

    def _agreed(self, notes: Mapping[int, str]) -> dict[int, str]:
        """What any rank noted of a rule, the same on all: the first rank's that noted something."""
        found: dict[int, str] = {}
        for place in range(len(self._scorer.rules)):
            own = notes.get(place, "").encode()[:NOTE]
            first = next(filter(None, self._world.gather_bytes(own, NOTE)), b"")
            if first:
                found[place] = first.decode(errors="ignore")  # a letter may be cut in two
        return found

    def _row(
        self,
        place: int,
        index: int,
        values: list[float],
        predictor: Predictor,
        provenance: Provenance,
    ) -> ImageRow:
        rule, border = self._scorer.rules[place]
        width, height, seconds, tiles, tile, overlap, difference = values[:HOW]
        start = HOW + place * self._scorer.width
        psnr, ssim, input_psnr, input_ssim, *own = values[start : start + self._scorer.width]
        return ImageRow(
            set=self.name,
            image=self.source.name(index),
            protocol=rule.stamp,
            border=border,
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
            compiled=provenance.compiled,
            device=provenance.device,
            backend=provenance.backend,
            further=dict(zip(self._scorer.further, own, strict=True)),
        )
