"""Floor 3. Which LQ file belongs to which GT file: by names alone, once, in each set's own layout.

A pairing turns either name into one key. One GT has one LQ, but for `reside`, where several hazy
images share a clear one. A file without a partner is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

import numpy as np

from restore.data.options import PairedImageDataset
from restore.data.pair import Fit
from restore.data.stores.store import Store
from restore.errors import DataError

SHOWN = 5


@dataclass(frozen=True)
class Matches:
    """Which image of one store belongs to which of another.

    `names[i]`, `lq[i]`, `gt[i]`: what pair i is called, and where its images stand in their
    stores.
    """

    names: list[str]
    lq: np.ndarray
    gt: np.ndarray


@dataclass(frozen=True)
class Pairing:
    """How a layout pairs names; a name is a path relative to its dataroot.

    `gt_key` and `lq_key`: the key, or None for a file that is no GT or no LQ in this layout.
    `called`: what a pair is called, from its GT's and its LQ's name. `fit`: where a GT that is
    larger than its LQ is cut.
    """

    rule: str
    gt_key: Callable[[PurePath], str | None]
    lq_key: Callable[[PurePath], str | None]
    called: Callable[[PurePath, PurePath], str]
    recursive: bool = False
    shared_gt: bool = False
    fit: Fit = "corner"


def pairing_of(options: PairedImageDataset) -> Pairing:
    """The pairing that options ask for."""
    return (
        _by_template(options.filename_tmpl)
        if options.pairing == "template"
        else _OF_SETS[options.pairing]
    )


def match(options: PairedImageDataset, gt: Store, lq: Store) -> Matches:
    """The pairs, in the GT's order, and those of one GT in the LQ's. Raises DataError."""
    pairing = pairing_of(options)
    listed = options.meta_info_file is not None
    meant = _listed(Path(options.meta_info_file), gt) if options.meta_info_file else None
    gt_of = _unique(gt, _keyed(gt, meant, pairing.gt_key, pairing.rule))
    found = _keyed(lq, None, pairing.lq_key, pairing.rule)
    if not pairing.shared_gt:
        _unique(lq, found)
    lq_of: dict[str, list[int]] = {}
    for key, index in found:
        lq_of.setdefault(key, []).append(index)
    lone_gt = [gt.names[index] for key, index in gt_of.items() if key not in lq_of]
    lone_lq = [] if listed else [lq.names[index] for key, index in found if key not in gt_of]
    if lone_gt or lone_lq:
        key = "filename_tmpl" if options.pairing == "template" else "pairing"
        raise DataError.of(
            "DAT05",
            "LQ and GT do not pair",
            f"{lq.root} and {gt.root}",
            f"{some(lone_lq)} without GT, {some(lone_gt)} without LQ",
            pairing.rule,
            f"check {key}, or add or remove these files",
        )
    pairs = [(index, other) for key, index in gt_of.items() for other in lq_of[key]]
    names = [
        pairing.called(PurePosixPath(gt.names[index]), PurePosixPath(lq.names[other]))
        for index, other in pairs
    ]
    _unique(lq, zip(names, (other for _, other in pairs), strict=True))
    places = np.array(pairs, np.int64).reshape(-1, 2)
    return Matches(names, lq=places[:, 1], gt=places[:, 0])


def _by_template(template: str) -> Pairing:
    """GT `0001.png` with LQ `0001x4.png`, both directly in their folders."""
    return Pairing(
        f"for every GT 'name' an LQ '{template.format('name')}'",
        gt_key=lambda gt: template.format(gt.stem),
        lq_key=lambda lq: lq.stem,
        called=lambda gt, lq: gt.stem,
    )


def _gopro_key(folder: str) -> Callable[[PurePath], str | None]:
    """`SEQ/blur/000001.png` -> `SEQ-000001`; at this depth only, so that train and test of one
    download are never taken together."""

    def key(name: PurePath) -> str | None:
        if len(name.parts) != 3 or name.parts[1] != folder:
            return None
        return f"{name.parts[0]}-{name.stem}"

    return key


def _sidd_key(kind: str) -> Callable[[PurePath], str | None]:
    """`SCENE/0001_NOISY_SRGB_010.PNG` -> that path with neither NOISY nor the suffix."""

    def key(name: PurePath) -> str | None:
        before, marker, after = name.stem.rpartition(f"_{kind}_SRGB_")
        return (name.parent / f"{before}_SRGB_{after}").as_posix() if marker else None

    return key


_OF_SETS = {
    "gopro": Pairing(
        "SEQ/sharp/000001.png for every SEQ/blur/000001.png",
        gt_key=_gopro_key("sharp"),
        lq_key=_gopro_key("blur"),
        called=lambda gt, lq: f"{lq.parts[0]}-{lq.stem}",
        recursive=True,
    ),
    "sidd": Pairing(
        "SCENE/0001_GT_SRGB_010.PNG for every SCENE/0001_NOISY_SRGB_010.PNG",
        gt_key=_sidd_key("GT"),
        lq_key=_sidd_key("NOISY"),
        called=lambda gt, lq: lq.stem,
        recursive=True,
    ),
    "reside": Pairing(
        "for every GT 'id' one or more LQ 'id_…'",
        gt_key=lambda gt: gt.stem,
        lq_key=lambda lq: lq.stem.partition("_")[0],
        called=lambda gt, lq: lq.stem,
        shared_gt=True,
        fit="centre",
    ),
}


def _keyed(
    store: Store, meant: list[int] | None, key_of: Callable[[PurePath], str | None], rule: str
) -> list[tuple[str, int]]:
    """(key, index) of those images, of all or of `meant`, that the layout means."""
    indices = range(len(store.names)) if meant is None else meant
    found = [(key_of(PurePosixPath(store.names[index])), index) for index in indices]
    keyed = [(key, index) for key, index in found if key is not None]
    if not keyed:
        raise DataError.of(
            "DAT03",
            "no image of this pairing in the folder",
            store.root,
            f"{len(found)} images, none named so",
            rule,
            "check pairing, and that the dataroot is the folder just above these names",
        )
    return keyed


def _unique(store: Store, keyed: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Key -> index. Raises DataError DAT15 for a key met twice."""
    found: dict[str, int] = {}
    for key, index in keyed:
        if key in found:
            folder = PurePosixPath(store.names[index]).parent
            other = PurePosixPath(store.names[found[key]])
            near = other.relative_to(folder) if other.is_relative_to(folder) else other
            raise DataError.of(
                "DAT15",
                "two images of one name",
                store.where(index),
                f"also {near}",
                "one file per name",
                "remove or rename one",
            )
        found[key] = index
    return found


