"""Floor 3. The training stream: sample `i` is a pure function of the seed, so its state is `i`.

Position p of the endless stream is item `order(seed, epoch)[p mod n]` of epoch `p div n`, degraded,
cut and flipped by what (seed, epoch, index) alone decides. A rank takes its share of every global
batch, in one part or in several. The position of a step follows from the stages (patch and batch by
step), so the state of the loader is the step, and the position where the number of ranks changes.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from typing import Literal

import numpy as np
import torch

from restore.data.augment import Draw, sample_words
from restore.data.batches import Batch, Slots, Tray, copied_ahead
from restore.data.pair import ImagePair
from restore.data.source import Source
from restore.data.stages import Share, Stages
from restore.errors import DataError

log = logging.getLogger("restore")
AHEAD = 3  # batches being made or waiting, beyond the one in use
SKIPPED = 0.001  # share of a set that may be skipped, but always one image
OnBad = Literal["raise", "skip"]


@lru_cache(maxsize=2)
def order(seed: int, epoch: int, items: int) -> np.ndarray:
    """The permutation of `items` items in `epoch`."""
    sequence = np.random.SeedSequence((seed, epoch), spawn_key=(1,))
    return np.random.Generator(np.random.PCG64(sequence)).permutation(items)


class Loader:
    """Batches of a source, for one rank, from any step of the run.

    `threads` make them ahead; 0 makes each when it is asked for. For a GPU as `device` they are
    copied to it ahead as well and turned there. `on_bad`: an image that cannot be used ends the
    run, or the next one of the set takes its place, for at most a thousandth of the set.
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
        threads: int = 2,
        device: torch.device | None = None,
        on_bad: OnBad = "raise",
    ) -> None:
        self.stages, self.share = stages, share
        self.skipped: set[int] = set()
        """Images that could not be used so far."""
        self._source, self._seed, self._threads = source, seed, threads
        self._hflip, self._rot, self._on_bad = hflip, rot, on_bad
        self._origin = (0, 0)
        self._device = device if device is not None and device.type == "cuda" else None
        self._slots = Slots(pinned=self._device is not None)
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

        Raises DataError, from the thread that met it, for an image that cannot be used.
        """
        made = self._made(step)
        try:
            yield from copied_ahead(made, self._device) if self._device else made
        finally:
            made.close()

    def _made(self, step: int) -> Generator[Batch, None, None]:
        """The batches in the CPU's memory."""
        wanted = ((at, part) for at in count(step) for part in range(self.parts))
        if not self._threads:
            for at, part in wanted:
                tray, draws = self._started(at, part)
                self._fill(tray, draws, 0, 1)
                yield tray.batch(self.position(at + 1))
        with ThreadPoolExecutor(self._threads, thread_name_prefix="loader") as pool:
            waiting: deque[tuple[int, Tray, list[Future[None]]]] = deque()
            running = 0
            try:
                while True:
                    while len(waiting) < AHEAD or running < self._threads:
                        at, part = next(wanted)
                        tray, draws = self._started(at, part)
                        shares = min(self._threads, len(draws))
                        submit = pool.submit
                        fills = [submit(self._fill, tray, draws, k, shares) for k in range(shares)]
                        waiting.append((at, tray, fills))
                        running += shares
                    at, tray, fills = waiting.popleft()
                    running -= len(fills)
                    for fill in fills:
                        fill.result()
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
        return Tray(size, self._slots, turn_later=self._device is not None), draws

    def _fill(self, tray: Tray, draws: list[Draw], first: int, shares: int) -> None:
        """Make every `shares`-th sample of a batch from number `first` on."""
        for place in range(first, len(draws), shares):
            draw = draws[place]
            pair = self._part(draw)
            assert pair.gt is not None, "training needs ground truth"
            tray.put(place, pair.name, pair.lq, pair.gt, draw.turn())

    def _part(self, draw: Draw) -> ImagePair:
        """The sample that `draw` means, or the next one of the set that can be used."""
        index, items = draw.key[2], len(self._source)
        while True:
            try:
                return self._source.part(index, draw)
            except DataError as error:
                if self._on_bad == "raise":
                    raise
                self._skip(index, error)
                index = (index + 1) % items
            except Exception as error:
                error.add_note(f"while reading {' and '.join(map(str, self._source.files(index)))}")
                raise

    def _skip(self, index: int, error: DataError) -> None:
        """Count a bad image and say so once. Raises DataError DAT19 when there are too many."""
        with self._lock:
            known = index in self.skipped
            self.skipped.add(index)
            skipped, items = len(self.skipped), len(self._source)
        limit = min(max(1, math.floor(SKIPPED * items)), items - 1)
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
