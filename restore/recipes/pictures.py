"""Floor 6. The images that a report shows, on disk: a set's pairs once, restored ones per network.

Files of image 3 in a folder of pairs: `00003_lq.png` (at scales above 1), `00003_baseline.png`,
`00003_gt.png` (where there is ground truth), `00003_thumb.jpg` and `00003.zoom` (the region first
shown enlarged).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from restore import images
from restore.evaluation.evaluator import Seen

ZOOM = 64  # side of the region shown enlarged
THUMB = 160  # longer side of a thumbnail
PAIR = ("lq.png", "baseline.png", "gt.png", "thumb.jpg")


def chosen(count: int, shown: int) -> list[int]:
    """The indexes of up to `shown` of `count` images, evenly spread."""
    shown = min(count, shown)
    return [number * count // shown for number in range(shown)]


def save_pair(folder: Path, index: int, seen: Seen) -> None:
    """What all networks share of one image; nothing when it is there already."""
    note = folder / f"{index:05d}.zoom"
    if note.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    baseline, target = seen.baseline(), seen.pair.gt
    layers = {"baseline": baseline}
    if baseline is not seen.pair.view:  # without a scale the input is its own baseline
        layers["lq"] = seen.pair.view
    if target is not None:
        layers["gt"] = target
    for name, image in layers.items():
        images.write(folder / f"{index:05d}_{name}.png", image)
    images.write(folder / f"{index:05d}_thumb.jpg", _thumb(baseline if target is None else target))
    zoom = _centre(baseline) if target is None else _worst_region(baseline, target)
    note.write_text(" ".join(map(str, zoom)))  # last: it says that the others are there


def save_restored(folder: Path, index: int, restored: np.ndarray) -> Path:
    """One network's image; returns its file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{index:05d}_restored.png"
    images.write(file, restored)
    return file


def zoom_of(folder: Path, index: int) -> tuple[int, int, int, int] | None:
    """x, y, w, h as `save_pair` noted it; None where the image was not kept."""
    note = folder / f"{index:05d}.zoom"
    if not note.exists():
        return None
    x, y, width, height = map(int, note.read_text().split())
    return x, y, width, height


def _thumb(image: np.ndarray) -> np.ndarray:
    small = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
    factor = THUMB / max(small.shape[:2])
    if factor >= 1:
        return small
    size = max(1, round(small.shape[1] * factor)), max(1, round(small.shape[0] * factor))
    return cv2.resize(small, size, interpolation=cv2.INTER_AREA)


def _centre(image: np.ndarray) -> tuple[int, int, int, int]:
    height, width = image.shape[:2]
    side = min(ZOOM, height, width)
    return (width - side) // 2, (height - side) // 2, side, side


def _worst_region(baseline: np.ndarray, target: np.ndarray) -> tuple[int, int, int, int]:
    """(x, y, w, h) of the square in which the baseline is farthest from the target."""
    height, width = target.shape[:2]
    side = min(ZOOM, height, width)
    error = np.square(baseline.astype(np.float64) - target.astype(np.float64))
    error = error.reshape(height, width, -1).sum(axis=2)
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    y, x = np.meshgrid(
        np.arange(0, height - side + 1, 8), np.arange(0, width - side + 1, 8), indexing="ij"
    )
    within = sums[y + side, x + side] - sums[y, x + side] - sums[y + side, x] + sums[y, x]
    row, column = np.unravel_index(int(within.argmax()), within.shape)
    return int(x[row, column]), int(y[row, column]), side, side