def _listed(meta: Path, store: Store) -> list[int]:
    """The images that a meta info file names."""
    if not meta.is_file():
        raise DataError.of(
            "DAT02",
            "meta_info_file is missing",
            str(meta),
            "no such file",
            "a text file",
            "check the path",
        )
    place = {name: index for index, name in enumerate(store.names)}
    found = []
    for number, line in enumerate(meta.read_text(encoding="utf-8").splitlines(), start=1):
        name = line.split(" ")[0].strip()
        if not name:
            continue
        where = f"{meta}:{number}"
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise DataError.of(
                "DAT01",
                "path leaves dataroot_gt",
                where,
                name,
                f"a file inside {store.root}",
                "correct the line",
            )
        if name not in place:
            raise DataError.of(
                "DAT02",
                "listed image is missing",
                where,
                f"{store.root}/{name}",
                "an image that exists",
                "correct the line or add the file",
            )
        found.append(place[name])
    if not found:
        raise DataError.of(
            "DAT03",
            "meta_info_file lists no image",
            str(meta),
            "no names",
            "one file name a line",
            "fill it or leave it out",
        )
    return found


def some(names: Sequence[str], shown: int = SHOWN) -> str:
    """The first names, and how many there are when that is not all; `none` for none."""
    more = f", … ({len(names)} in all)" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more if names else "none"
