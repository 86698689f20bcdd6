"""Floor 3. Making samples, in this process or in others (no torch here: a worker starts sooner).

Reading crops needs no process of its own: threads do it, as decoding and copying release Python's
lock, and handing a sample to another process costs more than making it. A degradation that computes
for tens of milliseconds in Python is another matter.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import pickle
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np

from restore.data.augment import Draw
from restore.data.pair import ImagePair
from restore.data.source import Source
from restore.errors import BackendError, DataError

PR_SET_PDEATHSIG = 1  # of Linux's prctl
Bad = tuple[int, DataError]
"""An image that could not be used, and why."""


class Samples:
    """Samples of a source. With `spare` above 0 the next image takes the place of a bad one, up to
    `spare` in a row."""

    def __init__(self, source: Source, spare: int) -> None:
        self._source, self._spare = source, spare

    def make(self, draw: Draw) -> tuple[ImagePair | None, list[Bad]]:
        """The sample of a draw, or None when too many in a row are bad; and those that are.

        Raises DataError for a bad image when none is to spare. Any other error names the files.
        """
        bad: list[Bad] = []
        for step in range(self._spare + 1):
            index = (draw.key[2] + step) % len(self._source)
            try:
                return self._source.part(index, draw), bad
            except DataError as error:
                if not self._spare:
                    raise
                bad.append((index, error))
            except Exception as error:
                error.add_note(f"while reading {' and '.join(map(str, self._source.files(index)))}")
                raise
        return None, bad


Made = tuple[str, np.ndarray, np.ndarray]
"""name, LQ and GT"""


def processes(samples: Samples, count: int) -> ProcessPoolExecutor:
    """`count` processes for `made_in_worker`, which end with this one. Raises BackendError."""
    try:
        pickled = pickle.dumps(samples)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise BackendError.of(
            "DAT35",
            "the data set cannot be given to worker processes",
            "worker_type",
            str(error),
            "a degradation of an importable class",
            "use worker_type: threads, or define it at the top of its module",
        ) from None
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of our threads
    return ProcessPoolExecutor(count, context, _begin, (pickled,))


_samples: Samples | None = None  # of a worker process


def _begin(pickled: bytes) -> None:
    """In a worker: leave signals to the parent, end with it, and take the source."""
    global _samples
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    cv2.setNumThreads(1)
    _samples = pickle.loads(pickled)  # our own parent's


def made_in_worker(draws: Sequence[Draw]) -> tuple[list[Made], list[Bad]]:
    """In a worker: the samples of some draws, as far as there were enough good images."""
    assert _samples is not None
    made: list[Made] = []
    bad: list[Bad] = []
    for draw in draws:
        pair, skipped = _samples.make(draw)
        bad += skipped
        if pair is None:
            break
        assert pair.gt is not None, "training needs ground truth"
        made.append((pair.name, pair.lq, pair.gt))
    return made, bad
