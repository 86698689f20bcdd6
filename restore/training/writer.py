"""Floor 5. Saving beside training: the loop waits for a copy in memory, a thread does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from restore.errors import SaveError
from restore.training.checkpoint import Checkpoints

Files = Mapping[str, Mapping[str, Tensor]]


class Writer:
    """Writes one checkpoint at a time, from buffers that are kept and filled again.

    Leaving its `with` block waits for the save under way.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._buffers: dict[str, dict[str, Tensor]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: Future[object] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)

    def start(self, tensors: Files, numbers: Mapping[str, Any], *, best: bool) -> None:
        """Copy `tensors` (file stem -> tensors by name) and begin to write them.

        The save before must have been waited for.
        """
        assert self._running is None
        self._take_copy(tensors)
        frozen = {**numbers, "best": dict(numbers["best"])}
        self._running = self._pool.submit(self._checkpoints.save, self._buffers, frozen, best=best)

    def wait(self) -> SaveError | None:
        """Until the save that was begun is done; why it failed, or None."""
        running, self._running = self._running, None
        if running is None:
            return None
        error = running.exception()
        if error is not None and not isinstance(error, SaveError):
            raise error
        return error

    def _take_copy(self, tensors: Files) -> None:
        """Into buffers of the same shapes; memory that is new each time costs more than the copy.

        From a GPU into pinned memory, all copies at once.
        """
        live = [tensor.detach() for file in tensors.values() for tensor in file.values()]
        if not self._fits(tensors):
            self._buffers = {
                stem: {name: _buffer(tensor) for name, tensor in file.items()}
                for stem, file in tensors.items()
            }
        kept = [tensor for file in self._buffers.values() for tensor in file.values()]
        torch._foreach_copy_(kept, live, non_blocking=True)  # pyright: ignore
        if any(tensor.is_cuda for tensor in live):
            torch.cuda.synchronize()

    def _fits(self, tensors: Files) -> bool:
        return _shapes(tensors) == _shapes(self._buffers)


def _shapes(files: Files) -> dict[str, dict[str, tuple[torch.Size, torch.dtype]]]:
    return {
        stem: {name: (tensor.shape, tensor.dtype) for name, tensor in file.items()}
        for stem, file in files.items()
    }


def _buffer(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
