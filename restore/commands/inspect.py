"""Say what a weights file is: network, variant, scale, and what it does not tell.

  restore inspect spanx4_ch48.pth
  restore inspect net_g_latest.pth --key params --json
  restore inspect sr_grl_small_c3x4.ckpt --sha256 0123abcd…

Nothing in the file runs. Exit code 1: the file is read but fits no network known here exactly.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from restore.reports.sinks import log_to_console

SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `inspect`."""
    parser.add_argument("--key", help="which of several state dicts: params, params_ema, …")
    parser.add_argument("--sha256", metavar="HEX", help="refuse FILE unless this is its sha256")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    parser.add_argument("file", metavar="FILE", help="weights, or a run's or checkpoint's folder")


def run(args: argparse.Namespace) -> int:
    """Print what the file says."""
    log_to_console(first_rank=True)
    about, shapes = _looked_at(args.file, args.key, args.sha256)
    print(json.dumps(about, indent=2) if args.json else _text(about, shapes))
    return 0 if about.get("exact") else 1


def described(path: str) -> str:
    """What `restore inspect` prints of a weights file. Raises WeightsError."""
    return _text(*_looked_at(path, None, None))


def _looked_at(
    path: str, key: str | None, sha256: str | None
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """What is known of a weights file, and the shapes in it."""
    from restore.archs.detect import detect
    from restore.archs.weights import about_weights, tensors_of
    from restore.archs.weights_file import check_sha256, file_sha256
    from restore.recipes.build import weights_file

    file = weights_file(path, key)
    digest = file_sha256(file) if sha256 is None else check_sha256(file, sha256)
    tensors, container = tensors_of(file, None if file.suffix == ".safetensors" else key)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    about: dict[str, Any] = {
        "file": str(file),
        "sha256": digest,
        "container": container,
        "tensors": len(tensors),
        "numbers": sum(value.numel() for value in tensors.values()),
        "dtypes": sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values()}),
        "header": about_weights(file),
    }
    found = detect(shapes)
    if found is not None:
        about |= _network(found)
    return about, shapes


def _network(found: Any) -> dict[str, Any]:
    """What is known of the network of a file."""
    from restore.archs.detect import asked
    from restore.archs.table import ARCHS

    architecture = ARCHS[found.architecture]
    return {
        "network": found.architecture,
        "scale": architecture.scale(found.options),
        "prefix": found.prefix,
        "told": dict(found.told),
        "untold": [*found.family.asks],
        "assumed": {key: getattr(found.options, key) for key in found.family.assumes}
        if not found.family.asks
        else {},
        "presets": {name: asked(found, name) for name in found.presets},
        "nearest": str(found),
        "exact": not found.differences,
        "missing": list(found.differences.missing),
        "unexpected": list(found.differences.unexpected),
        "mismatched": list(found.differences.mismatched),
        "tasks": list(architecture.tasks),
        "paper": architecture.paper,
        "license": architecture.license,
    }


def _text(about: dict[str, Any], shapes: Any) -> str:
    container = about["container"] or "a bare state dict"
    lines = [
        f"{about['file']}",
        f"  sha256     {about['sha256']}",
        f"  holds      {about['tensors']} tensors, {about['numbers']:,} numbers of "
        f"{', '.join(about['dtypes'])}, in {container}",
    ]
    if about["header"]:
        lines.append("  header     " + ", ".join(sorted(about["header"])))
    if "network" not in about:
        first = ", ".join(list(shapes)[:SHOWN])
        return "\n".join([*lines, f"  network    none known here: {first}, …"])
    told = ", ".join(f"{key} {value}" for key, value in about["told"].items() if key != "type")
    lines += [f"  network    {about['network']} ×{about['scale']}", f"  told       {told}"]
    if about["prefix"]:
        lines.append(f"  prefix     {about['prefix']}")
    if about["presets"]:
        lines.append(f"  variants   {', '.join(about['presets'])}")
    else:
        lines.append(f"  variants   none published; {about['nearest']}")
    own = about["header"].get("network_g", {})
    for key in about["untold"]:
        if key in own:
            lines.append(f"  header has {key} {own[key]}")
    if about["untold"] and not own:
        lines.append(f"  NOT told   {', '.join(about['untold'])}; give one of")
        lines += [
            f"             --arch {name}   ({what})" for name, what in about["presets"].items()
        ]
    for key, value in about["assumed"].items():
        lines.append(f"  assumed    {key} {value}, as published")
    for what in ("missing", "unexpected", "mismatched"):
        if about[what]:
            more = ", …" if len(about[what]) > SHOWN else ""
            shown = ", ".join(about[what][:SHOWN])
            lines.append(f"  {what.ljust(10)} {len(about[what])}: {shown}{more}")
    return "\n".join([*lines, f"  paper      {about['paper']}", f"  licence    {about['license']}"])
