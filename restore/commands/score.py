"""PSNR and SSIM of two images or folders under a named protocol, whoever made them.

  restore score --protocol sr-y --border 4 RESTORED TARGET
  restore score --protocol vdsr-y --bicubic 4 TARGET      the row without a network
  restore score --protocol all RESTORED TARGET            how far the choice of protocol moves it

  restore score --lpips alexnet-owt-7be5be79.pth RESTORED TARGET

Images are matched by name (the same stem, or the target's stem as the longest beginning of the
restored one's). A target up to 7 pixels larger is cut at the bottom and right, as benchmark sets
need whose HR was not cut to a multiple of the scale.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.errors import DataError, OptionError
from restore.metrics.protocols import PROTOCOLS, ScoringRule, default_border
from restore.reports.records import mean
from restore.reports.sinks import log_to_console
from restore.reports.tables import number, text_table

if TYPE_CHECKING:
    import numpy as np

SPARE = 7
BACKBONES = {"lpips": "torchvision's AlexNet, for LPIPS", "dists": "torchvision's VGG16, for DISTS"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `score`."""
    parser.add_argument("--protocol", choices=(*PROTOCOLS, "all"), default="sr-y")
    parser.add_argument(
        "--border",
        type=int,
        default=None,
        help="pixels left out on every side (0; the protocol's own with --bicubic)",
    )
    parser.add_argument(
        "--bicubic",
        type=int,
        metavar="SCALE",
        help="score the target shrunk and enlarged by MATLAB's bicubic",
    )
    for name, network in BACKBONES.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"weights of {network}")
        parser.add_argument(
            f"--{name}-heads", type=Path, metavar="FILE", help="instead of the installed package's"
        )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("images", nargs="+", metavar="RESTORED TARGET")


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    log_to_console(first_rank=True)
    _check(args)
    pairs = _alone(args.images[0]) if args.bicubic else _matched(*args.images)
    rules = list(PROTOCOLS.values()) if args.protocol == "all" else [PROTOCOLS[args.protocol]]
    tables = [Table(rule, _border(args, rule)) for rule in rules]
    distances = _distances(args)
    for restored, target in pairs:
        _score_image(tables, restored, target, args.bicubic)
        if restored is not None and distances:
            _measure(tables[0], distances, restored, target)
    if args.protocol == "all":
        _print_all(tables, as_json=args.json)
    else:
        _print(tables[0], as_json=args.json)
    return 0


@dataclass
class Table:
    """The scores of all images under one rule."""

    rule: ScoringRule
    border: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: str = ""
    """Why the rule does not apply to these images (with `--protocol all`)."""

    @property
    def psnr(self) -> float:
        return mean(row["psnr"] for row in self.rows)

    @property
    def ssim(self) -> float:
        return mean(row["ssim"] for row in self.rows)

    @property
    def distances(self) -> dict[str, float]:
        """Means of what was measured beside PSNR and SSIM."""
        names = [name for name in BACKBONES if self.rows and name in self.rows[0]]
        return {name: mean(row[name] for row in self.rows) for name in names}

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints of it."""
        about = {"images": len(self.rows), "protocol": self.rule.stamp, "border": self.border}
        scores = {"psnr": self.psnr, "ssim": self.ssim, **self.distances}
        return {**scores, **about, "rows": self.rows}


def _check(args: argparse.Namespace) -> None:
    wanted = 1 if args.bicubic else 2
    if len(args.images) != wanted:
        raise OptionError.of(
            "OPT40",
            "wrong command line",
            "restore score",
            f"{len(args.images)} paths",
            f"{wanted}",
            "RESTORED TARGET, or TARGET with --bicubic",
        )
    perceptual = [f"--{name}" for name in BACKBONES if getattr(args, name) is not None]
    if perceptual and (args.bicubic or args.protocol == "all"):
        raise OptionError.of(
            "OPT40",
            "wrong command line",
            "restore score",
            f"{perceptual[0]} with --bicubic or --protocol all",
            "restored images and one protocol",
            f"leave {perceptual[0]} out",
        )
    if (args.border or 0) < 0 or (args.bicubic is not None and args.bicubic < 2):
        raise OptionError.of(
            "OPT18",
            "border or scale is out of range",
            "restore score",
            f"border {args.border}, scale {args.bicubic}",
            "border ≥ 0, scale ≥ 2",
            "change it",
        )


def _border(args: argparse.Namespace, rule: ScoringRule) -> int:
    return default_border(rule, args.bicubic or 1) if args.border is None else args.border


def _distances(args: argparse.Namespace) -> dict[str, Callable[..., float]]:
    """The perceptual metrics that were asked for, by name."""
    if args.lpips is None and args.dists is None:
        return {}
    from restore.metrics.perceptual import Dists, Lpips

    found: dict[str, Callable[..., float]] = {}
    if args.lpips is not None:
        found["lpips"] = Lpips(args.lpips, args.lpips_heads)
    if args.dists is not None:
        found["dists"] = Dists(args.dists, args.dists_heads)
    return found


def _measure(
    table: Table, distances: dict[str, Callable[..., float]], restored: Path, target: Path
) -> None:
    """The last row's perceptual distances, of the whole images."""
    from restore import images

    where = f"{restored} and {target}"
    a, b = _brought_together(table.rule, images.read(restored), images.read(target), where)
    with _named(target):
        for name, distance in distances.items():
            table.rows[-1][name] = distance(a, b)


def _alone(target: str) -> list[tuple[Path | None, Path]]:
    from restore import images

    files = images.list_images(target) if Path(target).is_dir() else [Path(target)]
    return [(None, file) for file in files]


