"""Write a network as one file that runs elsewhere, for images of any height and width.

  restore export --weights experiments/train_SPAN_demo --to onnx span.onnx
  restore export --weights net.pth --opt options/test_MaIR_SRx4.yml --to torchscript mair.ts
  restore export --weights net.pth --arch GRL --set … --to torch-export grl.pt2

Input `lq` (1, C, h, w) float32 in [0, 1]; output (1, C', h·scale, w·scale), not clamped. Padding is
inside the graph. The file is compared with the network at three sizes before it gets its name:
where they differ by more than 1e-4, nothing is written and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from restore.commands.shared import add_network, network_options, refuse_output
from restore.reports.sinks import log_to_console

TARGETS = ("onnx", "torchscript", "torch-export")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="weights, or a run's folder"
    )
    add_network(parser)
    parser.add_argument("--to", required=True, choices=TARGETS, help="kind of file")
    parser.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare the file with the network at three sizes (default)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing OUT")
    parser.add_argument("output", metavar="OUT", help="a new .onnx, .ts or .pt2 file")


def run(args: argparse.Namespace) -> int:
    """Export one network."""
    log_to_console(first_rank=True)
    output = Path(args.output)
    refuse_output(output, overwrite=args.overwrite)
    import torch

    from restore.archs import build_network, load_weights
    from restore.archs.export import TOLERANCE, differences, export_form, read, require, write
    from restore.archs.table import architecture_of
    from restore.archs.weights import about_weights, describe, state_sha256
    from restore.recipes.build import channels_of, predictor_of, weights_file

    require(args.to, output.suffix)
    file = weights_file(args.weights, None)
    options = network_options(args, about_weights(file), file)
    network = build_network(options).eval()
    load_weights(network, file)
    architecture, channels = architecture_of(options), channels_of(options)
    about = describe(options, architecture.scale(options))
    about["weights_sha256"] = state_sha256(network.state_dict())
    temporary = output.with_name(f".{output.stem}.{os.getpid()}{output.suffix}")
    try:
        form = export_form(network, options)
        write(form, args.to, temporary, channels, about)
        alike = True
        if args.check:
            truth = predictor_of(network, options, torch.device("cpu"))
            ours = read(args.to, temporary)
            for size, difference in differences(ours, truth, channels, form.unit):
                print(f"{size}: largest difference {difference:.1e}")
                alike = alike and difference <= TOLERANCE  # NaN is not
        if not alike:
            print(f"{output} not written: it differs by more than {TOLERANCE:.0e}")
            return 1
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    checked = "" if args.check else ", not checked"
    print(f"{output}: {architecture.name} as {args.to}, {output.stat().st_size:,} bytes{checked}")
    return 0
