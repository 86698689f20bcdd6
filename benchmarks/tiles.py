"""Tiles against the whole image: time, pixels computed twice, and the largest difference.

  python benchmarks/tiles.py [--quick] [--no-record]

SPAN 48ch ×4 on an LR image of 510 × 339, as large as DIV2K's. Exactness is asserted for the overlap
that its record asks for; the bar is on the time of the tile of 256 with it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from restore.archs import build_network, fuse
from restore.archs.table import ARCHS
from restore.evaluation.options import PredictorOptions
from restore.evaluation.predictor import Predictor, Restoration

from common import command_line, interleaved, ratio, record, table

BAR = 1.2
CUTS = ((256, None), (192, None), (128, None), (256, 16), (128, 16))


def main() -> None:
    """Measure and record."""
    args = command_line(__doc__, quick="3 rounds").parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    span = ARCHS["SPAN"]
    network = fuse(build_network({"type": "SPAN", "feature_channels": 48, "upscale": 4}))
    image = np.random.default_rng(0).integers(0, 256, (339, 510, 3), dtype=np.uint8)

    def runs(**how: object) -> Callable[[], Restoration]:
        options = PredictorOptions.model_validate(how)
        predictor = Predictor(network, 4, span.size, options=options, reach=span.reach)
        return lambda: predictor.run(image)

    variants = {"whole": runs(tile="none")}
    notes = []
    for tile, overlap in CUTS:
        cut = runs(tile=tile, tile_overlap=overlap, tile_difference=True)()
        name = f"tile {cut.tile} overlap {cut.overlap}"
        variants[name] = runs(tile=tile, tile_overlap=overlap)
        notes.append(f"{name}: {cut.tiles} tiles, largest difference {cut.difference:.1e} of 1")
        assert overlap is not None or cut.difference < 1e-5
    times = interleaved(variants, 3 if args.quick else 7)
    slower = 1 / ratio(times, "whole", list(variants)[1])
    body = "\n".join(
        [
            *notes,
            "",
            table(times, "whole"),
            f"bar ≤ {BAR} × the whole image's time: {slower:.2f} ×, "
            + ("holds" if slower <= BAR else "MISSED"),
        ]
    )
    record(args, "Tiles: SPAN 48ch ×4 on 510 × 339", body)


if __name__ == "__main__":
    main()