def _score_image(
    tables: list[Table], restored: Path | None, target: Path, scale: int | None
) -> None:
    """One row more in every table. A rule that refuses an image is out, where it is not alone."""
    from restore import images
    from restore.metrics.scores import score, score_bicubic

    theirs = images.read(target)
    ours = None if restored is None else images.read(restored)
    for table in tables:
        if table.refused:
            continue
        rule, border = table.rule, table.border
        try:
            with _named(target):
                if restored is None or ours is None:
                    psnr, ssim = score_bicubic(rule, theirs, scale or 1, border)
                else:
                    a, b = _brought_together(rule, ours, theirs, f"{restored} and {target}")
                    psnr, ssim = score(rule, a, b, border)
        except DataError as error:
            if len(tables) == 1:
                raise
            table.refused = error.problems[0].what
            table.rows.clear()
        else:
            table.rows.append({"image": target.stem, "psnr": psnr, "ssim": ssim})


def _brought_together(
    rule: ScoringRule, a: np.ndarray, b: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Restored image and target of one size and one number of channels, as `rule` wants them."""
    from restore import images

    over = (b.shape[0] - a.shape[0], b.shape[1] - a.shape[1])
    centred = rule.align == "centre-crop"
    fits = [side >= 0 and (side % 2 == 0 if centred else side <= SPARE) for side in over]
    if not all(fits):
        raise DataError.of(
            "DAT06",
            "images to compare differ in size",
            where,
            f"{a.shape[1]}×{a.shape[0]} and {b.shape[1]}×{b.shape[0]}",
            "a target larger by even numbers at most"
            if centred
            else f"equal sizes (a target up to {SPARE} pixels larger is cut)",
            "restore at the target's size",
        )
    if not centred:
        b = b[: a.shape[0], : a.shape[1]]
    if a.ndim != b.ndim and rule.gray == "replicate":
        return images.as_rgb(a), images.as_rgb(b)
    return a, b


@contextmanager
def _named(file: Path) -> Generator[None, None, None]:
    """Errors of a score say which target they are about."""
    try:
        yield
    except DataError as error:
        raise DataError(
            *(replace(p, where=str(file)) if p.where == "score" else p for p in error.problems)
        ) from None


def _matched(restored: str, target: str) -> list[tuple[Path | None, Path]]:
    """(restored, target) files, in the targets' order."""
    from restore import images

    if not Path(restored).is_dir() and not Path(target).is_dir():
        return [(Path(restored), Path(target))]
    targets = images.list_images(target)
    theirs = {file.stem: file for file in targets}
    if len(theirs) < len(targets):
        raise DataError.of(
            "DAT15",
            "two images of one name",
            target,
            next(file.name for file in targets if theirs[file.stem] != file),
            "one file per name",
            "rename one of them",
        )
    ours: dict[str, Path] = {}
    lone = []
    for file in images.list_images(restored):
        stem = file.stem if file.stem in theirs else _longest_beginning(file.stem, theirs)
        if stem is None or stem in ours:
            lone.append(file.stem)
        else:
            ours[stem] = file
    missing = [stem for stem in theirs if stem not in ours]
    if lone or missing:
        raise DataError.of(
            "DAT05",
            "restored images and targets do not pair",
            f"{restored} and {target}",
            f"{', '.join(lone[:5]) or 'none'} without target, "
            f"{', '.join(missing[:5]) or 'none'} not restored",
            "one restored image per target",
            "add, remove or rename these files",
        )
    return [(ours[stem], file) for stem, file in theirs.items()]


def _longest_beginning(stem: str, known: dict[str, Path]) -> str | None:
    """The longest known stem that `stem` begins with, where no digit follows (img_1, img_10)."""
    fitting = [k for k in known if stem.startswith(k) and not stem[len(k)].isdigit()]
    return max(fitting, key=len, default=None)


def _print(table: Table, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(table.as_json(), indent=2))
        return
    names = list(table.distances)
    total: dict[str, Any] = {"psnr": table.psnr, "ssim": table.ssim, **table.distances}
    rows: list[dict[str, Any]] = [*table.rows, {"image": f"mean of {len(table.rows)}", **total}]
    lines = [
        [r["image"], number(r["psnr"], 4), *(number(r[name], 5) for name in ("ssim", *names))]
        for r in rows
    ]
    head = [f"{table.rule.stamp}, border {table.border}", "PSNR [dB]", "SSIM"]
    head += [name.upper() for name in names]
    print(text_table(head, lines))
    if math.isinf(table.psnr):
        print("inf: identical images")


def _print_all(tables: list[Table], *, as_json: bool) -> None:
    """Every protocol beside the others, and how far the choice alone moves the scores."""
    if as_json:
        found = [t.as_json() for t in tables if not t.refused]
        refused = {t.rule.stamp: t.refused for t in tables if t.refused}
        print(json.dumps({"protocols": found, "refused": refused}, indent=2))
        return
    lines = []
    for t in tables:
        scores = ["–", "–"] if t.refused else [number(t.psnr, 4), number(t.ssim, 5)]
        form = f"{t.rule.colour}, {t.rule.pixels}, {t.rule.ssim}"
        lines.append([t.rule.stamp, str(t.border), *scores, t.refused or form])
    print(text_table(["protocol", "border", "PSNR [dB]", "SSIM", "pixels and form of SSIM"], lines))
    scored = [t for t in tables if not t.refused and math.isfinite(t.psnr)]
    if scored:
        psnrs, ssims = [t.psnr for t in scored], [t.ssim for t in scored]
        print(f"the same images: {max(psnrs) - min(psnrs):.2f} dB and ", end="")
        print(f"{max(ssims) - min(ssims):.4f} of SSIM apart")
