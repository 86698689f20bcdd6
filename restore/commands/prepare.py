"""Lay out a data set.

  restore prepare demo --out datasets/demo

demo: natural images inside the scikit-image wheel, split into train, validation and test, laid out
as DIV2K and its benchmark sets are; and blurred, noisy and hazy pairs made from them, laid out as
GoPro, SIDD and RESIDE are. It shows that training works; no paper's number can be reproduced on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from restore.reports.sinks import log_to_console

SETS = {"demo": "datasets/demo"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `prepare`."""
    parser.add_argument("set", choices=tuple(SETS))
    parser.add_argument("--out", metavar="FOLDER", help="default: datasets/<set>")


def run(args: argparse.Namespace) -> int:
    """Prepare one set."""
    log_to_console(first_rank=True)
    from restore.data.prepare import demo

    print(demo.prepare(Path(args.out or SETS[args.set])))
    return 0
