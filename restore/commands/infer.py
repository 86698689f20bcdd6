"""Restore an image or a folder of images.

  restore infer --weights experiments/train_SPAN_demo IN OUT
  restore infer --weights spanx4_ch48.pth --arch SPAN --scale 4 photo.jpg photo_x4.png
  restore infer --weights net.pth --opt options/test_SPAN_SRx4.yml in/ out/

Weights that we saved say themselves which network they are for. Of others, names and shapes tell
it, except for what `restore inspect` names as NOT told: --arch with a published variant tells that.
Results of a folder are PNG files.

What does not fit into memory is cut into tiles (--tile auto). Images of more than 100 megapixels
need --max-pixels; beside the input, such a run holds one tile and one row of restored tiles, for a
PNG is written row by row; for other formats it also holds the result.
"""

from __future__ import annotations

import argparse
from typing import Any, Literal

from restore.commands.shared import (
    add_network,
    add_predictor,
    image_jobs,
    network_options,
    predictor_options,
)
from restore.errors import OptionError
from restore.reports.sinks import log_to_console, progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `infer`."""
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="weights, or a run's folder"
    )
    add_network(parser)
    parser.add_argument("--num_gpu", choices=("auto", "0", "1"), default="auto")
    parser.add_argument("--alpha", choices=("refuse", "drop", "black"), default="refuse")
    parser.add_argument(
        "--max-pixels", type=int, metavar="N", help="larger images are refused (100,000,000)"
    )
    add_predictor(parser)
    parser.add_argument("input", metavar="IN")
    parser.add_argument("output", metavar="OUT")


def run(args: argparse.Namespace) -> int:
    """Restore every input."""
    log_to_console(first_rank=True)
    from restore import images
    from restore.archs import build_network, load_weights
    from restore.archs.weights import about_weights
    from restore.image_rows import ImageFile
    from restore.recipes.build import channels_of, predictor_of, weights_file
    from restore.world import World

    how = predictor_options(args)
    file = weights_file(args.weights, None)
    options = network_options(args, about_weights(file), file)
    channels = channels_of(options)
    if channels not in (1, 3):
        raise OptionError.of(
            "OPT37",
            "infer takes networks for gray or RGB images",
            "--weights",
            f"a network of {channels} channels",
            "1 or 3 channels",
            "use test.py with a DualPixelDataset",
        )
    network = build_network(options)
    load_weights(network, file)
    num_gpu: Literal["auto"] | int = "auto" if args.num_gpu == "auto" else int(args.num_gpu)
    device = World.start(num_gpu=num_gpu).device
    predictor = predictor_of(network, options, device, how, compile=args.compile)

    largest = images.MAX_PIXELS if args.max_pixels is None else args.max_pixels
    rules: dict[str, Any] = {"channels": channels, "alpha": args.alpha, "orient": "apply"}
    rules["max_pixels"] = largest
    jobs = image_jobs(args.input, args.output, lambda file: images.check(file, **rules))
    with progress(len(jobs), 0, "infer", shown=len(jobs) > 1) as bar:
        for source, target in jobs:
            target.parent.mkdir(parents=True, exist_ok=True)
            with ImageFile(target) as restored:
                predictor.write(images.read(source, **rules), restored)
            bar.update()
    return 0
