"""Resize images exactly as MATLAB's bicubic imresize does.

restore resize --scale 1/4 HR/ LR/
restore resize --scale 4 small.png large.png
"""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from pathlib import Path

from restore.commands.shared import image_jobs
from restore.errors import OptionError
from restore.reports.sinks import log_to_console, progress

SMALLEST = Fraction(1, 1000)  # below it the kernel alone outgrows any image
FIX = "use a smaller scale, or cut the image up"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `resize`."""
    parser.add_argument("--scale", required=True, help="0.25, 1/3, 4, …")
    parser.add_argument(
        "--edge",
        choices=("mirror", "clamp"),
        default="mirror",
        help="beyond the border; clamp is MATLAB's way up to 2014",
    )
    parser.add_argument(
        "--round-once", action="store_true", help="round after both passes only, unlike MATLAB"
    )
    parser.add_argument(
        "--modcrop",
        type=int,
        default=1,
        metavar="N",
        help="first cut the sides to multiples of N, as benchmark sets do",
    )
    parser.add_argument("input", metavar="IN")
    parser.add_argument("output", metavar="OUT")


def run(args: argparse.Namespace) -> int:
    """Resize every input."""
    log_to_console(first_rank=True)
    from restore import images
    from restore.image_flaws import flaw
    from restore.ops.resize import exact_scale, imresize

    try:
        scale = exact_scale(args.scale)
        if scale < SMALLEST:
            raise ValueError(f"a scale below {SMALLEST}")
    except ValueError as error:
        raise OptionError.of(
            "OPT42",
            "not a scale",
            "--scale",
            repr(args.scale),
            f"a number or fraction of at least {SMALLEST}",
            "for example 0.25, 1/3 or 4",
        ) from error
    if args.modcrop < 1:
        raise OptionError.of(
            "OPT18",
            "modcrop is out of range",
            "--modcrop",
            str(args.modcrop),
            "a number ≥ 1",
            "use the scale",
        )

    def check(path: Path) -> None:
        height, width = images.check(path)
        pixels = math.ceil(height * scale) * math.ceil(width * scale)
        if pixels > images.MAX_PIXELS:
            got = f"{pixels / 1e6:.1f} Mpx after resizing"
            raise flaw("IMG09", str(path), got, f"at most {images.MAX_PIXELS / 1e6:.1f} Mpx", FIX)

    jobs = image_jobs(args.input, args.output, check)
    with progress(len(jobs), 0, "resize", shown=len(jobs) > 1) as bar:
        for source, target in jobs:
            image = images.read(source)
            height, width = (side - side % args.modcrop or side for side in image.shape[:2])
            image = image[:height, :width]
            result = imresize(
                image, scale, edge=args.edge, round_between_passes=not args.round_once
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            images.write(target, result)
            bar.update()
    return 0
