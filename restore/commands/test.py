"""Score a network on any number of sets: a table, rows, and an offline page with its images.

  python test.py -opt options/test_SPAN_SRx4.yml

Writes experiments/<name>/results/: rows.jsonl, rows.csv, summary.json, report/index.html, and the
restored images under visualization/ when val.save_img is true.
"""

from __future__ import annotations

import argparse

from restore.commands.shared import add_option_file, overrides, read_tree, world_of
from restore.recipes.checks import check_test
from restore.recipes.trees import TestTree
from restore.reports.sinks import log_to_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `test`."""
    add_option_file(parser)


def run(args: argparse.Namespace) -> int:
    """Test and report."""
    log_to_console(first_rank=True)
    tree = read_tree(TestTree, args.opt, overrides(args), check_test)
    from restore.recipes.benchmark import network_name, run_benchmark
    from restore.recipes.build import build_test

    with world_of(tree, args.launcher) as world:
        log_to_console(first_rank=world.first)
        run = build_test(tree, world, network_name(tree))
        table = run_benchmark(tree, run, world)
        if world.first:
            print(table)
    return 0
