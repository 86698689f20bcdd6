"""Floor 3. Carries a plan out: copies one after the other in the source's order, then what is made
of them, several at a time. See `ledger` for how a run that is cut off goes on."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore import images
from restore.data.prepare.ledger import Entry, Ledger
from restore.data.prepare.plan import SUB_IMAGES, Copy, Making, Plan
from restore.data.prepare.source import Source
from restore.data.prepare.space import require_room
from restore.data.prepare.tiles import tiles_of
from restore.errors import DataError
from restore.ops.resize import imresize
from restore.reports.sinks import progress


@dataclass(frozen=True)
class Rest:
    """What is left to do of a plan, and how many steps were done before."""

    copies: tuple[Copy, ...]
    makings: tuple[Making, ...]
    done: int

    @property
    def bytes(self) -> int:
        """About how many bytes are still to be written."""
        copied = sum(copy.member.size for copy in self.copies)
        return copied + sum(making.bytes for making in self.makings)


def rest_of(plan: Plan, ledger: Ledger) -> Rest:
    """The steps whose files are not there; of a file that is copied anew, also what is made.

    Raises DataError DAT16 when sub-images of another size are there.
    """
    _one_size(plan, ledger)
    copies = tuple(c for c in plan.copies if not ledger.copied(c.target, c.member.size))
    renewed = {copy.target for copy in copies}
    makings = []
    for making in plan.makings:
        if making.source in renewed or not ledger.made(making.label):
            makings.append(making)
            renewed.add(making.target)
    done = len(plan.copies) + len(plan.makings) - len(copies) - len(makings)
    return Rest(copies, tuple(makings), done)


def _one_size(plan: Plan, ledger: Ledger) -> None:
    """Sub-images of two sizes in one folder would be trained on as one set."""
    wanted = {m.source: m.label for m in plan.makings if m.kind == "tiles"}
    for label in ledger.labels():
        source = label.partition(SUB_IMAGES)[2]
        if source in wanted and label != wanted[source] and not ledger.forget(label):
            raise DataError.of(
                "DAT16",
                "the folder holds something else",
                str(ledger.folder),
                label,
                wanted[source],
                "remove the old sub-images, or choose another --out",
            )


def execute(rest: Rest, ledger: Ledger, source: Source, jobs: int) -> None:
    """Do what is left, with a bar; `jobs` images are made at a time. Raises DataError."""
    _check_space(rest, ledger, source)
    ledger.open()
    try:
        total = rest.done + len(rest.copies) + len(rest.makings)
        with progress(total, rest.done, "prepare", shown=total > 1) as bar:
            for copy in rest.copies:
                data = source.read(copy.member)
                ledger.record(dict([ledger.write(copy.target, data, "", 0)]))
                bar.update()
            waves = (
                [m for m in rest.makings if m.kind != "tiles"],
                [m for m in rest.makings if m.kind == "tiles"],
            )
            for wave in waves:  # sub-images are cut of LR too
                for entries in _made(wave, ledger, jobs):
                    ledger.record(entries)
                    bar.update()
        ledger.finish()
    finally:
        ledger.close()


def _check_space(rest: Rest, ledger: Ledger, source: Source) -> None:
    """What already lies in its place needs no room."""
    here = ledger.folder.resolve()
    lying = 0
    for copy in rest.copies:
        file = source.file(copy.member)
        if file is not None and file.resolve() == here / copy.target:
            lying += copy.member.size
    require_room(rest.bytes - lying, ledger.folder)


def _made(makings: list[Making], ledger: Ledger, jobs: int) -> Iterator[dict[str, Entry]]:
    """The entries of each making, as they are finished; a few are begun ahead, no more."""
    slots = threading.local()
    numbers = iter(range(1, jobs + 1))

    def make(making: Making) -> dict[str, Entry]:
        made = _files(making, ledger.folder)
        return dict(ledger.write(path, data, making.label, slots.number) for path, data in made)

    def begin() -> None:
        slots.number = next(numbers)

    waiting = iter(makings)
    with ThreadPoolExecutor(jobs, initializer=begin) as pool:
        running: set[Future[dict[str, Entry]]] = set()
        try:
            while True:
                for making in waiting:
                    running.add(pool.submit(make, making))
                    if len(running) >= 2 * jobs:
                        break
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _files(making: Making, folder: Path) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of what a making gives."""
    if making.reader is not None:
        yield from _numbered(making.target, making.reader(folder, making.source))
        return
    image = images.read(folder / making.source)
    if making.kind == "bicubic":
        height, width = (side - side % making.scale for side in image.shape[:2])
        if not (height and width):
            raise _too_small(folder / making.source, image.shape[:2], making.scale)
        small = imresize(image[:height, :width], 1 / making.scale)
        yield making.target, images.encode(small, ".png", making.target)
        return
    assert making.tiles is not None
    yield from _numbered(making.target, tiles_of(image, making.tiles))


def _too_small(file: Path, size: tuple[int, ...], scale: int) -> DataError:
    return DataError.of(
        "DAT07",
        "image is too small",
        str(file),
        f"{size[1]}x{size[0]} pixels",
        f"at least {scale}x{scale} for LR at 1/{scale}",
        "remove it from the set",
    )


def _numbered(target: str, found: Iterable[np.ndarray]) -> Iterator[tuple[str, bytes]]:
    for k, image in enumerate(found, start=1):
        path = re.sub(r"\{k(?::(\w+))?\}", lambda m, k=k: format(k, m[1] or ""), target)
        yield path, images.encode(image, ".png", path)
