"""Floor 3. Sources: from folders to image pairs, matched once by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from restore import images
from restore.data.degradations.bicubic import BicubicDown
from restore.data.options import DegradedImageDataset, PairedImageDataset, SingleImageDataset
from restore.data.pair import ImagePair, check_scale, paired
from restore.errors import DataError
from restore.section import Section

Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
SHOWN = 5


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


def open_source(options: Section, scale: int, *, channels: int, training: bool) -> Source:
    """The source that data set options describe. Raises DataError.

    `channels`: what the network takes; gray images are replicated for 3. When not `training`, a GT
    slightly larger than LQ × scale is cut to it.
    """
    crop_gt = not training
    source: Source
    if isinstance(options, PairedImageDataset):
        gt, lq = _match(options)
        source = PairedFolders(gt, lq, scale, channels, crop_gt)
    elif isinstance(options, DegradedImageDataset):
        gt = images.list_images(options.dataroot_gt)
        source = DegradedFolder(gt, BicubicDown(scale), scale, channels)
    elif isinstance(options, SingleImageDataset):
        source = SingleFolder(images.list_images(options.dataroot_lq), scale, channels)
    else:
        raise TypeError(f"no source for {type(options).__name__}")
    cache = getattr(options, "ram_cache_mib", 0)
    return Cached(source, cache << 20) if cache else source


class PairedFolders:
    """LQ and GT files, position by position."""

    def __init__(
        self, gt: Sequence[Path], lq: Sequence[Path], scale: int, channels: int, crop_gt: bool
    ) -> None:
        self._gt, self._lq = list(gt), list(lq)
        self._scale, self._channels, self._crop_gt = scale, channels, crop_gt

    def __len__(self) -> int:
        return len(self._gt)

    def name(self, index: int) -> str:
        return self._gt[index].stem

    def files(self, index: int) -> tuple[Path, ...]:
        return self._lq[index], self._gt[index]

    def check(self, index: int) -> tuple[int, int]:
        lq, gt = (images.check(file, channels=self._channels) for file in self.files(index))
        check_scale(lq, gt, self._scale, self._where(index), crop_gt=self._crop_gt)
        return gt

    def _where(self, index: int) -> str:
        return f"{self._lq[index]} and {self._gt[index]}"

    def __getitem__(self, index: int) -> ImagePair:
        lq_file, gt_file = self.files(index)
        lq = images.read(lq_file, channels=self._channels)
        gt = images.read(gt_file, channels=self._channels)
        return paired(
            self.name(index), lq, gt, self._scale, self._where(index), crop_gt=self._crop_gt
        )


class DegradedFolder:
    """GT files; LQ made from each by a degradation with a generator of the file's own."""

    def __init__(
        self, gt: Sequence[Path], degradation: Degradation, scale: int, channels: int
    ) -> None:
        self._gt, self._degradation = list(gt), degradation
        self._scale, self._channels = scale, channels

    def __len__(self) -> int:
        return len(self._gt)

    def name(self, index: int) -> str:
        return self._gt[index].stem

    def files(self, index: int) -> tuple[Path, ...]:
        return (self._gt[index],)

    def check(self, index: int) -> tuple[int, int]:
        return images.check(self._gt[index], channels=self._channels)

    def __getitem__(self, index: int) -> ImagePair:
        gt = images.read(self._gt[index], channels=self._channels)
        height, width = (side - side % self._scale for side in gt.shape[:2])
        if not height or not width:
            raise DataError.of(
                "DAT07",
                "image smaller than the scale",
                str(self._gt[index]),
                f"{gt.shape[1]}×{gt.shape[0]}",
                f"sides of at least {self._scale}",
                "leave it out",
            )
        gt = gt[:height, :width]
        lq = self._degradation(gt, np.random.default_rng(index))
        return ImagePair(self.name(index), lq, gt, self._scale)


class SingleFolder:
    """LQ files without ground truth."""

    def __init__(self, lq: Sequence[Path], scale: int, channels: int) -> None:
        self._lq, self._scale, self._channels = list(lq), scale, channels

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
        return ImagePair(self.name(index), lq, None, self._scale)


class Cached:
    """A source whose decoded pairs are kept in memory up to a limit; the rest is read again."""

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
                "use a smaller gt_size or leave the image out",
            )


def _match(options: PairedImageDataset) -> tuple[list[Path], list[Path]]:
    """GT and LQ files in the GT's order; every file must have its partner."""
    gt_root, lq_root = Path(options.dataroot_gt), Path(options.dataroot_lq)
    lq = _by_stem(images.list_images(lq_root))
    if options.meta_info_file is not None:
        gt = _by_stem(_listed(Path(options.meta_info_file), gt_root))
    else:
        gt = _by_stem(images.list_images(gt_root))
    wanted = {options.filename_tmpl.format(stem): stem for stem in gt}
    lone_gt = [wanted[stem] for stem in wanted if stem not in lq]
    lone_lq = [] if options.meta_info_file else [stem for stem in lq if stem not in wanted]
    if lone_gt or lone_lq:
        raise DataError.of(
            "DAT05",
            "LQ and GT do not pair",
            f"{lq_root} and {gt_root}",
            f"{_some(lone_lq)} without GT, {_some(lone_gt)} without LQ",
            f"for every GT 'name' an LQ '{options.filename_tmpl.format('name')}'",
            "check filename_tmpl, or add or remove these files",
        )
    return list(gt.values()), [lq[options.filename_tmpl.format(stem)] for stem in gt]


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        if file.stem in found:
            raise DataError.of(
                "DAT15",
                "two images of one name",
                str(file),
                f"also {found[file.stem].name}",
                "one file per name",
                "remove or rename one",
            )
        found[file.stem] = file
    return found


def _listed(meta: Path, root: Path) -> list[Path]:
    """The files that a meta info file names, all inside `root`."""
    if not meta.is_file():
        raise DataError.of(
            "DAT02",
            "meta_info_file is missing",
            str(meta),
            "no such file",
            "a text file",
            "check the path",
        )
    files = []
    for number, line in enumerate(meta.read_text(encoding="utf-8").splitlines(), start=1):
        name = line.split(" ")[0].strip()
        if not name:
            continue
        file = root / name
        if not file.resolve().is_relative_to(root.resolve()):
            raise DataError.of(
                "DAT01",
                "path leaves dataroot_gt",
                f"{meta}:{number}",
                name,
                f"a file inside {root}",
                "correct the line",
            )
        if not file.is_file():
            raise DataError.of(
                "DAT02",
                "listed image is missing",
                f"{meta}:{number}",
                str(file),
                "a file that exists",
                "correct the line or add the file",
            )
        files.append(file)
    if not files:
        raise DataError.of(
            "DAT03",
            "meta_info_file lists no image",
            str(meta),
            "no names",
            "one file name a line",
            "fill it or leave it out",
        )
    return files


def _some(names: list[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"
