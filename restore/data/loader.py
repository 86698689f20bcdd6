"""Floor 3. The training stream: sample `i` is a pure function of the seed, so its state is `i`.

Position p of the endless stream is item `order(seed, epoch)[p mod n]` of epoch `p div n`, degraded,
cut and flipped by a generator of (seed, epoch, index). Rank r of W takes its share of every global
batch. The position of a step follows from the stages (patch and batch by step), so the state of the
loader is the step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
import torch
from torch import Tensor

from restore.data.augment import CropFlip, sample_rng
from restore.data.sources import Source
from restore.data.stages import Stages

AHEAD = 3  # batches made ahead of the one in use
Sample = tuple[np.ndarray, np.ndarray, str]


@dataclass(frozen=True)
class Batch:
    """`lq: (B, C, h, w)`, `gt: (B, C, H, W)` as stored (uint8 or uint16), and where it stands."""

    lq: Tensor
    gt: Tensor
    names: tuple[str, ...]
    end: int
    """Samples of the stream used up by all ranks once this batch is."""

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both as float32 in [0, 1] on `device`: moved as integers, made float there."""
        return _float(self.lq, device), _float(self.gt, device)


def _float(stored: Tensor, device: torch.device) -> Tensor:
    peak = 255.0 if stored.dtype == torch.uint8 else 65535.0
    if device.type == "cuda":
        stored = stored.pin_memory()
    moved = stored.to(device, non_blocking=True)
    return moved.to(torch.float32, memory_format=torch.contiguous_format).div_(peak)


@lru_cache(maxsize=2)
def order(seed: int, epoch: int, items: int) -> np.ndarray:
    """The permutation of `items` items in `epoch`."""
    sequence = np.random.SeedSequence((seed, epoch), spawn_key=(1,))
    return np.random.Generator(np.random.PCG64(sequence)).permutation(items)


class Loader:
    """Batches of a source, for one rank, from any step of the run."""

    def __init__(
        self,
        source: Source,
        stages: Stages,
        *,
        hflip: bool,
        rot: bool,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        threads: int = 2,
        pad: bool = False,
    ) -> None:
        self.stages = stages
        self._source, self._seed, self._threads = source, seed, threads
        self._rank, self._ranks = rank, ranks
        self._crops = {s.gt_size: CropFlip(s.gt_size, hflip, rot, pad) for s in stages}

    def position(self, step: int) -> int:
        """Samples of the stream that all ranks have taken before `step`."""
        return self.stages.position(step) * self._ranks

    def sample(self, position: int, gt_size: int) -> Sample:
        """(lq, gt, name) of a stream position, cut to `gt_size`."""
        epoch, offset = divmod(position, len(self._source))
        index = int(order(self._seed, epoch, len(self._source))[offset])
        rng = sample_rng(self._seed, epoch, index)
        lq, gt = self._source.patch(index, self._crops[gt_size], rng)
        return lq, gt, self._source.name(index)

    def batches(self, step: int) -> Generator[Batch, None, None]:
        """This rank's batches from 0-based `step` on, without end.

        Raises DataError, from the thread that met it, for an image that cannot be used.
        """
        if not self._threads:
            for at in count(step):
                yield self._collate([self.sample(*wanted) for wanted in self._wanted(at)], at)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="loader") as pool:
            waiting: deque[list[Future[Sample]]] = deque()
            asked = step
            try:
                for at in count(step):
                    while len(waiting) < AHEAD:
                        waiting.append([pool.submit(self.sample, *w) for w in self._wanted(asked)])
                        asked += 1
                    samples = [future.result() for future in waiting.popleft()]
                    yield self._collate(samples, at)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _wanted(self, step: int) -> list[tuple[int, int]]:
        """(stream position, gt_size) of each of this rank's samples at `step`."""
        stage = self.stages.at(step)
        first = self.position(step) + self._rank * stage.batch
        return [(position, stage.gt_size) for position in range(first, first + stage.batch)]

    def _collate(self, samples: list[Sample], step: int) -> Batch:
        lq, gt, names = zip(*samples, strict=True)
        return Batch(_stack(lq), _stack(gt), names, self.position(step + 1))


def _stack(crops: tuple[np.ndarray, ...]) -> Tensor:
    """HWC or HW crops as one `(B, C, H, W)` tensor; 8-bit ones beside 16-bit ones are widened."""
    if len({crop.dtype for crop in crops}) > 1:
        crops = tuple(c if c.dtype == np.uint16 else c.astype(np.uint16) * 257 for c in crops)
    stacked = torch.from_numpy(np.stack(crops))
    return stacked.unsqueeze(1) if stacked.dim() == 3 else stacked.permute(0, 3, 1, 2)
