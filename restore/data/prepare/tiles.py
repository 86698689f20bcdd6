"""Floor 3. Sub-images of an image, numbered row by row: see `squares` for where they lie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from restore.data.prepare.records import Tiles
from restore.data.squares import squares


def tiles_of(image: np.ndarray, rule: Tiles) -> Iterator[np.ndarray]:
    """The sub-images of `image` (H, W) or (H, W, C), views of it."""
    multiple = max(rule.multiple // rule.scale, 1)
    height, width = (side - side % multiple or side for side in image.shape[:2])
    for box in squares(height, width, rule.crop, rule.step, rule.threshold):
        yield image[box.slices]
