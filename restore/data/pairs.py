"""Floor 3. The kinds of sources: paired, dual-pixel, degraded, single and cut-up images."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np

from restore import images
from restore.data.augment import Draw
from restore.data.blocks import BLOCK_FILES, read_blocks, shape_of_blocks
from restore.data.degradations.build import ON_PATCHES, Degradation, name_rng
from restore.data.matching import Matches
from restore.data.pair import Box, Fit, ImagePair, gt_origin, paired
from restore.data.source import Over, Partial, Source
from restore.data.squares import squares
from restore.data.stores.store import Held, Store
from restore.errors import DataError


class PairedImages(Partial):
    """LQ and GT images that belong together."""

    def __init__(
        self, lq: Store, gt: Store, matches: Matches, scale: int, channels: int, fit: Fit
    ) -> None:
        self._lq, self._gt = lq, gt
        self._names, self._lq_at, self._gt_at = matches.names, matches.lq, matches.gt
        self._scale, self._channels = scale, channels
        self._fit: Fit = fit

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def files(self, index: int) -> tuple[Path, ...]:
        lq, gt = self._places(index)
        return Path(self._lq.where(lq)), Path(self._gt.where(gt))

    def _places(self, index: int) -> tuple[int, int]:
        """Where the pair's images stand in their stores."""
        return self._lq_at.item(index), self._gt_at.item(index)

    def check(self, index: int) -> tuple[int, int]:
        lq_at, gt_at = self._places(index)
        lq, gt = self._lq.check(lq_at, self._channels), self._gt.check(gt_at, self._channels)
        gt_origin(lq, gt, self._scale, self._where(index), fit=self._fit)
        return lq[0] * self._scale, lq[1] * self._scale

    def _where(self, index: int) -> str:
        return " and ".join(map(str, self.files(index)))

    def __getitem__(self, index: int) -> ImagePair:
        lq, gt = self._held(index)
        name, where = self._names[index], self._where(index)
        return paired(name, lq.whole(), gt.whole(), self._scale, where, fit=self._fit)

    def size(self, index: int) -> tuple[int, int]:
        return self._lq.held(self._places(index)[0], self._channels).size

    def part(self, index: int, draw: Draw) -> ImagePair:
        lq, gt = self._held(index)
        height, width = lq.size
        return self._cut(index, lq, gt, draw.box(self._names[index], height, width, self._scale))

    def region(self, index: int, box: Box) -> ImagePair:
        return self._cut(index, *self._held(index), box)

    def _held(self, index: int) -> tuple[Held, Held]:
        lq, gt = self._places(index)
        return self._lq.held(lq, self._channels), self._gt.held(gt, self._channels)

    def _cut(self, index: int, lq: Held, gt: Held, box: Box) -> ImagePair:
        scale, (height, width) = self._scale, lq.size
        large = box.times(scale)
        if gt.size != (height * scale, width * scale):
            where = self._where(index)
            large = large.moved(*gt_origin(lq.size, gt.size, scale, where, fit=self._fit))
        return ImagePair(self._names[index], lq.part(box), gt.part(large), scale)


class DualPixelImages(Source):
    """Left and right views and GT; LQ has six channels, left before right."""

    def __init__(self, left: PairedImages, right: PairedImages, scale: int) -> None:
        self._left, self._right, self._scale = left, right, scale

    def __len__(self) -> int:
        return len(self._left)

    def name(self, index: int) -> str:
        return self._left.name(index)

    def files(self, index: int) -> tuple[Path, ...]:
        left, gt = self._left.files(index)
        return left, self._right.files(index)[0], gt

    def check(self, index: int) -> tuple[int, int]:
        self._right.check(index)
        return self._left.check(index)

    def __getitem__(self, index: int) -> ImagePair:
        pair, right = self._left[index], self._right[index].lq
        return self._joined(index, pair, right)

    def part(self, index: int, draw: Draw) -> ImagePair:
        pair, right = self._left.part(index, draw), self._right.part(index, draw).lq
        return self._joined(index, pair, right)

    def _joined(self, index: int, pair: ImagePair, right: np.ndarray) -> ImagePair:
        if right.shape != pair.lq.shape or right.dtype != pair.lq.dtype:
            raise DataError.of(
                "DAT06",
                "left and right views differ",
                " and ".join(map(str, self.files(index)[:2])),
                f"{pair.lq.dtype} {pair.lq.shape} and {right.dtype} {right.shape}",
                "the same size and depth",
                "export both views alike",
            )
        both = np.concatenate([pair.lq, right], axis=2)
        return ImagePair(pair.name, both, pair.gt, self._scale)


