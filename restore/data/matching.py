"""Floor 3. Which LQ file belongs to which GT file: by names alone, once, in each set's own layout.

A pairing turns either name into one key. One GT has one LQ, but for `reside`, where several hazy
images share a clear one. A file without a partner is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from restore import images
from restore.data.options import PairedImageDataset
from restore.data.pair import Fit
from restore.errors import DataError

SHOWN = 5


@dataclass(frozen=True)
class Match:
    """A pair of files and what it is called."""

    name: str
    lq: Path
    gt: Path


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


def match(options: PairedImageDataset) -> list[Match]:
    """The pairs, in the GT's order, and those of one GT in the LQ's. Raises DataError."""
    pairing = pairing_of(options)
    gt_root, lq_root = Path(options.dataroot_gt), Path(options.dataroot_lq)
    listed = options.meta_info_file is not None
    if options.meta_info_file is not None:
        gt_files = _listed(Path(options.meta_info_file), gt_root)
    else:
        gt_files = images.list_images(gt_root, recursive=pairing.recursive)
    lq_files = images.list_images(lq_root, recursive=pairing.recursive)
    gt = _unique(_keyed(gt_files, gt_root, pairing.gt_key, pairing.rule))
    found = _keyed(lq_files, lq_root, pairing.lq_key, pairing.rule)
    if not pairing.shared_gt:
        _unique(found)
    lq: dict[str, list[Path]] = {}
    for key, file in found:
        lq.setdefault(key, []).append(file)
    lone_gt = [_within(gt_root, file) for key, file in gt.items() if key not in lq]
    lone_lq = [] if listed else [_within(lq_root, file) for key, file in found if key not in gt]
    if lone_gt or lone_lq:
        key = "filename_tmpl" if options.pairing == "template" else "pairing"
        raise DataError.of(
            "DAT05",
            "LQ and GT do not pair",
            f"{lq_root} and {gt_root}",
            f"{_some(lone_lq)} without GT, {_some(lone_gt)} without LQ",
            pairing.rule,
            f"check {key}, or add or remove these files",
        )
    pairs = [(target, file) for key, target in gt.items() for file in lq[key]]
    named = [
        (pairing.called(target.relative_to(gt_root), file.relative_to(lq_root)), file, target)
        for target, file in pairs
    ]
    _unique([(name, file) for name, file, _ in named])
    return [Match(*pair) for pair in named]


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
    files: Iterable[Path], root: Path, key_of: Callable[[PurePath], str | None], rule: str
) -> list[tuple[str, Path]]:
    """(key, file) of those files that the layout means."""
    found = [(key_of(file.relative_to(root)), file) for file in files]
    meant = [(key, file) for key, file in found if key is not None]
    if not meant:
        raise DataError.of(
            "DAT03",
            "no image of this pairing in the folder",
            str(root),
            f"{len(found)} images, none named so",
            rule,
            "check pairing, and that the dataroot is the folder just above these names",
        )
    return meant


def _unique(files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Key -> file. Raises DataError DAT15 for a key met twice."""
    found: dict[str, Path] = {}
    for key, file in files:
        if key in found:
            raise DataError.of(
                "DAT15",
                "two images of one name",
                str(file),
                f"also {_within(file.parent, found[key])}",
                "one file per name",
                "remove or rename one",
            )
        found[key] = file
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


def _within(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def _some(names: list[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"
