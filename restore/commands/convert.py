"""Weights between BasicSR's .pth and our self-describing safetensors.

  restore convert experiments/train_SPAN_demo net_g.pth
  restore convert spanx4_ch48.pth span.safetensors
  restore convert MaIR_T_SRx2.pth mair.safetensors --arch MaIR-T_x2
  restore convert net.safetensors old.ckpt --to pth

A .pth holds `params` (and `params_ema` where there is an average) with every key of the official
code, so that BasicSR, spandrel and chaiNNer load it strictly. A safetensors file has in its header
the network's options and scale, the licence, and where the weights are from.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from restore.commands.shared import add_network, network_options, refuse_output
from restore.errors import OptionError, WeightsError
from restore.reports.records import read_object
from restore.reports.sinks import log_to_console

KINDS = ("pth", "safetensors")
OWN = "not stated: trained here"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `convert`."""
    add_network(parser)
    parser.add_argument(
        "--key",
        choices=("params", "params_ema", "state_dict", "model", "net_g"),
        help="which weights; params_ema before params when left out",
    )
    parser.add_argument("--to", choices=KINDS, help="the kind of OUT, whatever it is called")
    parser.add_argument("--license", metavar="TEXT", help="the weights' licence, for the header")
    parser.add_argument("--sha256", metavar="HEX", help="refuse IN unless this is its sha256")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing OUT")
    parser.add_argument("input", metavar="IN", help="weights, or a run's or checkpoint's folder")
    parser.add_argument("output", metavar="OUT", help="a new .pth or .safetensors file")


def run(args: argparse.Namespace) -> int:
    """Convert one file."""
    log_to_console(first_rank=True)
    output = Path(args.output)
    kind = _kind_of(output, args.to)
    refuse_output(output, overwrite=args.overwrite)
    from restore.archs import build_network, load_weights
    from restore.archs.weights import about_weights, official_state, write_safetensors
    from restore.archs.weights_file import check_sha256
    from restore.recipes.build import weights_file

    file = weights_file(args.input, args.key)
    if args.sha256 is not None:
        check_sha256(file, args.sha256)
    header = about_weights(file)
    key = None if file.suffix == ".safetensors" else args.key
    options = network_options(args, header, file, key)
    network = build_network(options)
    report = load_weights(network, file, key=key)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        if kind == "safetensors":
            about = _about(options, header, file, report, args.license)
            write_safetensors(temporary, network.state_dict(), about)
        else:
            _write_pth(temporary, network, file, args.key)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{output}: {len(official_state(network))} tensors of {getattr(options, 'type', '')}")
    return 0


def _kind_of(output: Path, told: str | None) -> str:
    kind = told or output.suffix.removeprefix(".")
    if kind not in KINDS:
        raise OptionError.of(
            "OPT43",
            "unknown kind of weights file",
            "OUT",
            repr(output.suffix),
            ".pth or .safetensors",
            "choose another name, or say --to pth",
        )
    return kind


def _about(
    options: Any, header: dict[str, Any], file: Path, report: Any, license: str | None
) -> dict[str, Any]:
    """The header: what IN's own one says stays, except for the network."""
    from restore.archs.table import architecture_of
    from restore.archs.weights import describe

    architecture = architecture_of(options)
    provenance = header.get("provenance") or _training_of(file) or _source_of(file, report)
    own = "network_g" in header  # weights that were trained here, or converted before
    licence = license or header.get("license") or (OWN if own else architecture.license)
    scale = architecture.scale(options)
    return describe(options, scale, license=licence, provenance=provenance)


def _source_of(file: Path, report: Any) -> dict[str, Any]:
    """Where weights of another program are from."""
    from restore.archs.weights_file import file_sha256

    return {
        "file": file.name,
        "sha256": file_sha256(file),
        "container": report.container,
        "prefix": report.prefix,
    }


def _training_of(file: Path) -> dict[str, Any]:
    """What a run's folder tells about the training of its checkpoint `file`; {} without one."""
    from restore.options import read_document

    run = file.parent.parent.parent
    if file.parent.parent.name != "checkpoints":
        return {}
    told: dict[str, Any] = {"run": run.name, "weights": file.stem}
    if (file.parent / "state.json").exists():
        numbers = _note(file.parent / "state.json")
        told |= {key: numbers[key] for key in ("step", "samples", "best") if key in numbers}
    if (run / "run.json").exists():
        told |= _note(run / "run.json")
    if (run / "options.yml").exists():
        values = read_document(run / "options.yml").values
        told["manual_seed"], told["train"] = values["manual_seed"], values["train"]
        train = values["datasets"]["train"]
        told["data"] = {k: v for k, v in train.items() if not k.startswith("dataroot")}
    return told


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


def _note(file: Path) -> dict[str, Any]:
    """A JSON object that a run wrote. Raises WeightsError WGT05."""
    held = read_object(file)
    if held:
        return held
    raise WeightsError.of(
        "WGT05",
        "what the run noted cannot be read",
        str(file),
        "no JSON object",
        "the JSON that training writes",
        "copy the weights out of the run's folder to convert them without it",
    )
