"""Floor 2. What a training run wrote into its `log.jsonl`, as series over its steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

LOSS = "loss"


@dataclass(frozen=True)
class Series:
    """One measure of one run. `measure`: `loss`, or `val/<set>/psnr`."""

    run: str
    measure: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


def set_of(measure: str) -> str:
    """The set that a measure is the validation PSNR of; empty for all others."""
    fits = measure.startswith("val/") and measure.endswith("/psnr")
    return measure.removeprefix("val/").removesuffix("/psnr") if fits else ""


def read_curves(run: str, log: Path) -> list[Series]:
    """Loss and validation PSNRs of a run; nothing where there is no log, broken lines left out."""
    found: dict[str, list[tuple[float, float]]] = {}
    try:
        lines = log.read_bytes().splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            values = json.loads(line)
            step = float(values["step"])
            drawn = {
                key: float(value)
                for key, value in values.items()
                if (key == LOSS or set_of(key)) and isinstance(value, int | float)
            }
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
        for key, value in drawn.items():
            found.setdefault(key, []).append((step, value))
    return [Series(run, key, *zip(*points, strict=True)) for key, points in found.items()]
