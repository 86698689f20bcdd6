"""What networks cost: deployed parameters, multiply-adds, activations, memory and latency.

  restore info --arch SPAN --scale 4 --size 3x1280x720
  restore info --arch MaIR/MaIR-T_x4 --runs 0                 # counted only, in no time
  restore info --all --scale 4 --runs 0                       # every published variant of ×4
  restore info --all --lq 3x256x256 --device cuda --dtype fp16
  restore info net_g_latest.pth                              # what weights are, and what they cost

--size is the output's, channels × width × height, as papers state it; --lq is the input's.
MACs count what runs in convolutions, products and attention, once each; FFTs by their butterflies;
a selective scan as the field counts it: 9 a step and state, 1 a step. Latency: median (fastest …
slowest) of --runs passes over one image, warm and waited for. Memory: tensors alive at once beside
weights and input; on a GPU what its allocator took.
"""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Literal

from restore.commands.inspect import described
from restore.commands.shared import add_network, named_network, network_options
from restore.errors import OptionError
from restore.reports.sinks import log_to_console
from restore.reports.tables import text_table

if TYPE_CHECKING:
    import torch

    from restore.section import Section

HEAD = ["network", "parameters", "LQ", "GMACs", "scan", "Mactivations", "MiB", "ms"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `info`."""
    parser.add_argument("weights", nargs="?", metavar="WEIGHTS", help="a file, or a run's folder")
    parser.add_argument("--all", action="store_true", help="every published variant")
    add_network(parser)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", metavar="CxWxH", default="3x1280x720", help="output (3x1280x720)")
    size.add_argument("--lq", metavar="CxWxH", help="input, instead of --size")
    parser.add_argument("--runs", type=int, default=5, help="passes to time; 0 counts only (5)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--compile", action="store_true", help="time the compiled network")


def run(args: argparse.Namespace) -> int:
    """Print one table."""
    log_to_console(first_rank=True)
    if args.weights is not None:
        print(described(args.weights), end="\n\n")
    channels, width, height = _shape(args)
    found = [entry for entry in _networks(args) if _channels(entry[1]) == channels]
    if not found:
        raise OptionError.of(
            "OPT37",
            f"no such network takes images of {channels} channel(s)",
            "--lq" if args.lq else "--size",
            args.lq or args.size,
            "the network's channels first, then width and height",
            "for example --lq 6x256x256 for dual-pixel images",
        )
    from restore.evaluation.precision import check_precision
    from restore.world import World

    number: Literal["auto"] | int = {"cpu": 0, "cuda": 1}.get(args.device, "auto")
    device = World.start(num_gpu=number).device
    check_precision(args.dtype, device, "--dtype")
    rows = [_row(name, options, (width, height), args, device) for name, options in found]
    print(text_table(HEAD, rows))
    where = "counted" if not args.runs else f"{args.dtype} on {device}"
    print(f"\n{where}; {'compiled; ' if args.compile else ''}restore info --help says what is what")
    return 0


def _shape(args: argparse.Namespace) -> tuple[int, int, int]:
    """Channels, width and height."""
    text = args.lq or args.size
    found = re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise OptionError.of(
            "OPT17",
            "wrong size",
            "--lq" if args.lq else "--size",
            text,
            "channels x width x height",
            "for example 3x1280x720",
        )
    channels, width, height = map(int, found.groups())
    return channels, width, height


def _networks(args: argparse.Namespace) -> list[tuple[str, Section]]:
    """(name, options) of the networks asked for; equal variants of a family are named once."""
    from restore.archs.table import ARCHS, architecture_of
    from restore.archs.weights import about_weights
    from restore.recipes.build import weights_file

    if args.all:
        named: list[tuple[str, Section]] = []
        for entry in ARCHS.values():
            for name, options in entry.presets.items():
                known = any(options == other for _, other in named)
                if not known and args.scale in (None, entry.scale(options)):
                    named.append((name, options))
        return named
    if args.weights is None:
        options = named_network(args)
    else:
        file = weights_file(args.weights, None)
        options = network_options(args, about_weights(file), file)
    return [(args.arch or architecture_of(options).name, options)]


def _channels(options: Section) -> int:
    from restore.recipes.build import channels_of

    return channels_of(options)


def _row(
    name: str,
    options: Section,
    size: tuple[int, int],
    args: argparse.Namespace,
    device: torch.device,
) -> list[str]:
    import torch

    from restore.archs.build import build_network, fuse
    from restore.archs.table import architecture_of
    from restore.evaluation.profile import count, timed

    architecture = architecture_of(options)
    scale = 1 if args.lq else architecture.scale(options)
    width, height = (architecture.size.padded(max(side // scale, 1)) for side in size)
    shape = 1, architecture.channels(options), height, width
    cost = count(fuse(build_network(options, meta=True)), shape)
    memory, latency = cost.memory, "–"
    if args.runs > 0:
        torch.manual_seed(0)
        network = fuse(build_network(options)).to(device)
        if args.compile:
            network.compile()
        timing = timed(network, torch.rand(shape, device=device), args.runs, args.dtype)
        memory = timing.memory or memory
        fast, slow = min(timing.seconds), max(timing.seconds)
        latency = f"{1e3 * timing.median:.1f} ({1e3 * fast:.1f} … {1e3 * slow:.1f})"
    return [
        name,
        f"{cost.parameters:,}",
        f"{width}×{height}",
        f"{cost.total / 1e9:.2f}",
        f"{cost.macs.get('scan', 0) / 1e9:.2f}",
        f"{cost.activations / 1e6:.1f}",
        f"{memory / 2**20:.0f}",
        latency,
    ]
