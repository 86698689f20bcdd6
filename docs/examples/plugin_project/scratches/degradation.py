"""A degradation: bright scratches, as on old film."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from restore.section import Count, Section


class Scratches(Section):
    """LQ with vertical lines, one pixel wide, almost white."""

    type: Literal["scratches.degradation:Scratches"] = "scratches.degradation:Scratches"
    per_100_columns: Count = 8

    def build(self, scale: int) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
        """Image `(H, W[, 3])` and a generator, the one source of chance -> image of its type."""
        assert scale == 1, "scratches keep the size"

        def scratch(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            scratched = image.copy()
            width = image.shape[1]
            columns = rng.integers(0, width, max(width * self.per_100_columns // 100, 1))
            scratched[:, columns] = np.iinfo(image.dtype).max * 9 // 10
            return scratched

        return scratch
