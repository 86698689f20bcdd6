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
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        for key, value in values.items():
            wanted = key == LOSS or (key.startswith("val/") and key.endswith("/psnr"))
            if wanted and isinstance(value, int | float):
                found.setdefault(key, []).append((step, float(value)))
    return [Series(run, key, *zip(*points, strict=True)) for key, points in found.items()]
