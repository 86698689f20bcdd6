"""A metric: the share of pixels that are visibly wrong."""

from typing import Literal

import numpy as np

from restore.section import Count, Section


class WrongPixels(Section):
    """Share of pixels of which a channel is off by more than `limit` of 255."""

    type: Literal["scratches.metric:WrongPixels"] = "scratches.metric:WrongPixels"
    limit: Count = 16

    def score(self, restored: np.ndarray, target: np.ndarray) -> float:
        """Two uint8 images `(H, W[, 3])`, borders taken off -> 0 (best) to 1."""
        wrong = np.abs(restored.astype(int) - target) > self.limit
        return float(wrong.any(axis=2).mean() if wrong.ndim == 3 else wrong.mean())
