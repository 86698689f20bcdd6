"""PSNR and SSIM of two images or folders under a named protocol, whoever made them.

  restore score --protocol sr-y --border 4 RESTORED TARGET
  restore score --protocol vdsr-y --bicubic 4 TARGET      the row without a network

Images are matched by name (the same stem, or the target's stem as the longest beginning of the
restored one's). A target up to 7 pixels larger is cut at the bottom and right, as benchmark sets
need whose HR was not cut to a multiple of the scale.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from restore.errors import DataError, OptionError
from restore.metrics.protocols import PROTOCOLS, ScoringRule
from restore.reports.sinks import log_to_console

SPARE = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `score`."""
    parser.add_argument("--protocol", choices=tuple(PROTOCOLS), default="sr-y")
    parser.add_argument(
        "--border",
        type=int,
        default=None,
        help="pixels left out on every side (0; the scale with --bicubic)",
    )
    parser.add_argument(
        "--bicubic",
        type=int,
        metavar="SCALE",
        help="score the target shrunk and enlarged by MATLAB's bicubic",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("images", nargs="+", metavar="RESTORED TARGET")


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    log_to_console(first_rank=True)
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
    border = args.border if args.border is not None else args.bicubic or 0
    if border < 0 or (args.bicubic is not None and args.bicubic < 2):
        raise OptionError.of(
            "OPT18",
            "border or scale is out of range",
            "restore score",
            f"border {border}, scale {args.bicubic}",
            "border ≥ 0, scale ≥ 2",
            "change it",
        )
    rule = PROTOCOLS[args.protocol]
    if args.bicubic:
        rows = _bicubic_rows(rule, args.images[0], args.bicubic, border)
    else:
        rows = _rows(rule, args.images[0], args.images[1], border)
    _print(rows, rule, border, as_json=args.json)
    return 0


def _bicubic_rows(rule: ScoringRule, target: str, scale: int, border: int) -> list[dict[str, Any]]:
    from restore import images
    from restore.metrics.scores import score_bicubic

    files = images.list_images(target) if Path(target).is_dir() else [Path(target)]
    rows = []
    for file in files:
        with _named(file):
            psnr, ssim = score_bicubic(rule, images.read(file), scale, border)
        rows.append({"image": file.stem, "psnr": psnr, "ssim": ssim})
    return rows


def _rows(rule: ScoringRule, restored: str, target: str, border: int) -> list[dict[str, Any]]:
    from restore import images
    from restore.metrics.scores import score

    rows = []
    for ours, theirs in _matched(restored, target):
        a, b = images.read(ours), images.read(theirs)
        over = (b.shape[0] - a.shape[0], b.shape[1] - a.shape[1])
        if not all(0 <= side <= SPARE for side in over):
            raise DataError.of(
                "DAT06",
                "images to compare differ in size",
                f"{ours} and {theirs}",
                f"{a.shape[1]}×{a.shape[0]} and {b.shape[1]}×{b.shape[0]}",
                f"equal sizes (a target up to {SPARE} pixels larger is cut)",
                "restore at the target's size",
            )
        b = b[: a.shape[0], : a.shape[1]]
        if a.ndim != b.ndim and rule.gray == "replicate":
            a, b = images.as_rgb(a), images.as_rgb(b)
        with _named(theirs):
            psnr, ssim = score(rule, a, b, border)
        rows.append({"image": theirs.stem, "psnr": psnr, "ssim": ssim})
    return rows


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Errors of a score say which target they are about."""
    try:
        yield
    except DataError as error:
        raise DataError(
            *(replace(p, where=str(file)) if p.where == "score" else p for p in error.problems)
        ) from None


def _matched(restored: str, target: str) -> list[tuple[Path, Path]]:
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


def _print(rows: list[dict[str, Any]], rule: ScoringRule, border: int, *, as_json: bool) -> None:
    from restore.reports.records import mean
    from restore.reports.tables import number, text_table

    psnr, ssim = mean(r["psnr"] for r in rows), mean(r["ssim"] for r in rows)
    if as_json:
        about = {"images": len(rows), "protocol": rule.name, "border": border, "rows": rows}
        print(json.dumps({"psnr": psnr, "ssim": ssim, **about}, indent=2))
        return
    lines = [[r["image"], number(r["psnr"], 4), number(r["ssim"], 5)] for r in rows]
    total = [f"mean of {len(rows)}", number(psnr, 4), number(ssim, 5)]
    print(text_table([f"{rule.name}, border {border}", "PSNR [dB]", "SSIM"], [*lines, total]))
    if math.isinf(psnr):
        print("inf: identical images")
