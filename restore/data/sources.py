"""Floor 3. Sources: from folders to image pairs, matched once by name."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from restore import images
from restore.data.augment import CropFlip
from restore.data.blocks import BLOCK_FILES, read_blocks, shape_of_blocks
from restore.data.degradations.bicubic import BicubicDown
from restore.data.degradations.build import (
    ON_PATCHES,
    Degradation,
    build_degradation,
    name_rng,
)
from restore.data.matching import Match, match, pairing_of
from restore.data.options import (
    DegradedImageDataset,
    DualPixelDataset,
    PairedImageDataset,
    SIDDBlocksDataset,
    SingleImageDataset,
    check_degradation,
)
from restore.data.pair import Fit, ImagePair, gt_origin, paired
from restore.errors import DataError, OptionError
from restore.section import Section


class Source(Protocol):
    """A sequence of image pairs.

    `files(i)` are the files that pair `i` comes from. `check(i)` raises DataError when pair `i`
    cannot be used, decoding as little as possible, and gives the (height, width) of its GT, or of
    LQ where there is no GT.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> ImagePair: ...
    def files(self, index: int) -> tuple[Path, ...]: ...
    def name(self, index: int) -> str: ...
    def check(self, index: int) -> tuple[int, int]: ...

    def sample(self, index: int, rng: np.random.Generator) -> ImagePair:
        """Pair `index` for training: what a source draws, it draws from `rng`. `self[index]` is
        the same pair at every call."""
        return self[index]

    def patch(
        self, index: int, crop: CropFlip, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(LQ, GT) of pair `index` for training, cut and turned by `crop`. Raises DataError."""
        return crop(self.sample(index, rng), rng)


def open_source(options: Section, scale: int, *, channels: int, training: bool) -> Source:
    """The source that data set options describe. Raises DataError, or OptionError OPT36.

    `channels`: what the network takes; gray images are replicated for 3. When not `training`, a GT
    slightly larger than LQ × scale is cut to it.
    """
    cache = getattr(options, "ram_cache_mib", 0) << 20
    if isinstance(options, PairedImageDataset):
        fit: Fit = pairing_of(options).fit
        fit = "exact" if training and fit == "corner" else fit
        return _cached(PairedFolders(match(options), scale, channels, fit), cache)
    if isinstance(options, DegradedImageDataset):
        return _open_degraded(options, scale, channels, cache)
    if isinstance(options, SingleImageDataset):
        files = images.list_images(options.dataroot_lq)
        return _cached(SingleFolder(files, scale, channels), cache)
    if isinstance(options, DualPixelDataset):
        return _cached(DualPixelFolders(options, scale), cache)
    if isinstance(options, SIDDBlocksDataset):
        return SIDDBlocks(Path(options.dataroot), scale, channels)
    raise TypeError(f"no source for {type(options).__name__}")


def _open_degraded(options: DegradedImageDataset, scale: int, channels: int, cache: int) -> Source:
    """What is drawn anew in every epoch lies outside the cache, what is not, inside."""
    wrong = check_degradation(options, scale)
    if wrong is not None:
        what, got, expected, fix = wrong
        raise OptionError.of("OPT36", what, options.dataroot_gt, got, expected, fix)
    degradation = build_degradation(options.degradation, scale)
    clean = SingleFolder(images.list_images(options.dataroot_gt), 1, channels, options.gray)
    if isinstance(degradation, BicubicDown):
        return _cached(DegradedFolder(clean, degradation, scale), cache)
    return DegradedFolder(_cached(clean, cache), degradation, scale)


def _cached(source: Source, limit: int) -> Source:
    return Cached(source, limit) if limit else source


class PairedFolders(Source):
    """LQ and GT files that belong together."""

    def __init__(self, matches: Sequence[Match], scale: int, channels: int, fit: Fit) -> None:
        self._matches = list(matches)
        self._scale, self._channels = scale, channels
        self._fit: Fit = fit

    def __len__(self) -> int:
        return len(self._matches)

    def name(self, index: int) -> str:
        return self._matches[index].name

    def files(self, index: int) -> tuple[Path, ...]:
        return self._matches[index].lq, self._matches[index].gt

    def check(self, index: int) -> tuple[int, int]:
        lq, gt = [images.check(file, channels=self._channels) for file in self.files(index)]
        gt_origin(lq, gt, self._scale, self._where(index), fit=self._fit)
        return lq[0] * self._scale, lq[1] * self._scale

    def _where(self, index: int) -> str:
        return " and ".join(map(str, self.files(index)))

    def __getitem__(self, index: int) -> ImagePair:
        lq, gt = [images.read(file, channels=self._channels) for file in self.files(index)]
        return paired(self.name(index), lq, gt, self._scale, self._where(index), fit=self._fit)


class DualPixelFolders(Source):
    """Left and right views and GT in three folders; LQ has six channels, left before right."""

    def __init__(self, options: DualPixelDataset, scale: int) -> None:
        views = [
            match(PairedImageDataset(dataroot_gt=options.dataroot_gt, dataroot_lq=folder))
            for folder in (options.dataroot_lqL, options.dataroot_lqR)
        ]
        self._left, self._right = (PairedFolders(view, scale, 3, "exact") for view in views)
        self._scale = scale

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
        pair = self._left[index]
        right = images.read(self._right.files(index)[0], channels=3)
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


class DegradedFolder(Source):
    """GT images; LQ made from each by a degradation.

    A sample is degraded by the generator it is given; `self[index]` by one of the file name's own,
    so that an evaluation sees the same LQ at every call and on every machine.
    """

    def __init__(self, clean: Source, degradation: Degradation, scale: int) -> None:
        self._clean, self._degradation, self._scale = clean, degradation, scale

    def __len__(self) -> int:
        return len(self._clean)

    def name(self, index: int) -> str:
        return self._clean.name(index)

    def files(self, index: int) -> tuple[Path, ...]:
        return self._clean.files(index)

    def check(self, index: int) -> tuple[int, int]:
        return self._clean.check(index)

    def __getitem__(self, index: int) -> ImagePair:
        return self.sample(index, name_rng(self.files(index)[0].name))

    def sample(self, index: int, rng: np.random.Generator) -> ImagePair:
        gt = self._clean[index].lq
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
        return ImagePair(self.name(index), self._degradation(gt, rng), gt, self._scale)

    def patch(
        self, index: int, crop: CropFlip, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(self._degradation, ON_PATCHES):
            return super().patch(index, crop, rng)
        clean = self._clean[index].lq
        gt = crop(ImagePair(self.name(index), clean, clean, 1), rng)[1]
        return self._degradation(gt, rng), gt


class SingleFolder(Source):
    """LQ files without ground truth. With `gray`, those of three channels become one."""

    def __init__(
        self, lq: Sequence[Path], scale: int, channels: int, gray: images.GrayRule | None = None
    ) -> None:
        self._lq, self._scale = list(lq), scale
        self._gray: images.GrayRule | None = gray
        self._channels = channels if gray is None else None

    def __len__(self) -> int:
        return len(self._lq)

    def name(self, index: int) -> str:
        return self._lq[index].stem

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._lq[index],)

    def check(self, index: int) -> tuple[int, int]:
        return images.check(self._lq[index], channels=self._channels)

    def __getitem__(self, index: int) -> ImagePair:
        lq = images.read(self._lq[index], channels=self._channels)
        lq = lq if self._gray is None else images.as_gray(lq, self._gray)
        return ImagePair(self.name(index), lq, None, self._scale)


class SIDDBlocks(Source):
    """SIDD's validation blocks: image i's block k is `0001_01`, counted from 1."""

    def __init__(self, folder: Path, scale: int, channels: int) -> None:
        self._files = tuple(folder / name for name in BLOCK_FILES)
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


class Cached(Source):
    """A source whose decoded pairs are kept in memory up to a limit; the rest is read again.

    For sources that draw nothing: one that draws takes its images from a Cached instead.
    """

    def __init__(self, source: Source, limit: int) -> None:
        self._source, self._free = source, limit
        self._kept: dict[int, ImagePair] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._source)

    def name(self, index: int) -> str:
        return self._source.name(index)

    def files(self, index: int) -> tuple[Path, ...]:
        return self._source.files(index)

    def check(self, index: int) -> tuple[int, int]:
        return self._source.check(index)

    def __getitem__(self, index: int) -> ImagePair:
        pair = self._kept.get(index)
        if pair is None:
            pair = self._source[index]
            with self._lock:
                if index not in self._kept and pair.nbytes <= self._free:
                    self._kept[index] = pair
                    self._free -= pair.nbytes
        return pair


def check_source(source: Source, *, patch: int = 1, limit: int = 256) -> None:
    """Look at up to `limit` evenly spread pairs before a run begins. Raises DataError.

    Finds files that are cut short, damaged, transparent or no images, pairs whose sizes do not fit
    and GT smaller than the training `patch`. The rest is checked when it is read.
    """
    count = min(len(source), limit)
    for number in range(count):
        index = number * len(source) // count
        height, width = source.check(index)
        if min(height, width) < patch:
            raise DataError.of(
                "DAT07",
                "image smaller than the training patch",
                str(source.files(index)[-1]),
                f"{width}×{height}",
                f"sides of at least {patch}",
                "use a smaller gt_size, set pad_small, or leave the image out",
            )
