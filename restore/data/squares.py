"""Floor 3. Overlapping squares on a grid, the last of each row and column flush with the border
(BasicSR's extract_subimages; the crops of MPRNet and Restormer are the same squares)."""

from __future__ import annotations

from restore.data.pair import Box


def squares(height: int, width: int, crop: int, step: int, threshold: int = 0) -> list[Box]:
    """The squares of an image, row by row; of a side shorter than `crop` they have all."""
    tops, lefts = (starts(side, crop, step, threshold) for side in (height, width))
    tall, wide = min(height, crop), min(width, crop)
    return [Box(top, left, tall, wide) for top in tops for left in lefts]


def starts(side: int, crop: int, step: int, threshold: int = 0) -> list[int]:
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
