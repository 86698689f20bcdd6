"""Validate option files and build their networks, without data, GPU or output.

restore check options/*.yml
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from restore.commands.shared import add_overrides, overrides, read_tree
from restore.errors import OptionError, Problem
from restore.options import Document, read_document
from restore.recipes.bench_trees import BenchTree, check_bench
from restore.recipes.checks import check_test, check_train
from restore.recipes.trees import TestTree, TrainTree
from restore.reports.sinks import log_to_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `check`."""
    parser.add_argument("files", nargs="+", metavar="FILE.yml")
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    """Check every file; all their problems come at once."""
    log_to_console(first_rank=True)
    problems: list[Problem] = []
    for file in args.files:
        try:
            print(f"ok  {file}: {_check(file, overrides(args))}")
        except OptionError as error:
            problems += error.problems
    if problems:
        raise OptionError(*problems)
    return 0


def tree_of_file(document: Document) -> tuple[type[Any], Callable[[Any, Document], list[Problem]]]:
    """The tree and the checks of a training file, which has a section `train`, or of a test."""
    return (TrainTree, check_train) if "train" in document.values else (TestTree, check_test)


def _check(file: str, assignments: list[str]) -> str:
    document = read_document(file)
    if "networks" in document.values:
        return _check_matrix(file, assignments)
    kind, check = tree_of_file(document)
    tree: Any = read_tree(kind, file, assignments, check)
    training = kind is TrainTree
    from restore.archs import build_network, fuse

    network = build_network(tree.network_g, meta=True)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    deployed = sum(p.numel() for p in fuse(network).parameters())
    counts = f"{deployed:,} parameters deployed"
    if trained != deployed:
        counts += f", {trained:,} while training"
    return f"{'train' if training else 'test'} {tree.network_g.type} ×{tree.scale}, {counts}"


def _check_matrix(file: str, assignments: list[str]) -> str:
    tree = read_tree(BenchTree, file, assignments, check_bench)
    from restore.archs import build_network, fuse

    counts = []
    for name, about in tree.networks.by_name().items():
        deployed = fuse(build_network(about.options(), meta=True)).parameters()
        counts.append(f"{name} {sum(p.numel() for p in deployed):,}")
    cells = len(list(tree.cells()))
    return f"bench ×{tree.scale}, {cells} cells; parameters deployed: {', '.join(counts)}"
