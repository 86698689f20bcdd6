"""Lay out a data set, look whether one is whole, or make a store that training reads faster.

  restore prepare div2k --source ~/Downloads/DIV2K --sub-images
  restore prepare gopro --source GOPRO_Large.zip --variant blur --dry-run
  restore prepare doctor gopro
  restore prepare demo
  restore prepare pack --gt DIV2K_train_HR --lq DIV2K_train_LR_bicubic/X4 --out DIV2K_X4

A set is made of folders or archives (zip, tar) as people have them. LR that are missing are made by
MATLAB's bicubic. Run it again after an interruption: it finishes the rest and redoes nothing.

doctor: counts, unreadable files, sizes, depth, pairs, LR, images in both train and test, version.
Exit code 0: sound; 1: faults were found.

demo: natural images inside the scikit-image wheel, split into train, validation and test, laid out
as DIV2K and its benchmark sets are; and blurred, noisy and hazy pairs made from them, laid out as
GoPro, SIDD and RESIDE are. It shows that training works; no paper's number can be reproduced on it.

pack: decoded images, of which a crop reads only what it covers; OUT/gt.pack and OUT/lq.pack.
lmdb: the files as they are in BasicSR's LMDB layout; OUT/gt.lmdb and OUT/lq.lmdb.
shards: the files as they are in tar archives with an index, to be read from a folder or by HTTP;
OUT/gt.shards and OUT/lq.shards. An option file names them by `io_backend: {type: pack}` and so on.
"""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from restore.errors import OptionError
from restore.reports.sinks import log_to_console

if TYPE_CHECKING:
    from restore.data.prepare.plan import Wishes
    from restore.data.prepare.records import Record

