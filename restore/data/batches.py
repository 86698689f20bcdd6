"""Floor 3. Batches: filled in place in memory that is used again, moved to the device ahead.

Fresh memory for every batch costs page faults, and pinned memory far more, so a batch lies in a
slot. A slot is free again when the last tensor that looks at it is gone: nothing that somebody
still holds is ever overwritten.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from restore import images
from restore.data.augment import Turn

FORMS = 4  # GT and LQ, of this stage and of the one before
UPRIGHT = Turn(False, False, False)


@dataclass(frozen=True)
class Batch:
    """`lq: (B, C, h, w)`, `gt: (B, C, H, W)` as stored (uint8 or uint16) or as float32 in [0, 1],
    and where it stands."""

    lq: Tensor
    gt: Tensor
    names: tuple[str, ...]
    end: int
    """Samples of the stream used up by all ranks once this batch is."""
    turns: Tensor | None = None
    """(B, 3) bool, the fields of a `Turn`, where the turning is left to the device."""
    ready: torch.cuda.Event | None = None
    """When the copy to the GPU is done."""

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both as float32 in [0, 1] on `device`; integers are moved as such, made float there."""
        if self.ready is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(self.ready)
            for tensor in (self.lq, self.gt):
                tensor.record_stream(stream)
        return self._on(device, self.lq), self._on(device, self.gt)

    def _on(self, device: torch.device, held: Tensor) -> Tensor:
        moved = held.to(device)
        if self.turns is not None:
            moved = turned(moved, self.turns.to(device))
        if moved.dtype == torch.float32:
            return moved
        made = moved.to(torch.float32, memory_format=torch.contiguous_format)
        return made.div_(_peak(held))


def _peak(stored: Tensor) -> float:
    return 255.0 if stored.dtype == torch.uint8 else 65535.0


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """`images: (B, C, S, S)`, each turned by its row of `turns`, as `Turn.of` does it."""
    if images.dtype == torch.uint16:  # few operations know it, and these only move values
        return turned(images.view(torch.int16), turns).view(torch.uint16)
    hflip, vflip, transposed = turns[:, :, None, None, None].unbind(1)
    images = torch.where(hflip, images.flip(3), images)
    images = torch.where(vflip, images.flip(2), images)
    return torch.where(transposed, images.transpose(2, 3), images)


class Slots:
    """Memory for batches, kept for the last FORMS shapes asked for; pinned for a GPU to read."""

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned
        self._free: dict[tuple[object, ...], list[np.ndarray]] = {}
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
        """An array that is nobody else's until it and all that looks at it are gone."""
        form = shape, kind
        with self._lock:
            free = self._free.pop(form, [])
            self._free[form] = free  # now the last one asked for
            if len(self._free) > FORMS:
                del self._free[next(iter(self._free))]
            memory = free.pop() if free else None
        if memory is None:
            memory = self._new(shape, kind)
        slot = memory[:]
        weakref.finalize(slot, free.append, memory).atexit = False
        return slot

    def _new(self, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
        if not self._pinned:
            return np.empty(shape, kind)
        size = int(np.prod(shape)) * kind.itemsize
        memory = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        return memory.view(kind).reshape(shape)


class Tray:
    """One batch being made, by several threads at once, each putting in its own samples.

    With `floats` each sample is made float32 right after it was cut, while it lies in the cache;
    with `turn_later` it is not turned, but how it would be is told.
    """

    def __init__(self, count: int, slots: Slots, *, floats: bool, turn_later: bool) -> None:
        self._slots, self._floats, self._turn_later = slots, floats, turn_later
        self._held: tuple[np.ndarray, np.ndarray] | None = None
        self._odd: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._names = [""] * count
        self._turns = [UPRIGHT] * count
        self._lock = threading.Lock()

    def put(self, place: int, name: str, lq: np.ndarray, gt: np.ndarray, turn: Turn) -> None:
        """Make `lq` and `gt`, turned by `turn`, sample `place` of the batch."""
        held = self._held or self._like(lq, gt)
        self._names[place] = name
        if self._turn_later:
            self._turns[place], turn = turn, UPRIGHT
        if self._floats:
            for crop, slot in zip((lq, gt), held, strict=True):
                images.to_float(turn.turned(crop), slot[place])
            return
        small, large = held[0][place], held[1][place]
        if _alike(lq, small) and _alike(gt, large):
            turn.of(lq, small)
            turn.of(gt, large)
        else:
            self._odd[place] = turn.turned(lq), turn.turned(gt)

    def _like(self, lq: np.ndarray, gt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slots for a batch of such samples: the first one decides."""
        with self._lock:
            if self._held is None:
                self._held = self._slot(lq), self._slot(gt)
            return self._held

    def _slot(self, crop: np.ndarray) -> np.ndarray:
        shape, kind = (len(self._names), *crop.shape), crop.dtype
        if self._floats:
            count, height, width, channels = (*shape, 1)[:4]
            shape, kind = (count, channels, height, width), np.dtype(np.float32)
        return self._slots.take(shape, kind)

    def batch(self, end: int) -> Batch:
        """The batch, when every sample is in."""
        assert self._held is not None
        lq, gt = (self._whole(which) for which in (0, 1))
        turns = torch.tensor(self._turns) if self._turn_later else None
        return Batch(lq, gt, tuple(self._names), end, turns)

    def _whole(self, which: int) -> Tensor:
        """All samples in one tensor; 8-bit ones beside 16-bit ones are widened."""
        assert self._held is not None
        slot = self._held[which]
        if self._floats:
            return torch.from_numpy(slot)
        if not self._odd:
            return _planes(slot)
        crops: Sequence[np.ndarray] = [
            self._odd[place][which] if place in self._odd else crop
            for place, crop in enumerate(slot)
        ]
        if len({crop.dtype for crop in crops}) > 1:
            crops = [c if c.dtype == np.uint16 else c.astype(np.uint16) * 257 for c in crops]
        return _planes(np.stack(crops))


def _alike(crop: np.ndarray, slot: np.ndarray) -> bool:
    return crop.shape == slot.shape and crop.dtype == slot.dtype


def _planes(stacked: np.ndarray) -> Tensor:
    """(B, H, W[, C]) as a `(B, C, H, W)` tensor of the same memory."""
    tensor = torch.from_numpy(stacked)
    return tensor.unsqueeze(1) if tensor.dim() == 3 else tensor.permute(0, 3, 1, 2)


def copied_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches in the GPU's memory, each copied on a stream of its own while the one before
    it is in use."""
    stream = torch.cuda.Stream(device)
    before: tuple[Batch, Batch] | None = None  # in pinned memory, and as it arrives on the GPU
    for batch in batches:
        with torch.cuda.stream(stream):
            turns = batch.turns
            moved = replace(
                batch,
                lq=batch.lq.to(device, non_blocking=True),
                gt=batch.gt.to(device, non_blocking=True),
                turns=turns.to(device, non_blocking=True) if turns is not None else None,
                ready=stream.record_event(),
            )
        if before is not None:
            yield before[1]
            assert before[1].ready is not None
            before[1].ready.synchronize()  # long done; then its slot may be filled again
        before = batch, moved
