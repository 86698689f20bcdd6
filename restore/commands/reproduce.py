"""Measure a network and set the figures beside the published ones.

  restore reproduce SPAN/SPAN/SRx4 --weights spanx4_ch52.pth
  restore reproduce SPAN/SPAN/SRx4 --weights … --sets Set14 --set datasets.test_2.dataroot_gt=…
  restore reproduce --list

Network, sets and way of inference are those of the test file that belongs to the row
(options/test_….yml, or --opt), under the protocol of the published figure. Reproduced means within
0.01 dB and 0.0005 SSIM. Exit code 1: a figure is further away, or could not be measured.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import restore
from restore.catalog import nearest
from restore.commands.shared import add_overrides, overrides, world_of
from restore.errors import OptionError, WeightsError
from restore.metrics.protocols import PROTOCOLS
from restore.options import read_options
from restore.recipes.bench_trees import BenchTree, check_bench
from restore.recipes.checks import check_test
from restore.recipes.reproduce import TOLERANCE, Verdict, matrix_of, verdicts
from restore.recipes.trees import TestTree
from restore.reports.published.table import Published, published, published_as
from restore.reports.sinks import log_to_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `reproduce`."""
    parser.add_argument("name", nargs="?", metavar="FAMILY/VARIANT/TASK")
    parser.add_argument("--list", action="store_true", help="the rows that can be reproduced")
    parser.add_argument(
        "--weights", metavar="FILE", help="the official checkpoint, or a run of ours"
    )
    parser.add_argument("--opt", metavar="FILE.yml", help="another test file than the row's own")
    parser.add_argument("--sets", nargs="+", metavar="SET", help="only these of the published sets")
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print the comparison, and say whether it holds."""
    log_to_console(first_rank=True)
    if args.list or args.name is None:
        _print_list()
        return 0
    rows = _rows(args.name)
    tree = _matrix(args, rows)
    from restore.recipes.bench import run_matrix
    from restore.recipes.bench_report import write_report

    with world_of(tree) as world:
        filled = run_matrix(tree, world)
    report = write_report(tree, filled)
    found = verdicts(rows, filled, args.sets)
    _print(rows, found)
    for failure in report.failures:
        print(f"not measured: {failure}", file=sys.stderr)
    print(f"\npage: {report.page}")
    return 0 if all(verdict.holds for verdict in found) else 1


def _print_list() -> None:
    for name in dict.fromkeys(row.name for row in published() if row.options is not None):
        sets = dict.fromkeys(s for row in published_as(name) for s in row.figures)
        print(f"{name}  ({', '.join(sets)})")


def _rows(name: str) -> tuple[Published, ...]:
    rows = published_as(name)
    if not rows:
        near = nearest(name, {row.name for row in published()})
        raise OptionError.of(
            "OPT24",
            "no published figures of this name",
            "restore reproduce",
            repr(name),
            "FAMILY/VARIANT/TASK",
            f"did you mean '{near}'?" if near else "restore reproduce --list",
        )
    protocol = rows[0].protocol
    if protocol is None or protocol not in PROTOCOLS:
        raise OptionError.of(
            "OPT24",
            "the protocol of these figures is not one of ours",
            rows[0].name,
            protocol or "not said by the source",
            "one of " + ", ".join(PROTOCOLS),
            "measure with restore test and compare by hand",
        )
    return rows


def _matrix(args: argparse.Namespace, rows: tuple[Published, ...]) -> BenchTree:
    file = args.opt or _options_file(rows)
    if args.weights is None:
        raise OptionError.of(
            "OPT40",
            "no weights to reproduce with",
            "restore reproduce",
            "nothing",
            "--weights FILE",
            "add --weights",
        )
    test, document = read_options(TestTree, file, overrides(args))
    problems = check_test(test, document)
    if problems:
        raise OptionError(*problems)
    tree = matrix_of(test, rows, args.weights, args.sets)
    problems = check_bench(tree, document)
    if problems:
        raise OptionError(*(replace(problem, where=file) for problem in problems))
    if not Path(args.weights).exists():
        raise WeightsError.of(
            "WGT05",
            "weights not found",
            "--weights",
            args.weights,
            "the official checkpoint, or the folder of a run",
            "download it from the authors' page, or correct the path",
        )
    return tree


def _options_file(rows: tuple[Published, ...]) -> str:
    """The row's test file: under the working folder, or beside the package."""
    name = next((row.options for row in rows if row.options is not None), None)
    roots = (Path("options"), Path(restore.__file__).parent.parent / "options")
    found = next((str(r / name) for r in roots if name and (r / name).is_file()), None)
    if found is None:
        raise OptionError.of(
            "OPT01",
            "no test file for these figures",
            rows[0].name,
            name or "none is written yet",
            "a test file with this network and these sets",
            "add --opt FILE.yml",
        )
    return found


def _print(rows: tuple[Published, ...], found: list[Verdict]) -> None:
    from restore.reports.tables import text_table

    print(f"{rows[0].name}, {rows[0].protocol}")
    for row in rows:
        print(f"published: {row.source} ({row.evidence}){'; ' + row.note if row.note else ''}")
    lines = []
    for v in found:
        digits = 2 if v.measure == "psnr" else 4
        measured, gap = "–", "–"
        if v.measured is not None:
            measured, gap = f"{v.measured:.{digits + 1}f}", f"{v.gap:+.{digits + 1}f}"
        lines.append([v.set, v.measure.upper(), f"{v.published:.{digits}f}", measured, gap, v.said])
    print("\n" + text_table(["set", "", "published", "measured", "delta", "verdict"], lines))
    print(f"\nreproduced means: within {TOLERANCE['psnr']} dB, {TOLERANCE['ssim']} SSIM")
