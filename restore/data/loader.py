"""Floor 3. The training stream: sample `i` is a pure function of the seed, so its state is `i`.

Position p of the endless stream is item `order(seed, epoch)[p mod n]` of epoch `p div n`, degraded,
cut and flipped by what (seed, epoch, index) alone decides. A rank takes its share of every global
batch, in one part or in several. The position of a step follows from the stages (patch and batch by
step), so the state of the loader is the step, and the position where the number of ranks changes.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from itertools import count
from typing import Any, Literal

import numpy as np
import torch

from restore.data.augment import Draw, sample_words
from restore.data.batches import Batch, Slots, Tray, copied_ahead
from restore.data.source import Source
from restore.data.stages import Share, Stages
from restore.data.workers import Bad, Samples, made_in_worker, processes
from restore.errors import DataError

log = logging.getLogger("restore")
AHEAD = 3  # batches being made or waiting, beyond the one in use
SKIPPED = 1000  # one image in as many may be skipped, and always one
SHOWN = 6  # files that a message names
OnBad = Literal["raise", "skip"]
WorkerType = Literal["threads", "processes"]


@lru_cache(maxsize=2)
def order(seed: int, epoch: int, items: int) -> np.ndarray:
    """The permutation of `items` items in `epoch`."""
    sequence = np.random.SeedSequence((seed, epoch), spawn_key=(1,))
    return np.random.Generator(np.random.PCG64(sequence)).permutation(items)


class Loader:
    """Batches of a source, for one rank, from any step of the run.

    `workers` threads make them ahead, or processes (`worker_type`), for degradations that compute
    for long; 0 makes each when it is asked for. For a GPU as `device` they are copied to it ahead
    as well and turned there; for the CPU they are made float; without a device they stay as stored.
    `on_bad`: an image that cannot be used ends the run, or the next one of the set takes its place,
    for at most a thousandth of the set.
    """

    def __init__(
        self,
        source: Source,
        stages: Stages,
        *,
        hflip: bool,
        rot: bool,
        seed: int,
        share: Share = Share(),  # noqa: B008 (frozen)
        workers: int = 2,
        worker_type: WorkerType = "threads",
        device: torch.device | None = None,
        on_bad: OnBad = "raise",
    ) -> None:
        self.stages, self.share = stages, share
        self.skipped: set[int] = set()
        """Images that could not be used so far."""
        self._source, self._seed = source, seed
        self._workers, self._worker_type = workers, worker_type
        self._spare = min(max(1, len(source) // SKIPPED), len(source) - 1)
        self._samples = Samples(source, self._spare if on_bad == "skip" else 0)
        self._hflip, self._rot = hflip, rot
        self._origin = (0, 0)
        self._floats = device is not None and device.type == "cpu"
        self._gpu = device if device is not None and device.type == "cuda" else None
        self._slots = Slots(pinned=self._gpu is not None)
        self._lock = threading.Lock()

    @property
    def parts(self) -> int:
        """Batches of one step."""
        return self.share.parts

    def position(self, step: int) -> int:
        """Samples of the stream that all ranks have taken before `step`."""
        start, taken = self._origin
        steps = self.stages.position(step) - self.stages.position(start)
        return taken + steps * self.share.recipe_ranks

    def continue_from(self, step: int, samples: int) -> None:
        """Let `step` begin at position `samples`, wherever other ranks have brought the stream."""
        self._origin = (step, samples)

    def batches(self, step: int) -> Generator[Batch, None, None]:
        """This rank's batches from 0-based `step` on, `parts` for each step, without end.

        Raises DataError for an image that cannot be used, as the worker met it, and DAT11 when a
        worker process has died.
        """
        made = self._made_here(step) if not self._workers else self._made_ahead(step)
        try:
            yield from copied_ahead(made, self._gpu) if self._gpu else made
        finally:
            made.close()

    def _wanted(self, step: int) -> Iterator[tuple[int, int]]:
        """(step, part) of every batch from `step` on."""
        return ((at, part) for at in count(step) for part in range(self.parts))

    def _made_here(self, step: int) -> Generator[Batch, None, None]:
        """Each batch when it is asked for."""
        for at, part in self._wanted(step):
            tray, draws = self._started(at, part)
            self._fill(tray, draws, 0, 1)
            yield tray.batch(self.position(at + 1))

    def _made_ahead(self, step: int) -> Generator[Batch, None, None]:
        """Batches made by workers, AHEAD of them or more, each by several workers at once."""
        workers = self._workers
        pool = (
            processes(self._samples, workers)
            if self._worker_type == "processes"
            else ThreadPoolExecutor(workers, thread_name_prefix="loader")
        )
        waiting: deque[tuple[int, Tray, list[Draw], list[Future[Any]]]] = deque()
        running, wanted = 0, self._wanted(step)
        try:
            while True:
                while len(waiting) < AHEAD or running < workers:
                    at, part = next(wanted)
                    tray, draws = self._started(at, part)
                    shares = min(workers, len(draws))
                    fills = [self._handed_out(pool, tray, draws, k, shares) for k in range(shares)]
                    waiting.append((at, tray, draws, fills))
                    running += shares
                at, tray, draws, fills = waiting.popleft()
                running -= len(fills)
                self._gather(tray, draws, fills)
                yield tray.batch(self.position(at + 1))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _started(self, step: int, part: int) -> tuple[Tray, list[Draw]]:
        """An empty tray for one part of `step`, and what chance decides of each sample."""
        stage, items = self.stages.at(step), len(self._source)
        size = self.share.size(stage)
        first = self.position(step) + self.share.first(stage, part)
        epochs, offsets = np.divmod(np.arange(first, first + size), items)
        indices = np.concatenate(
            [
                order(self._seed, epoch, items)[offsets[epochs == epoch]]
                for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)
            ]
        )
        words = sample_words(self._seed, epochs, indices).tolist()
        keys = zip(epochs.tolist(), indices.tolist(), words, strict=True)
        turns = self._hflip, self._rot
        draws = [Draw((self._seed, e, index), w, stage.gt_size, *turns) for e, index, w in keys]
        tray = Tray(size, self._slots, floats=self._floats, turn_later=self._gpu is not None)
        return tray, draws

    def _handed_out(
        self, pool: Executor, tray: Tray, draws: list[Draw], first: int, shares: int
    ) -> Future[Any]:
        """Every `shares`-th sample of a batch from number `first` on, given to a worker."""
        if self._worker_type == "processes":
            return pool.submit(made_in_worker, draws[first::shares])
        return pool.submit(self._fill, tray, draws, first, shares)

    def _fill(self, tray: Tray, draws: list[Draw], first: int, shares: int) -> None:
        """Make every `shares`-th sample of a batch from number `first` on."""
        for place in range(first, len(draws), shares):
            pair, bad = self._samples.make(draws[place])
            if bad:
                self._skip(bad)
            assert pair is not None and pair.gt is not None, "training needs ground truth"
            tray.put(place, pair.name, pair.lq, pair.gt, draws[place].turn())

    def _gather(self, tray: Tray, draws: list[Draw], parts: list[Future[Any]]) -> None:
        """Wait for a batch; put in what processes have sent."""
        for first, part in enumerate(parts):
            try:
                sent = part.result()
            except BrokenProcessPool:
                raise self._died(draws[first :: len(parts)]) from None
            if sent is None:  # a thread put its samples in itself
                continue
            made, bad = sent
            if bad:
                self._skip(bad)
            places = range(first, len(draws), len(parts))
            for place, (name, lq, gt) in zip(places, made, strict=True):
                tray.put(place, name, lq, gt, draws[place].turn())

    def _skip(self, bad: list[Bad]) -> None:
        """Count bad images, each said once. Raises DataError DAT19 when there are too many."""
        items, limit = len(self._source), self._spare
        for index, error in bad:
            with self._lock:
                known = index in self.skipped
                self.skipped.add(index)
                skipped = len(self.skipped)
            if skipped > limit:
                raise DataError.of(
                    "DAT19",
                    "too many images cannot be used",
                    str(self._source.files(index)[0]),
                    f"{skipped} of {items}; the last: {error.problems[0].what}",
                    f"at most {limit}",
                    "repair the set; the log names every one",
                ) from error
            if not known:
                log.warning("skipped, image %d of %d so far: %s", skipped, items, error)

    def _died(self, draws: list[Draw]) -> DataError:
        files = [str(file) for draw in draws for file in self._source.files(draw.key[2])]
        more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
        return DataError.of(
            "DAT11",
            "a loader's worker process has died",
            ", ".join(files[:SHOWN]) + more,
            "no answer while samples of these files were made",
            "a worker that lives",
            "most often memory ran out: use fewer workers, or worker_type: threads",
        )
