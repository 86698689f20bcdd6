"""Floor 3. Is this set what it should be? Every file is looked at; the answer is findings.

Parts and counts, the pixels of every file (readable, size, depth, channels), pairs by the rules of
the option files, sizes at the scale, LR against MATLAB's bicubic of its HR, images that train and
test share, files that changed since they were prepared, and which version of the set it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from restore import images
from restore.data.matching import match, pairing_of, some
from restore.data.options import PairedImageDataset
from restore.data.pair import Fit, gt_origin
from restore.data.prepare.ledger import MANIFEST, WORK, Ledger, read_manifest
from restore.data.prepare.records import Finding, Look, Pair, Part, Record
from restore.data.prepare.similar import same_picture, shared, thumbnail
from restore.data.prepare.versions import spread
from restore.data.stores.store import Folder
from restore.errors import DataError
from restore.ops.resize import Edge, imresize
from restore.reports.sinks import progress

SHOWN = 3
LR_LOOKED_AT = 8
_WAYS: tuple[tuple[str, bool, Edge], ...] = (  # what it is, round_between_passes, edge
    ("MATLAB's bicubic, to the byte", True, "mirror"),
    ("MATLAB's bicubic up to 2014, to the byte", True, "clamp"),
    ("MATLAB's bicubic rounded once, to the byte", False, "mirror"),
)


@dataclass(frozen=True)
class Opened:
    """A set's files and what was seen of them. `broken`: path -> what is wrong with it."""

    root: Path
    files: Mapping[Part, list[str]]
    looks: Mapping[str, Look]
    digests: Mapping[str, tuple[int, str]]  # size and sha256 of each file's bytes
    broken: Mapping[str, str]
    others: int


def examine(record: Record, name: str, root: Path, *, partial: bool, jobs: int) -> list[Finding]:
    """All findings on the set in `root`. `partial`: fewer images than the whole set has are no
    fault. Raises DataError DAT02 or DAT03 when there is nothing to look at."""
    held = read_manifest(root)
    if held is not None:
        Ledger(root, name, held["variant"])  # refuses another set's folder
    opened = _open(record, root, jobs)
    found: list[Finding] = []
    absent = [part.name for part, paths in opened.files.items() if part.count and not paths]
    if absent:
        found.append(Finding("absent", "", some(absent, SHOWN)))
    if (root / WORK).exists():
        found.append(Finding("prepared", "", "a run was cut off", "run it again", True))
    for part, paths in opened.files.items():
        found += _part(part, paths, opened, partial=partial)
    for pair in record.pairs:
        found += _pair(pair, opened)
    found += _split(opened)
    found += _manifest(held, opened)
    for version in record.versions:
        found += version(root, opened.looks)
    if opened.others:
        found.append(Finding("other files", "", f"{opened.others} of no part of {record.title}"))
    return found


def _open(record: Record, root: Path, jobs: int) -> Opened:
    """Read every file of every part."""
    if not root.is_dir():
        raise DataError.of(
            "DAT02", "no such folder", str(root), "nothing there", f"{record.title}",
            "correct --out, or prepare the set first",
        )  # fmt: skip
    files: dict[Part, list[str]] = {part: [] for part in record.parts}
    others = 0
    for file in sorted(root.rglob("*")):
        path = file.relative_to(root).as_posix()
        if not file.is_file() or path == MANIFEST or path.startswith("."):
            continue
        part = record.part_of(path)
        if part is None:
            others += 1
        else:
            files[part].append(path)
    paths = [path for held in files.values() for path in held]
    if not paths:
        raise DataError.of(
            "DAT03", f"nothing of {record.title} in the folder", str(root), f"{others} files",
            ", ".join(part.name for part in record.parts[:4]),
            "correct --out, or prepare the set first",
        )  # fmt: skip
    looks: dict[str, Look] = {}
    digests: dict[str, tuple[int, str]] = {}
    broken: dict[str, str] = {}
    with ThreadPoolExecutor(jobs) as pool, progress(len(paths), 0, "look", shown=True) as bar:
        for path, seen in zip(paths, pool.map(lambda p: _look(root / p), paths), strict=True):
            digests[path] = seen[0]
            if isinstance(seen[1], Look):
                looks[path] = seen[1]
            elif seen[1]:
                broken[path] = seen[1]
            bar.update()
    return Opened(root, files, looks, digests, broken, others)


