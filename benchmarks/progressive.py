"""Progressive learning: pixels decoded per pixel trained on, ours against decoding at the maximum.

  python benchmarks/progressive.py [--no-record]

Both run MIRNet-v2's six stages, a thousandth as long, over the same PNG crops on disk. The
official way reads batch_size_per_gpu images at every step, crops all to the largest patch, and
cuts batch and patch down to the stage's; ours lets the stage decide what is read. A PNG is decoded
whole either way, so what is left over is the patch's share of its image.
"""

from __future__ import annotations

import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from restore import images
from restore.data.loader import Loader
from restore.data.options import PairedImageDataset
from restore.data.pair import ImagePair
from restore.data.source import Source
from restore.data.sources import open_source
from restore.data.stages import Stages
from restore.reports.tables import text_table

from common import command_line, record

STEPS = (92, 64, 48, 36, 36, 24)
PATCHES = (128, 160, 192, 256, 320, 384)
BATCHES = (8, 5, 4, 2, 1, 1)
SIDE = 512  # SIDD's crops
COUNT = 8


class Counted(Source):
    """A source that counts the GT pixels it decodes."""

    def __init__(self, source: Source) -> None:
        self._source, self.pixels = source, 0

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> ImagePair:
        pair = self._source[index]
        assert pair.gt is not None
        self.pixels += pair.gt.shape[0] * pair.gt.shape[1]
        return pair

    def check(self, index: int) -> tuple[int, int]:
        return self._source.check(index)

    def files(self, index: int) -> tuple[Path, ...]:
        return self._source.files(index)

    def name(self, index: int) -> str:
        return self._source.name(index)


def measure(source: Source, stages: Stages) -> tuple[int, float]:
    """(GT pixels decoded, CPU seconds) of all steps with `stages` deciding what is read."""
    counted = Counted(source)
    loader = Loader(counted, stages, hflip=True, rot=True, seed=0, workers=0)
    start = time.process_time()
    for _ in islice(loader.batches(0), sum(STEPS)):
        pass
    return counted.pixels, time.process_time() - start


def main() -> None:
    """Measure and record."""
    args = command_line(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for name in (f"{i:02d}.png" for i in range(COUNT)):
            smooth = rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
            for kind in ("gt", "lq"):
                (Path(folder) / kind).mkdir(exist_ok=True)
                noisy = smooth.repeat(8, 0).repeat(8, 1) // 2 + rng.integers(
                    0, 9, (SIDE, SIDE, 3), dtype=np.uint8
                )
                images.write(Path(folder) / kind / name, noisy)
        options = PairedImageDataset(dataroot_gt=f"{folder}/gt", dataroot_lq=f"{folder}/lq")
        source = open_source(options, 1, channels=3, training=True)
        ours = measure(source, Stages(STEPS, BATCHES, PATCHES))
        maximum = measure(source, Stages.single(max(BATCHES), max(PATCHES)))
    used = sum(s * b * p * p for s, b, p in zip(STEPS, BATCHES, PATCHES, strict=True))
    rows = [
        [name, f"{pixels / used:.2f}", f"{seconds:.1f}", f"{maximum[1] / seconds:.2f} ×"]
        for name, (pixels, seconds) in (("decode at maximum", maximum), ("stage decides", ours))
    ]
    head = ["way", "GT pixels decoded per pixel used", "CPU s", "vs decode at maximum"]
    body = text_table(head, rows)
    record(args, "Progressive learning: pixels decoded", body)


if __name__ == "__main__":
    main()
