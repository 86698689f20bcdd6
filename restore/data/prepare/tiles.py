"""Floor 3. Sub-images of an image: squares on a grid, the last of each row and column flush with
the border, numbered row by row (BasicSR's extract_subimages; the crops of MPRNet and Restormer are
the same squares)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from restore.data.prepare.records import Tiles


def starts(side: int, crop: int, step: int, threshold: int) -> list[int]:
    """Where squares begin along a side; a side of up to `crop` pixels gives one that is as long.

    What is left behind the last whole step gets a square of its own, flush with the border, when
    it is more than `threshold` pixels.
    """
    if side <= crop:
        return [0]
    found = list(range(0, side - crop + 1, step))
    if side - (found[-1] + crop) > threshold:
        found.append(side - crop)
    return found


def tiles_of(image: np.ndarray, rule: Tiles) -> Iterator[np.ndarray]:
    """The sub-images of `image` (H, W) or (H, W, C), views of it."""
    multiple = max(rule.multiple // rule.scale, 1)
    height, width = (side - side % multiple or side for side in image.shape[:2])
    for top in starts(height, rule.crop, rule.step, rule.threshold):
        for left in starts(width, rule.crop, rule.step, rule.threshold):
            bottom, right = min(top + rule.crop, height), min(left + rule.crop, width)
            yield image[top:bottom, left:right]