class DegradedImages(Over):
    """GT images; LQ made from each by a degradation.

    A sample is degraded by the generator it is given; `self[index]` by one of the file name's own,
    so that an evaluation sees the same LQ at every call and on every machine.
    """

    def __init__(self, clean: Source, degradation: Degradation, scale: int) -> None:
        super().__init__(clean)
        self._degradation, self._scale = degradation, scale

    def __getitem__(self, index: int) -> ImagePair:
        return self.sample(index, name_rng(self.files(index)[0].name))

    def sample(self, index: int, rng: np.random.Generator) -> ImagePair:
        clean = self._source[index]
        gt = clean.lq
        height, width = (side - side % self._scale for side in gt.shape[:2])
        if not height or not width:
            raise DataError.of(
                "DAT07",
                "image smaller than the scale",
                str(self.files(index)[0]),
                f"{gt.shape[1]}×{gt.shape[0]}",
                f"sides of at least {self._scale}",
                "leave it out",
            )
        gt = gt[:height, :width]
        return ImagePair(clean.name, self._degradation(gt, rng), gt, self._scale)

    def part(self, index: int, draw: Draw) -> ImagePair:
        if not isinstance(self._degradation, ON_PATCHES):
            return super().part(index, draw)
        clean, turn = self._source.part(index, draw), draw.turn()
        # the patch is turned later: degraded as it will lie, then turned back
        lq = turn.undone().turned(self._degradation(turn.turned(clean.lq), draw.rng()))
        return ImagePair(clean.name, lq, clean.lq, self._scale)


class SingleImages(Partial):
    """LQ images without ground truth. With `gray`, those of three channels become one."""

    def __init__(
        self, lq: Store, scale: int, channels: int, gray: images.GrayRule | None = None
    ) -> None:
        self._lq, self._scale = lq, scale
        self._gray: images.GrayRule | None = gray
        self._channels = channels if gray is None else None

    def __len__(self) -> int:
        return len(self._lq.names)

    def name(self, index: int) -> str:
        return Path(self._lq.names[index]).stem

    def files(self, index: int) -> tuple[Path, ...]:
        return (Path(self._lq.where(index)),)

    def check(self, index: int) -> tuple[int, int]:
        return self._lq.check(index, self._channels)

    def __getitem__(self, index: int) -> ImagePair:
        return self._alone(self.name(index), self._lq.held(index, self._channels).whole())

    def size(self, index: int) -> tuple[int, int]:
        return self._lq.held(index, self._channels).size

    def part(self, index: int, draw: Draw) -> ImagePair:
        lq, name = self._lq.held(index, self._channels), self.name(index)
        return self._alone(name, lq.part(draw.box(name, *lq.size, self._scale)))

    def region(self, index: int, box: Box) -> ImagePair:
        lq = self._lq.held(index, self._channels)
        return self._alone(self.name(index), lq.part(box))

    def _alone(self, name: str, lq: np.ndarray) -> ImagePair:
        lq = lq if self._gray is None else images.as_gray(lq, self._gray)
        return ImagePair(name, lq, None, self._scale)


class SubImages(Source):
    """Overlapping squares of every image of a source, each as if it were an image of its own.

    Places, names and order are those of BasicSR's extract_subimages.py: every `step` pixels of GT
    from the top left corner and once more flush with the far border, row by row, `0001_s001` first.
    An image smaller than `crop_size` stands for itself.
    """

    def __init__(self, source: Partial, scale: int, crop_size: int, step: int) -> None:
        self._source = source
        found: list[tuple[str, int, Box]] = []
        for index in range(len(source)):
            boxes = squares(*source.size(index), crop_size // scale, step // scale)
            name = source.name(index)
            found += [(f"{name}_s{n:03d}", index, box) for n, box in enumerate(boxes, start=1)]
        found.sort(key=lambda item: item[0])
        self._names = [name for name, _, _ in found]
        self._places = [(index, box) for _, index, box in found]
        self._scale = scale

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def files(self, index: int) -> tuple[Path, ...]:
        return self._source.files(self._places[index][0])

    def check(self, index: int) -> tuple[int, int]:
        self._source.check(self._places[index][0])
        box = self._places[index][1]
        return box.height * self._scale, box.width * self._scale

    def __getitem__(self, index: int) -> ImagePair:
        return self._named(index, self._places[index][1])

    def part(self, index: int, draw: Draw) -> ImagePair:
        square = self._places[index][1]
        box = draw.box(self._names[index], square.height, square.width, self._scale)
        return self._named(index, box.moved(square.top, square.left))

    def _named(self, index: int, box: Box) -> ImagePair:
        pair = self._source.region(self._places[index][0], box)
        return ImagePair(self._names[index], pair.lq, pair.gt, self._scale)


class SIDDBlocks(Source):
    """SIDD's validation blocks: image i's block k is `0001_01`, counted from 1."""

    def __init__(self, folder: str | os.PathLike[str], scale: int, channels: int) -> None:
        self._files = tuple(Path(folder) / name for name in BLOCK_FILES)
        self._shape = shape_of_blocks(*self._files, channels=channels)
        self._scale = scale
        self._read: tuple[np.ndarray, ...] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._shape[0] * self._shape[1]

    def name(self, index: int) -> str:
        image, block = divmod(index, self._shape[1])
        return f"{image + 1:04d}_{block + 1:02d}"

    def files(self, index: int) -> tuple[Path, ...]:
        return self._files

    def check(self, index: int) -> tuple[int, int]:
        gt = self[index].gt
        assert gt is not None
        return gt.shape[0], gt.shape[1]

    def __getitem__(self, index: int) -> ImagePair:
        with self._lock:
            if self._read is None:
                self._read = tuple(read_blocks(file, self._shape) for file in self._files)
        place = divmod(index, self._shape[1])
        lq, gt = (np.ascontiguousarray(blocks[place]) for blocks in self._read)
        where = f"{self.name(index)} of {self._files[0]}"
        return paired(self.name(index), lq, gt, self._scale, where, fit="exact")
