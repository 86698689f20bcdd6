"""Floor 7. What several commands ask for: option files, networks, image jobs."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from restore.catalog import nearest
from restore.errors import DataError, OptionError, Problem, WeightsError
from restore.evaluation.options import PredictorOptions
from restore.options import Document
from restore.options_legacy import read_translated
from restore.parsing import parse
from restore.section import Section, without_effect

if TYPE_CHECKING:
    from restore.recipes.bench_trees import BenchTree
    from restore.recipes.trees import TestTree, TrainTree
    from restore.world import Launcher, World

log = logging.getLogger("restore")
S = TypeVar("S", bound=Section)


def add_option_file(parser: argparse.ArgumentParser) -> None:
    """The arguments of BasicSR's train.py and test.py, and `--set`."""
    parser.add_argument("-opt", "--opt", required=True, metavar="FILE.yml", help="the option file")
    add_overrides(parser)
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    parser.add_argument(
        "--local_rank",
        "--local-rank",
        type=int,
        default=0,
        help="accepted; torchrun's LOCAL_RANK counts",
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """`--set a.b=value …` and BasicSR's `--force_yml a:b=value …`."""
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY.PATH=VALUE")
    parser.add_argument(
        "--force_yml", nargs="+", action="extend", default=[], metavar="KEY:PATH=VALUE"
    )


def world_of(tree: TrainTree | TestTree | BenchTree, launcher: Launcher = "none") -> World:
    """The processes of a run of `tree`, as `launcher` started them. Raises BackendError."""
    from restore.world import World

    dist = tree.dist_params
    return World.start(launcher, tree.num_gpu, dist.backend, dist.port, dist.timeout)


def overrides(args: argparse.Namespace) -> list[str]:
    """All overrides in the order of their kinds."""
    return [*args.set, *args.force_yml]


def read_tree(
    tree: type[S],
    path: str,
    assignments: list[str],
    check: Callable[[S, Document], list[Problem]],
) -> S:
    """The option file as a checked tree, in an older spelling too; what was translated and keys
    without effect are named in the log."""
    options, document, translated = read_translated(tree, path, assignments)
    problems = check(options, document)
    if problems:
        raise OptionError(*problems)
    for note in translated.rewritten:
        log.info("translated %s", note)
    for note in translated.dropped:
        log.warning("%s has no effect: %s", note.where, note.text)
    for key, reason in without_effect(options):
        log.warning("%s has no effect: %s", document.where(key), reason)
    return options


def add_network(parser: argparse.ArgumentParser) -> None:
    """How a command without an option file of its own is told which network weights are for."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--opt", metavar="FILE.yml", help="an option file with network_g")
    which.add_argument(
        "--arch",
        metavar="NAME",
        help="a network (SPAN, with --scale) or a published variant (MaIR-T_x2 or "
        "MaIR/MaIR-T_x2), as `restore inspect` lists those that weights fit; others are refused",
    )
    parser.add_argument("--scale", type=int, help="output size / input size, with --arch")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a further option of the network, as feature_channels=52; may be repeated",
    )


def network_options(
    args: argparse.Namespace, header: dict[str, Any], weights: Path, key: str | None = None
) -> Section:
    """The network that `--opt`, `--arch`, the header of `weights` or else the names and shapes of
    its tensors (under `key`) say. Raises OptionError, and WeightsError also where the weights are
    not of the variant that `--arch` names."""
    if args.arch is not None and _variant(args.arch) is not None:
        return _as_asked(args, _read_from(weights, key, _variant(args.arch)))
    if args.opt is not None or args.arch is not None:
        return named_network(args)
    values = header["network_g"] if "network_g" in header else _read_from(weights, key, None)
    return _as_asked(args, values)


def named_network(args: argparse.Namespace) -> Section:
    """The network that `--opt` or `--arch` say, without weights. Raises OptionError."""
    from restore.archs.table import PRESETS
    from restore.options import read_document

    if args.opt is not None:
        values = read_document(args.opt).values.get("network_g")
        if values is None:
            raise OptionError.of(
                "OPT12",
                "required key 'network_g' is missing",
                args.opt,
                "nothing",
                "network_g",
                "add 'network_g: …'",
            )
        return _as_asked(args, values)
    if args.arch is not None:
        variant = _variant(args.arch)
        values = {"type": args.arch} if variant is None else PRESETS[variant].model_dump()
        return _as_asked(args, values)
    raise OptionError.of(
        "OPT41",
        "which network is meant is not said",
        "the command line",
        "no weights, no --arch and no --opt",
        "one of them",
        "add --arch NAME or a weights file",
    )


def _as_asked(args: argparse.Namespace, values: Any) -> Section:
    """`values`, as under network_g, with what `--set` and `--scale` say. Raises OptionError."""
    from restore.archs.build import network_options as parsed
    from restore.archs.reading import FAMILIES
    from restore.archs.table import NETWORK
    from restore.options import scalar

    if not isinstance(values, Mapping):
        return parsed(values)  # says what a network is
    values = dict(values)
    for assignment in args.set:
        option, _, text = assignment.partition("=")
        values[option] = scalar(text, f"--set {assignment}")
    if args.arch in FAMILIES:
        for option in set(FAMILIES[args.arch].asks) - set(values):
            log.warning("%s: the weights do not tell it; the default is taken", option)
    entry = NETWORK.entry(str(values.get("type")))
    if args.scale is not None and entry is not None and entry.scale_key is not None:
        values.setdefault(entry.scale_key, args.scale)
    options = parsed(values)  # refuses an unknown type
    assert entry is not None
    scale = entry.scale(options)
    if args.scale is not None and scale != args.scale:
        raise OptionError.of(
            "OPT33",
            f"scale differs from {entry.name}'s",
            "--scale",
            str(args.scale),
            str(scale),
            "make both the same",
        )
    return options


def _variant(arch: str) -> str | None:
    """The variant that `VARIANT` or `NAME/VARIANT` means; None for a network's name alone.

    Raises OptionError OPT24 where `arch` is neither.
    """
    from restore.archs.table import ARCHS

    variants = {v: v for entry in ARCHS.values() for v in entry.presets}
    variants |= {f"{name}/{v}": v for name, entry in ARCHS.items() for v in entry.presets}
    if arch in variants:
        return variants[arch]
    if arch in ARCHS or ":" in arch:
        return None
    near = nearest(arch, [*ARCHS, *variants])
    raise OptionError.of(
        "OPT24",
        "unknown network",
        "--arch",
        repr(arch),
        "one of " + ", ".join(ARCHS) + ", or a published variant",
        f"did you mean '{near}'?" if near else "restore info --all lists the variants",
    )


def add_predictor(parser: argparse.ArgumentParser) -> None:
    """How a command without an option file is told how to restore images: `val`'s keys."""
    choose = parser.add_argument_group("restoring")
    choose.add_argument("--tile", default="auto", metavar="none|auto|PIXELS", help="side of a tile")
    choose.add_argument("--tile-overlap", metavar="PIXELS", help="LQ pixels that tiles share")
    choose.add_argument("--tile-memory", metavar="GIB", help="what auto lets a forward pass take")
    choose.add_argument("--tiling", default="blend", help="blend, or mair or grl as published")
    choose.add_argument("--ensemble", default="1", help="1, 4 (flips) or 8 (and quarter turns)")
    choose.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16")
    choose.add_argument("--compile", action="store_true", help="compile the network")


def predictor_options(args: argparse.Namespace) -> PredictorOptions:
    """What `add_predictor` asked for. Raises OptionError."""
    from restore.options import scalar

    keys = ("ensemble", "precision", "tiling", "tile", "tile_overlap", "tile_memory")
    given = {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
    values = {key: scalar(text, _flag(key)) for key, text in given.items()}
    return parse(PredictorOptions, values, lambda path: _flag(str(path[0])))


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _read_from(weights: Path, key: str | None, preset: str | None) -> dict[str, Any]:
    """`network_g` as the tensors of a file tell it, and `preset` what they cannot tell."""
    from restore.archs.detect import options_for
    from restore.archs.reading import FAMILIES
    from restore.archs.weights import shapes_in

    found = options_for(shapes_in(weights, key), str(weights), preset)
    values = found.model_dump()
    log.info("%s: weights of %s", weights, preset or values["type"])
    family = FAMILIES.get(values["type"])
    if preset is None and family is not None and family.assumes:
        taken = ", ".join(f"{option} {values[option]}" for option in family.assumes)
        log.info("not visible in the weights and taken as published: %s", taken)
    return values


def refuse_output(output: Path, *, overwrite: bool) -> None:
    """Raises OptionError where `output` is and may not be replaced, WeightsError where its folder
    is not."""
    if output.exists() and not overwrite:
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


def image_jobs(
    source: str, target: str, check: Callable[[Path], object]
) -> list[tuple[Path, Path]]:
    """(input, output) files for IN OUT: a file to a file or into a folder, a folder to a folder.

    Every input goes through `check` first, so that a bad one stops the command before anything is
    written. Raises DataError, and OptionError where an output would replace an input.
    """
    from restore import images

    folder = Path(source).is_dir()
    inputs = images.list_images(source) if folder else [Path(source)]
    if not folder and Path(target).suffix and not Path(target).is_dir():
        outputs = [Path(target)]
        if Path(target).suffix.lower() not in images.SUFFIXES:
            known = " ".join(sorted(images.SUFFIXES))
            raise OptionError.of(
                "OPT43", "unknown kind of image", "OUT", target, known, "choose another suffix"
            )
    else:
        outputs = [Path(target) / f"{file.stem}.png" for file in inputs]
    if len(set(outputs)) < len(outputs):
        twice = next(o for o in outputs if outputs.count(o) > 1)
        raise DataError.of(
            "DAT15",
            "two images of one name",
            source,
            twice.stem,
            "one file per name",
            "rename one of them",
        )
    if Path(target).is_file() and outputs != [Path(target)]:
        raise _bad_output(target, "a file", "a folder, or an image's name for one image")
    taken = {file.resolve() for file in inputs}
    for output in outputs:
        if output.resolve() in taken:
            raise _bad_output(str(output), "an input", "a file or folder apart from IN")
    for file in inputs:
        check(file)
    return list(zip(inputs, outputs, strict=True))


def _bad_output(where: str, got: str, expected: str) -> OptionError:
    return OptionError.of("OPT22", "the output exists", where, got, expected, "choose another OUT")
