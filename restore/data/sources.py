"""Floor 3. Data set options -> the source they describe."""

from __future__ import annotations

from collections.abc import Callable

from restore.data.degradations.bicubic import BicubicDown
from restore.data.degradations.build import build_degradation
from restore.data.matching import match, pairing_of
from restore.data.options import (
    DegradedImageDataset,
    DualPixelDataset,
    LmdbOptions,
    PackOptions,
    PairedImageDataset,
    ShardOptions,
    SIDDBlocksDataset,
    SingleImageDataset,
    check_degradation,
)
from restore.data.pair import Fit
from restore.data.pairs import (
    DegradedImages,
    DualPixelImages,
    PairedImages,
    SIDDBlocks,
    SingleImages,
    SubImages,
)
from restore.data.source import Cached, Extended, Partial, Source
from restore.data.stores.lmdb_store import LmdbFolder
from restore.data.stores.pack import open_pack
from restore.data.stores.shards import Shards
from restore.data.stores.store import Folder, Store
from restore.errors import DataError, OptionError
from restore.section import Section


def open_source(options: Section, scale: int, *, channels: int, training: bool) -> Source:
    """The source that data set options describe. Raises DataError, or OptionError OPT36.

    `channels`: what the network takes; gray images are replicated for 3. When not `training`, a GT
    slightly larger than LQ × scale is cut to it.
    """
    source = _open(options, scale, channels, training)
    return Extended(source) if getattr(options, "pad_small", False) else source


def _open(options: Section, scale: int, channels: int, training: bool) -> Source:
    cache = getattr(options, "ram_cache_mib", 0) << 20
    if isinstance(options, PairedImageDataset):
        fit: Fit = pairing_of(options).fit
        fit = "exact" if training and fit == "corner" else fit
        pairs = _open_pairs(options, scale, channels, fit)
        return _cached(_cut_up(pairs, options.io_backend, scale), cache)
    if isinstance(options, DegradedImageDataset):
        return _open_degraded(options, scale, channels, cache)
    if isinstance(options, SingleImageDataset):
        lq = SingleImages(open_store(options.io_backend, options.dataroot_lq), scale, channels)
        return _cached(_cut_up(lq, options.io_backend, scale), cache)
    if isinstance(options, DualPixelDataset):
        return _cached(_open_dual_pixel(options, scale), cache)
    if isinstance(options, SIDDBlocksDataset):
        return SIDDBlocks(options.dataroot, scale, channels)
    own: Callable[..., Source] | None = getattr(options, "open", None)
    if own is None:
        raise TypeError(f"no source for {type(options).__name__}")
    return own(scale, channels=channels, training=training)  # one from outside the table


def open_store(backend: Section, root: str, *, recursive: bool = False) -> Store:
    """The images of dataroot `root`; `recursive`: also those in folders under it. Raises
    DataError."""
    if isinstance(backend, PackOptions):
        return open_pack(root)
    if isinstance(backend, LmdbOptions):
        return LmdbFolder(root)
    if isinstance(backend, ShardOptions):
        return Shards(root, attempts=backend.attempts, timeout=backend.timeout)
    return Folder(root, recursive=recursive)


def _open_pairs(options: PairedImageDataset, scale: int, channels: int, fit: Fit) -> PairedImages:
    backend, deep = options.io_backend, pairing_of(options).recursive
    listed = options.meta_info_file is not None  # names may have folders
    gt = open_store(backend, options.dataroot_gt, recursive=deep or listed)
    lq = open_store(backend, options.dataroot_lq, recursive=deep)
    return PairedImages(lq, gt, match(options, gt, lq), scale, channels, fit)


def _open_dual_pixel(options: DualPixelDataset, scale: int) -> DualPixelImages:
    gt = options.dataroot_gt
    left, right = (
        PairedImageDataset(dataroot_gt=gt, dataroot_lq=view, io_backend=options.io_backend)
        for view in (options.dataroot_lqL, options.dataroot_lqR)
    )
    views = _open_pairs(left, scale, 3, "exact"), _open_pairs(right, scale, 3, "exact")
    return DualPixelImages(*views, scale)


def _open_degraded(options: DegradedImageDataset, scale: int, channels: int, cache: int) -> Source:
    """What is drawn anew in every epoch lies outside the cache, what is not, inside."""
    wrong = check_degradation(options, scale)
    if wrong is not None:
        what, got, expected, fix = wrong
        raise OptionError.of("OPT36", what, options.dataroot_gt, got, expected, fix)
    degradation = build_degradation(options.degradation, scale)
    store = open_store(options.io_backend, options.dataroot_gt)
    clean = _cut_up(SingleImages(store, 1, channels, options.gray), options.io_backend, 1)
    if isinstance(degradation, BicubicDown):
        return _cached(DegradedImages(clean, degradation, scale), cache)
    return DegradedImages(_cached(clean, cache), degradation, scale)


def _cut_up(source: Partial, backend: Section, scale: int) -> Source:
    """The sub-images of a source, if the backend's options ask for them."""
    if not isinstance(backend, PackOptions) or backend.sub_images is None:
        return source
    size, step = backend.sub_images.crop_size, backend.sub_images.step
    if size % scale or step % scale:
        raise OptionError.of(
            "OPT26",
            "sub-images do not fit the scale",
            "io_backend.sub_images",
            f"crop_size {size}, step {step}",
            f"multiples of the scale {scale}",
            "change them",
        )
    return SubImages(source, scale, size, step)


def _cached(source: Source, limit: int) -> Source:
    return Cached(source, limit) if limit else source


def check_source(source: Source, *, patch: int = 1, limit: int = 256, skip: bool = False) -> None:
    """Look at up to `limit` evenly spread pairs before a run begins. Raises DataError.

    Finds files that are cut short, damaged, transparent or no images, pairs whose sizes do not fit
    and GT smaller than the training `patch`. The rest is checked when it is read. `skip`: raise
    only when not one of them can be used.
    """
    count = min(len(source), limit)
    bad = 0
    for number in range(count):
        try:
            _check_pair(source, number * len(source) // count, patch)
        except DataError:
            bad += 1
            if not skip or bad == count:
                raise


def _check_pair(source: Source, index: int, patch: int) -> None:
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
