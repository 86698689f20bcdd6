"""Write an official option file in today's spelling.

  restore migrate old.yml > new.yml

The new file goes to standard output, with a comment for everything that was translated or left out;
messages go to standard error. It means what the old one means here, and checks without a word.
The old file's own comments are not kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from restore.commands.check import tree_of_file
from restore.commands.shared import add_overrides, overrides
from restore.errors import OptionError, printable
from restore.options import read_document
from restore.options_legacy import Note, read_translated
from restore.options_yaml import dump
from restore.reports.sinks import log_to_console
from restore.section import Path, without_effect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `migrate`."""
    parser.add_argument("file", metavar="OLD.yml")
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    """Print the file in today's spelling."""
    log_to_console(first_rank=True)
    kind, check = tree_of_file(read_document(args.file))
    tree, document, done = read_translated(kind, args.file, overrides(args))
    problems = check(tree, document)
    if problems:
        raise OptionError(*problems)
    idle = without_effect(tree)
    values = without(document.values, [path for path, _ in idle])
    dropped = done.dropped + [Note(document.where(path), reason) for path, reason in idle]
    lines = [f"# From {args.file} by `restore migrate`."]
    lines += [f"# translated  {note}" for note in done.rewritten]
    lines += [f"# left out    {note}" for note in dropped]
    print("\n".join(map(printable, lines)))
    print(dump(values), end="")
    return 0


def without(values: Mapping[str, Any], paths: list[Path]) -> dict[str, Any]:
    """`values` without what stands at `paths`."""
    here = {path[0] for path in paths if len(path) == 1}
    kept: dict[str, Any] = {}
    for key, value in values.items():
        below = [path[1:] for path in paths if len(path) > 1 and path[0] == key]
        if key not in here:
            kept[key] = without(value, below) if below and isinstance(value, Mapping) else value
    return kept
