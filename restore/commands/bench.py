"""Score networks × sets × protocols × variants of inference, and report them side by side.

  restore bench -opt options/bench_SR_demo.yml
  torchrun --nproc-per-node=8 -m restore.commands bench -opt … --launcher pytorch

Writes experiments/<name>/: cells/ (every cell once; a run that was interrupted continues there),
results/<network>/ (rows, for `restore compare`) and report/ (page and tables). Exit code 1: a cell
could not be computed; the others were.
"""

from __future__ import annotations

import argparse
import sys

from restore.commands.shared import add_option_file, overrides, read_tree, world_of
from restore.recipes.bench_trees import BenchTree, check_bench
from restore.reports.sinks import log_to_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `bench`."""
    add_option_file(parser)


def run(args: argparse.Namespace) -> int:
    """Fill the matrix and report."""
    log_to_console(first_rank=True)
    tree = read_tree(BenchTree, args.opt, overrides(args), check_bench)
    from restore.recipes.bench import run_matrix
    from restore.recipes.bench_report import write_report

    with world_of(tree, args.launcher) as world:
        log_to_console(first_rank=world.first)
        filled = run_matrix(tree, world)
        if not world.first:
            return 0
        report = write_report(tree, filled)
    print(f"{report.text}\n\npage: {report.page}")
    for line in report.left_out:
        print(f"left out: {line}")
    for failure in report.failures:
        print(f"not computed: {failure}", file=sys.stderr)
    return 1 if report.failures else 0
