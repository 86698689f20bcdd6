"""NIQE of images that have no target, under a pristine model of the user's.

  restore niqe --model niqe_pris_params.npz IMAGES      a file or a folder; lower is better
  restore niqe --fit my_model.npz PRISTINE              make a model from a folder of sharp pictures

The model that papers use comes with BasicSR (basicsr/metrics/niqe_pris_params.npz) and with the
authors' MATLAB release; it is not part of this project. Values under different models cannot be
compared, so the model's fingerprint is printed with them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from pathlib import Path

from restore.errors import DataError, OptionError
from restore.reports.records import mean
from restore.reports.sinks import log_to_console
from restore.reports.tables import number, text_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `niqe`."""
    parser.add_argument("--model", type=Path, metavar="FILE", help="the pristine model to use")
    parser.add_argument("--fit", type=Path, metavar="FILE", help="write a model fitted to IMAGES")
    parser.add_argument("--border", type=int, default=0, help="pixels left out on every side (0)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("images", metavar="IMAGES")


def run(args: argparse.Namespace) -> int:
    """Score and print, or fit and write."""
    log_to_console(first_rank=True)
    if (args.model is None) == (args.fit is None):
        raise OptionError.of(
            "OPT40",
            "wrong command line",
            "restore niqe",
            "both" if args.model else "neither --model nor --fit",
            "--model FILE or --fit FILE",
            "name a model, or make one",
        )
    if args.border < 0:
        raise OptionError.of(
            "OPT18",
            "border is out of range",
            "restore niqe",
            str(args.border),
            "border ≥ 0",
            "change it",
        )
    from restore import images
    from restore.metrics.niqe import NiqeModel, fit, niqe

    folder = Path(args.images)
    files = images.list_images(folder) if folder.is_dir() else [folder]
    if args.fit is not None:
        fit(images.read(file) for file in files).write(args.fit)
        print(f"{args.fit}: model of {len(files)} images, {_fingerprint(args.fit)}")
        return 0
    model = NiqeModel.read(args.model)
    rows = []
    for file in files:
        try:
            rows.append((file.stem, niqe(images.read(file), model, border=args.border)))
        except DataError as error:
            raise DataError(
                *(replace(p, where=str(file)) if p.where == "niqe" else p for p in error.problems)
            ) from None
    total = mean(value for _, value in rows)
    name = f"niqe@1, model {_fingerprint(args.model)}"
    if args.json:
        listed = [{"image": image, "niqe": value} for image, value in rows]
        about = {"protocol": "niqe@1", "model_sha256": _sha256(args.model), "border": args.border}
        print(json.dumps({"niqe": total, "images": len(rows), **about, "rows": listed}, indent=2))
        return 0
    lines = [[image, number(value, 4)] for image, value in rows]
    print(text_table([name, "NIQE"], [*lines, [f"mean of {len(rows)}", number(total, 4)]]))
    return 0


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fingerprint(path: Path) -> str:
    return _sha256(path)[:12]