DEMO = "datasets/demo"
STORES = ("pack", "lmdb", "shards")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `prepare`."""
    from restore.data.prepare.table import SETS

    known = ", ".join(["demo", *STORES, *SETS])
    parser.add_argument("set", metavar="SET | doctor", help=known)
    parser.add_argument("of", nargs="?", metavar="SET", help="for doctor: a set as well")
    parser.add_argument("--out", metavar="FOLDER", help="the set's folder; default: datasets/…")
    parser.add_argument(
        "--source", nargs="+", metavar="PATH", help="the downloaded folders and archives"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--variant", help="gopro: blur (default) or blur_gamma")
    parser.add_argument(
        "--scales", nargs="+", type=int, metavar="N", help="of the LR to make; default: 2 3 4"
    )
    parser.add_argument("--sub-images", action="store_true", help="also cut images for training")
    parser.add_argument("--crop", type=int, help="side of a sub-image, in GT pixels")
    parser.add_argument("--step", type=int, help="from one sub-image to the next, in GT pixels")
    parser.add_argument(
        "--thresh",
        type=int,
        default=0,
        help="a border of up to this many GT pixels gets no sub-image of its own; default: 0",
    )
    parser.add_argument(
        "--partial", action="store_true", help="doctor: a part of the whole set is no fault"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="images at a time")
    store = parser.add_argument_group("stores")
    store.add_argument("--gt", metavar="FOLDER", help="images to store; required")
    store.add_argument("--lq", metavar="FOLDER", help="their LQ, stored beside them")
    store.add_argument("--recursive", action="store_true", help="also images in folders below")
    store.add_argument(
        "--layout",
        choices=("auto", "rows", "tiles"),
        default="auto",
        help="of a pack: rows for one that fits in memory, tiles for reading from disk",
    )
    store.add_argument(
        "--codec",
        choices=("raw", "zlib", "zstd"),
        default="raw",
        help="of a pack's tiles: half the bytes and slower; zstd needs its package",
    )


def run(args: argparse.Namespace) -> int:
    """Prepare or examine one set."""
    from restore.data.prepare import demo
    from restore.data.prepare.table import SETS

    log_to_console(first_rank=True)
    if (args.set == "doctor") != (args.of is not None):
        words = " ".join(filter(None, (args.set, args.of)))
        raise _refused("restore prepare", words, "doctor SET, or SET alone")
    if args.jobs < 1:
        raise _refused("--jobs", str(args.jobs), "a number ≥ 1")
    if args.set == "demo":
        print(demo.prepare(Path(args.out or DEMO)))
        return 0
    if args.set in STORES:
        return _store(args)
    name = args.of or args.set
    if name not in SETS:
        near = SETS.nearest(name)
        fix = f"did you mean '{near}'?" if near else "choose one of them"
        known = ", ".join(SETS if args.of else ["demo", *STORES, *SETS])
        raise OptionError.of("OPT40", "unknown data set", "restore prepare", name, known, fix)
    if args.of:
        return _examine(name, SETS[name], args)
    return _prepare(name, SETS[name], args)


def _prepare(name: str, record: Record, args: argparse.Namespace) -> int:
    from restore.data.prepare.engine import execute, rest_of
    from restore.data.prepare.ledger import Ledger
    from restore.data.prepare.plan import plan
    from restore.data.prepare.report import describe, result
    from restore.data.prepare.source import Source
    from restore.data.prepare.space import free_bytes

    wishes = _wishes(record, args)
    if not args.source:
        raise _refused("--source", "nothing", f"what was downloaded: {record.expected}")
    out = Path(args.out or record.folder)
    with closing(Source(args.source)) as source:
        planned = plan(record, source, wishes)
        ledger = Ledger(out, name, wishes.variant)
        rest = rest_of(planned, ledger)
        if args.dry_run:
            print(describe(planned, rest, str(out), free_bytes(out)))
            print("nothing was written")
            return 0
        new = len(rest.copies) + len(rest.makings)
        if new or not ledger.finished:
            execute(rest, ledger, source, args.jobs)
    print(result(record, ledger.entries, str(out), new))
    return 0


def _store(args: argparse.Namespace) -> int:
    """Make a store of the folders --gt and --lq."""
    from restore.data.prepare import stores

    if args.codec != "raw" and args.layout == "rows":
        raise OptionError.of(
            "OPT26",
            "rows cannot be packed",
            "--codec",
            f"--layout rows --codec {args.codec}",
            "tiles, which are packed one by one",
            "leave --layout out",
        )
    if not args.gt or not args.out:
        raise _refused(f"restore prepare {args.set}", "one left out", "--gt FOLDER --out FOLDER")
    sides = {"gt": Path(args.gt)} | ({"lq": Path(args.lq)} if args.lq else {})
    out = Path(args.out)
    done = stores.prepare(
        args.set, sides, out, layout=args.layout, codec=args.codec, recursive=args.recursive
    )
    print(done)
    return 0


def _examine(name: str, record: Record, args: argparse.Namespace) -> int:
    from restore.data.prepare.doctor import examine
    from restore.data.prepare.report import doctor_table

    folder = Path(args.out or record.folder)
    table, faults = doctor_table(
        examine(record, name, folder, partial=args.partial, jobs=args.jobs)
    )
    print(table)
    return 1 if faults else 0


def _wishes(record: Record, args: argparse.Namespace) -> Wishes:
    """What the arguments ask for, as far as this set can be asked. Raises OptionError."""
    from restore.data.prepare.plan import Wishes

    variant = args.variant or next(iter(record.variants), "")
    if args.variant is not None and variant not in record.variants:
        known = " or ".join(record.variants) or f"none, as {record.title} has one only"
        raise _refused("--variant", args.variant, known)
    scales = {scale for rule in record.bicubic for scale in rule.scales}
    if args.scales is not None and not set(args.scales) <= scales:
        known = f"some of {sorted(scales)}" if scales else f"none, as {record.title} has no LR"
        raise _refused("--scales", " ".join(map(str, args.scales)), known)
    cut = {"--crop": args.crop, "--step": args.step, "--thresh": args.thresh or None}
    given = {flag: value for flag, value in cut.items() if value is not None}
    if (args.sub_images or given) and not record.tiles:
        raise _refused("--sub-images", "a wish", f"none, as {record.title} is not cut")
    if given and not args.sub_images:
        raise _refused(" ".join(given), "no --sub-images", "--sub-images with it")
    multiple = max((tiles.multiple for tiles in record.tiles), default=1)
    for flag, value in given.items():
        if value < 1 or value % multiple:
            raise _refused(flag, str(value), f"a positive multiple of {multiple}")
    picked = tuple(sorted(set(args.scales))) if args.scales else None
    return Wishes(variant, picked, args.sub_images, args.crop, args.step, args.thresh)


def _refused(where: str, got: str, expected: str) -> OptionError:
    fix = "restore prepare --help"
    return OptionError.of("OPT40", "wrong command line", where, got, expected, fix)
