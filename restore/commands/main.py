"""Floor 7. `restore <command> …`: argv in, exit code out.

Exit codes: 0 done, 1 what was examined has faults (a set, a cell of a matrix, a published figure),
2 a mistake in what was asked for, 3 a run had to stop, 4 nothing could be saved, 75 saved and left
on request, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from restore import __version__
from restore.catalog import nearest
from restore.errors import OptionError, Problem, RestoreError

COMMANDS = {
    "train": "train the network of an option file",
    "test": "score a network on any number of sets, with a table and a page",
    "bench": "score networks × sets × protocols × variants, side by side",
    "compare": "is one run better than another: paired differences of two results",
    "reproduce": "measure a network against its published figures",
    "check": "validate option files and build their networks, without data",
    "prepare": "lay out a data set",
    "info": "parameters, multiply-adds, memory and latency of networks",
    "infer": "restore an image or a folder",
    "resize": "resize images exactly as MATLAB's bicubic imresize does",
    "score": "PSNR and SSIM of two folders of images under a named protocol",
    "niqe": "quality of images without a target, under a pristine model",
    "export": "one file of a network for ONNX, TorchScript or torch.export",
    "convert": "weights from and to BasicSR's .pth and our safetensors",
    "inspect": "say what a weights file is, and what it does not tell",
    "migrate": "write an official option file in today's spelling",
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose mistakes are OptionErrors like all others."""

    def error(self, message: str) -> NoReturn:
        raise OptionError.of(
            "OPT40", "wrong command line", self.prog, message, "see --help", f"{self.prog} --help"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. `--debug` shows the traceback of an error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        return _run(arguments)
    except RestoreError as error:
        if debug:
            traceback.print_exc()
        else:
            print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:  # permissions, a full disk: nothing the code could have known
        if debug:
            raise
        print(_refused(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted", file=sys.stderr)
        return 130


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        raise OptionError.of(
            "OPT40",
            "unknown command",
            "restore",
            repr(name),
            "one of " + ", ".join(COMMANDS),
            f"did you mean '{near}'?" if near else "restore --help",
        )
    command = importlib.import_module(f"restore.commands.{name}")
    parser = Parser(
        prog=f"restore {name}",
        description=command.__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    command.add_arguments(parser)
    return command.run(parser.parse_intermixed_args(rest))


def _refused(error: OSError) -> Problem:
    return Problem(
        "SYS01",
        "the system refused a file operation",
        str(error.filename or "restore"),
        error.strerror or str(error),
        "a path that can be read and written",
        "check permissions and free space",
    )


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: restore <command> …    (restore <command> --help tells more)",
            "",
            *lines,
            "",
            f"restore {__version__}",
        ]
    )