def _look(file: Path) -> tuple[tuple[int, str], Look | str]:
    """Size and hash of the bytes, and what the pixels are or what is wrong with them."""
    try:
        data = file.read_bytes()
    except OSError as error:
        return (-1, ""), str(error.strerror)
    stored = len(data), hashlib.sha256(data).hexdigest()
    if file.suffix.lower() not in images.SUFFIXES:
        return stored, "" if data else "an empty file"
    try:
        image = images.decode(data, str(file))
    except DataError as error:
        problem = error.problems[0]
        return stored, f"{problem.code} {problem.what}: {problem.got}"
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()
    channels = 1 if image.ndim == 2 else image.shape[2]
    size = image.shape[0], image.shape[1]
    return stored, Look(size, 8 * image.itemsize, channels, digest, thumbnail(image))


def _part(part: Part, paths: list[str], opened: Opened, *, partial: bool) -> Iterator[Finding]:
    """Count, unreadable files, sizes and depth of one part; nothing for a part that is not there,
    as hardly anybody has all."""
    if not paths:
        return
    known = "" if part.count is None else str(part.count)
    wrong = None
    if part.count is not None:
        wrong = len(paths) > part.count if partial else len(paths) != part.count
    yield Finding("count", part.name, str(len(paths)), known, wrong)
    broken = [path for path in paths if path in opened.broken]
    for path in broken[:SHOWN]:
        yield Finding("readable", path, opened.broken[path], "a whole image", True)
    if broken[SHOWN:]:
        more = f"{len(broken) - SHOWN} more cannot be read"
        yield Finding("readable", part.name, more, "whole images", True)
    looks = {path: opened.looks[path] for path in paths if path in opened.looks}
    if not looks:
        return
    sizes = Counter(look.size for look in looks.values())
    strange = [p for p, look in looks.items() if part.sizes and look.size not in part.sizes]
    expected = " or ".join(f"{w}x{h}" for h, w in part.sizes)
    said = _sizes(sizes) + (f"; {some(strange, SHOWN)}" if strange else "")
    yield Finding("size", part.name, said, expected, bool(strange) if part.sizes else None)
    odd = [path for path, look in looks.items() if look.bits != part.bits]
    depth = ", ".join(f"{n} of {bits} bit" for bits, n in _depths(looks).items())
    yield Finding("depth", part.name, depth, f"{part.bits} bit", bool(odd))


def _depths(looks: Mapping[str, Look]) -> Counter[str]:
    return Counter(f"{k.bits}" for k in looks.values())


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    if len(sizes) <= 2:
        return ", ".join(f"{w}x{h}" for h, w in sizes)
    areas = sorted(sizes, key=lambda size: size[0] * size[1])
    (low_h, low_w), (high_h, high_w) = areas[0], areas[-1]
    return f"{len(sizes)} sizes, {low_w}x{low_h} to {high_w}x{high_h}"


def _pair(pair: Pair, opened: Opened) -> Iterator[Finding]:
    """Pairing, sizes at the scale, and the bicubic of one pair of folders, if both are there."""
    name = pair.lq if pair.lq != pair.gt else f"{pair.lq} ({pair.pairing})"
    gt, lq = opened.root / pair.gt, opened.root / pair.lq
    has_gt, has_lq = (
        any(path.startswith(folder + "/") for path in opened.digests)
        for folder in (pair.gt, pair.lq)
    )
    if not (has_gt and has_lq):
        if has_lq or has_gt and pair.scale == 1:  # LR at some scale need not be there
            lone = pair.lq if has_lq else pair.gt
            yield Finding("pairs", lone, "no partners", pair.gt if has_lq else pair.lq, True)
        return
    options = PairedImageDataset(
        dataroot_gt=str(gt), dataroot_lq=str(lq), filename_tmpl=pair.filename_tmpl,
        pairing=pair.pairing,
    )  # fmt: skip
    try:
        matches = _matches(options)
    except DataError as error:
        yield Finding("pairs", name, error.problems[0].got, error.problems[0].expected, True)
        return
    yield Finding("pairs", name, str(len(matches)), "every file has its partner", False)
    fit: Fit = "exact" if pair.training else pairing_of(options).fit
    unfit = []
    for one in matches:
        lq_look, gt_look = (opened.looks.get(_path(opened, f)) for f in (one.lq, one.gt))
        if lq_look is None or gt_look is None:
            continue  # unreadable, and said so
        try:
            gt_origin(lq_look.size, gt_look.size, pair.scale, one.name, fit=fit)
        except DataError as error:
            unfit.append(f"{one.name}: {error.problems[0].got}")
    expected = f"GT = {pair.scale} × LQ" if pair.scale > 1 else "GT as large as LQ"
    expected += {"exact": ", to the pixel", "centre": ", or its middle", "corner": ""}[fit]
    yield Finding("scale", name, some(unfit, SHOWN) if unfit else "all fit", expected, bool(unfit))
    if pair.bicubic:
        yield from _bicubic(pair, name, matches, opened)


