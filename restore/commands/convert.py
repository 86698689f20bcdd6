"""Weights between BasicSR's .pth and our self-describing safetensors.

  restore convert experiments/train_SPAN_demo net_g.pth
  restore convert spanx4_ch48.pth span.safetensors --arch SPAN --scale 4

A .pth holds `params` (and `params_ema` where there is an average) with every key of the official
code, so that BasicSR, spandrel and chaiNNer load it strictly.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from restore.commands.shared import add_network, network_options
from restore.errors import OptionError, WeightsError
from restore.reports.sinks import log_to_console

SUFFIXES = (".pth", ".safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `convert`."""
    add_network(parser)
    parser.add_argument(
        "--key",
        choices=("params", "params_ema"),
        help="which weights; params_ema before params when left out",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing OUT")
    parser.add_argument("input", metavar="IN", help="weights, or a run's or checkpoint's folder")
    parser.add_argument("output", metavar="OUT", help="a new .pth or .safetensors file")


def run(args: argparse.Namespace) -> int:
    """Convert one file."""
    log_to_console(first_rank=True)
    output = Path(args.output)
    if output.suffix not in SUFFIXES:
        raise OptionError.of(
            "OPT43",
            "unknown kind of weights file",
            "OUT",
            repr(output.suffix),
            " or ".join(SUFFIXES),
            "choose another name",
        )
    if output.exists() and not args.overwrite:
        raise OptionError.of(
            "OPT22",
            "the output exists",
            str(output),
            "a file",
            "a new name",
            "add --overwrite or choose another name",
        )
    if not output.parent.is_dir():
        raise WeightsError.of(
            "WGT13", "no such folder", str(output.parent), "nothing", "a folder", "make it first"
        )
    from restore.archs import build_network, load_weights
    from restore.archs.table import architecture_of
    from restore.archs.weights import about_weights, describe, official_state, write_safetensors
    from restore.recipes.build import weights_file

    file = weights_file(args.input, args.key)
    options = network_options(args, about_weights(file))
    network = build_network(options)
    key = None if file.suffix == ".safetensors" else args.key
    load_weights(network, file, key=key)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        if output.suffix == ".safetensors":
            scale = architecture_of(options).scale(options)
            write_safetensors(temporary, network.state_dict(), describe(options, scale))
        else:
            _write_pth(temporary, network, file, args.key)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{output}: {len(official_state(network))} tensors of {getattr(options, 'type', '')}")
    return 0


def _write_pth(path: Path, network: Any, source: Path, key: str | None) -> None:
    """`params` and, where the source is a checkpoint with an average, `params_ema`."""
    import torch

    from restore.archs import load_weights
    from restore.archs.weights import official_state

    content = {"params": official_state(network)}
    if source.name == "ema.safetensors" and key is None:
        # a state dict is a view of the network, which is about to take the other weights
        content["params_ema"] = {k: value.clone() for k, value in content["params"].items()}
        load_weights(network, source.with_name("model.safetensors"))
        content["params"] = official_state(network)
    torch.save(content, path)
