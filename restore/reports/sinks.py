"""Floor 2. Where numbers go during a run: JSONL, TensorBoard, Weights & Biases, a bar."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from restore.catalog import locate
from restore.errors import BackendError
from restore.reports.records import replace_text

LOGGER = logging.getLogger("restore")


class Sink(Protocol):
    """Takes scalars and images of a step; images are uint8 or uint16, (H, W, 3) RGB or (H, W)."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def image(self, step: int, name: str, image: np.ndarray) -> None: ...
    def close(self) -> None: ...


class JsonlSink:
    """One JSON object a line; on resume, lines after the resumed step are dropped first."""

    def __init__(self, file: Path, resumed_step: int) -> None:
        if file.exists():
            kept = [line for line in file.read_text().splitlines() if _step(line) <= resumed_step]
            replace_text(file, "".join(line + "\n" for line in kept))
        self._stream = file.open("a", encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._stream.write(json.dumps({"step": step, **values}) + "\n")
        self._stream.flush()

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """JSONL holds no images."""

    def close(self) -> None:
        self._stream.close()


def _step(line: str) -> float:
    """The step of a log line; infinite for a line that a killed writer left half done."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


class TensorBoardSink:
    """Event files in `folder`."""

    def __init__(self, folder: Path, resumed_step: int) -> None:
        writer = locate("torch.utils.tensorboard:SummaryWriter")  # slow to import: when chosen
        purge = resumed_step + 1 if resumed_step else None
        self._writer = writer(str(folder), purge_step=purge)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        form = "HWC" if image.ndim == 3 else "HW"
        self._writer.add_image(name, _in_8_bits(image), step, dataformats=form)

    def close(self) -> None:
        self._writer.close()


def find_wandb(project: str) -> Any:
    """The package that a run of `project` needs. Raises BackendError when it is not installed."""
    try:
        return locate("wandb:init").__globals__["wandb"]
    except (ImportError, AttributeError, KeyError) as error:
        raise BackendError.of(
            "DEV04",
            "wandb is not installed",
            "logger.wandb.project",
            project,
            "the wandb package",
            "pip install wandb, or leave project out",
        ) from error


class WandbSink:
    """A Weights & Biases run. Raises BackendError when wandb is not installed."""

    def __init__(self, project: str, name: str, run_id: str | None) -> None:
        self._wandb = find_wandb(project)
        self._run = self._wandb.init(project=project, name=name, id=run_id, resume="allow")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        self._run.log({name: self._wandb.Image(_in_8_bits(image))}, step=step)

    def close(self) -> None:
        self._run.finish()


def _in_8_bits(image: np.ndarray) -> np.ndarray:
    """The nearest uint8 levels: other integers both packages would take for white."""
    return image if image.dtype == np.uint8 else np.rint(image / 257).astype(np.uint8)


class Sinks:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = list(sinks)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.scalars(step, values)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        for sink in self._sinks:
            sink.image(step, name, image)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


def progress(total: int, start: int, what: str, *, shown: bool) -> tqdm[Any]:
    """A bar on standard error: every 0.2 s on a terminal, every 10 s in a file."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=start,
        desc=what,
        disable=not shown,
        dynamic_ncols=True,
        mininterval=0.2 if terminal else 10,
        smoothing=0.1,
    )


class _BarHandler(logging.Handler):
    """Log lines that do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def log_to_console(*, first_rank: bool) -> None:
    """Send the log of this process to standard error: all of rank 0, warnings of the others."""
    LOGGER.handlers.clear()
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    handler = _BarHandler(logging.INFO if first_rank else logging.WARNING)
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.addHandler(handler)


def log_to_file(file: Path) -> None:
    """Send the log, every printed step included, to `file` as well, with the time of each line."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
    LOGGER.addHandler(handler)