@dataclass(frozen=True)
class Match:
    """Two files that belong together."""

    name: str
    lq: Path
    gt: Path


def _matches(options: PairedImageDataset) -> list[Match]:
    """The pairs of the folders that `options` name. Raises DataError."""
    recursive = pairing_of(options).recursive
    gt, lq = (Folder(f, recursive=recursive) for f in (options.dataroot_gt, options.dataroot_lq))
    found = match(options, gt, lq)
    return [
        Match(name, Path(lq.where(i)), Path(gt.where(j)))
        for name, i, j in zip(found.names, found.lq, found.gt, strict=True)
    ]


def _bicubic(pair: Pair, name: str, matches: list[Match], opened: Opened) -> Iterator[Finding]:
    """Whether LR is MATLAB's bicubic of HR, for some images; else how far it is from it."""
    ways: Counter[str] = Counter()
    far: list[str] = []
    readable = {m.name: m for m in matches if _path(opened, m.lq) in opened.looks}
    readable = {n: m for n, m in readable.items() if _path(opened, m.gt) in opened.looks}
    for one in spread(list(readable), LR_LOOKED_AT):
        lq, gt = (images.as_rgb(images.read(f)) for f in (readable[one].lq, readable[one].gt))
        high, wide = (side * pair.scale for side in lq.shape[:2])
        gt = gt[:high, :wide]
        if gt.shape[:2] != (high, wide) or gt.dtype != lq.dtype:
            continue  # its size or depth has been named
        way = _way(gt, lq, 1 / pair.scale)
        if way is None:
            far.append(f"{one}: {_distance(imresize(gt, 1 / pair.scale), lq)}")
        else:
            ways[way] += 1
    said = ", ".join(f"{n}: {way}" for way, n in ways.items())
    found = " ".join([*(["not of " + some(far, SHOWN)] if far else []), *([said] if said else [])])
    if found:
        yield Finding("bicubic", name, found, _WAYS[0][0], bool(far))


def _way(gt: np.ndarray, lq: np.ndarray, scale: float) -> str | None:
    """Which of the known resizers made `lq`."""
    for way, between, edge in _WAYS:
        if np.array_equal(imresize(gt, scale, round_between_passes=between, edge=edge), lq):
            return way
    return None


def _distance(ours: np.ndarray, theirs: np.ndarray) -> str:
    apart = ours.astype(np.float64) - theirs
    psnr = 10 * np.log10(np.iinfo(ours.dtype).max ** 2 / np.mean(apart**2))
    return f"{100 * np.mean(apart != 0):.0f} % of bytes differ, {psnr:.1f} dB"


def _split(opened: Opened) -> Iterator[Finding]:
    """Images that are both trained and tested on."""
    looks: dict[str, dict[str, Look]] = {"train": {}, "test": {}}
    for part, paths in opened.files.items():
        if part.split:
            looks[part.split] |= {p: opened.looks[p] for p in paths if p in opened.looks}
    if not looks["train"] or not looks["test"]:
        return
    common = [
        (ours, theirs, equal)
        for ours, theirs, equal in shared(looks["train"], looks["test"])
        if equal or same_picture(*(images.read(opened.root / path) for path in (ours, theirs)))
    ]
    for equal, what in ((True, "the same pixels"), (False, "the same picture")):
        both = [f"{ours} = {theirs}" for ours, theirs, same in common if same == equal]
        found = f"{len(both)}: {some(both, SHOWN)}" if both else "0"
        yield Finding("train and test", what, found, "0", bool(both))


def _manifest(held: Mapping[str, Any] | None, opened: Opened) -> Iterator[Finding]:
    """Files that are gone or have changed since they were prepared."""
    if held is None:
        yield Finding("manifest", "", "none", "written by restore prepare")
        return
    gone = [path for path in held["files"] if path not in opened.digests]
    changed = [
        path
        for path, entry in held["files"].items()
        if path in opened.digests and opened.digests[path] != (entry["size"], entry["sha256"])
    ]
    added = [path for path in opened.digests if path not in held["files"]]
    for what, paths in (("gone", gone), ("changed", changed)):
        yield Finding("manifest", what, some(paths, SHOWN) if paths else "0", "0", bool(paths))
    if added:
        yield Finding("manifest", "added", some(added, SHOWN))


def _path(opened: Opened, file: Path) -> str:
    return file.relative_to(opened.root).as_posix()
