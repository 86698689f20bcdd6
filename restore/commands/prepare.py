"""Lay out a data set, or make a store of one that training reads faster.

  restore prepare demo --out datasets/demo
  restore prepare pack --gt DIV2K_train_HR --lq DIV2K_train_LR_bicubic/X4 --out DIV2K_X4

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
from pathlib import Path

from restore.errors import OptionError
from restore.reports.sinks import log_to_console

SETS = {"demo": "datasets/demo"}
STORES = ("pack", "lmdb", "shards")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `prepare`."""
    parser.add_argument("set", choices=(*SETS, *STORES))
    parser.add_argument("--out", metavar="FOLDER", help="default: datasets/<set>")
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
    """Prepare one set."""
    log_to_console(first_rank=True)
    if args.set in STORES:
        return _store(args)
    from restore.data.prepare import demo

    print(demo.prepare(Path(args.out or SETS[args.set])))
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
        raise OptionError.of(
            "OPT12",
            f"prepare {args.set} needs --gt and --out",
            "the command line",
            "one of them left out",
            "--gt FOLDER --out FOLDER",
            "add it",
        )
    sides = {"gt": Path(args.gt)} | ({"lq": Path(args.lq)} if args.lq else {})
    out = Path(args.out)
    done = stores.prepare(
        args.set, sides, out, layout=args.layout, codec=args.codec, recursive=args.recursive
    )
    print(done)
    return 0
