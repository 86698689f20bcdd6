"""Floor 3. The training stream: sample `i` is a pure function of the seed, so its state is `i`.

Position p of the endless stream is item `order(seed, epoch)[p mod n]` of epoch `p div n`, cut and
flipped by a generator of (seed, epoch, index). Rank r of W takes its share of every global batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from restore.data.augment import CropFlip, sample_rng
from restore.data.sources import Source

AHEAD = 3  # batches made ahead of the one in use


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
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The permutation of `count` items in `epoch`."""
    sequence = np.random.SeedSequence((seed, epoch), spawn_key=(1,))
    return np.random.Generator(np.random.PCG64(sequence)).permutation(count)


class Loader:
    """Batches of a source, for one rank, from any position of the stream."""

    def __init__(
        self,
        source: Source,
        crop: CropFlip,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        threads: int = 2,
    ) -> None:
        self._source, self._crop, self._seed = source, crop, seed
        self._batch, self._rank, self._ranks, self._threads = batch, rank, ranks, threads

    @property
    def global_batch(self) -> int:
        """Samples of one step over all ranks."""
        return self._batch * self._ranks

    def epoch(self, position: int) -> int:
        """The epoch in which stream position `position` lies."""
        return position // len(self._source)

    def sample(self, position: int) -> tuple[np.ndarray, np.ndarray, str]:
        """(lq, gt, name) of stream position `position`."""
        epoch, offset = divmod(position, len(self._source))
        index = int(order(self._seed, epoch, len(self._source))[offset])
        lq, gt = self._crop(self._source[index], sample_rng(self._seed, epoch, index))
        return lq, gt, self._source.name(index)

    def batches(self, start: int) -> Generator[Batch, None, None]:
        """This rank's batches from stream position `start` on, without end.

        Raises DataError, from the thread that met it, for an image that cannot be used.
        """
        if not self._threads:
            while True:
                yield self._collate([self.sample(p) for p in self._positions(start)], start)
                start += self.global_batch
        with ThreadPoolExecutor(self._threads, thread_name_prefix="loader") as pool:
            waiting: deque[list[Future[tuple[np.ndarray, np.ndarray, str]]]] = deque()
            made = start
            try:
                while True:
                    while len(waiting) < AHEAD:
                        positions = self._positions(made)
                        waiting.append([pool.submit(self.sample, p) for p in positions])
                        made += self.global_batch
                    samples = [future.result() for future in waiting.popleft()]
                    yield self._collate(samples, start)
                    start += self.global_batch
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _positions(self, start: int) -> range:
        first = start + self._rank * self._batch
        return range(first, first + self._batch)

    def _collate(self, samples: list[tuple[np.ndarray, np.ndarray, str]], start: int) -> Batch:
        lq, gt, names = zip(*samples, strict=True)
        return Batch(_stack(lq), _stack(gt), names, start + self.global_batch)


def _stack(crops: tuple[np.ndarray, ...]) -> Tensor:
    """HWC or HW crops as one `(B, C, H, W)` tensor; 8-bit ones beside 16-bit ones are widened."""
    if len({crop.dtype for crop in crops}) > 1:
        crops = tuple(c if c.dtype == np.uint16 else c.astype(np.uint16) * 257 for c in crops)
    stacked = torch.from_numpy(np.stack(crops))
    return stacked.unsqueeze(1) if stacked.dim() == 3 else stacked.permute(0, 3, 1, 2)
