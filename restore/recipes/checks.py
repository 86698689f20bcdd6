"""Floor 6. The checks between the sections of an option file, which no section can make alone.

Each gives its problems with the place in the file; nothing is opened and nothing imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from restore.archs.table import architecture_of
from restore.data.options import EVALUATION_SETS, channels_of, check_degradation
from restore.errors import Problem
from restore.options import Document
from restore.recipes.trees import RunTree, ScoringOptions, TestTree, TrainTree
from restore.section import Path, Section


def check_train(tree: TrainTree, document: Document) -> list[Problem]:
    """What is wrong between the sections of a training file."""
    return [
        *_scale(tree, document),
        *_sets(tree, {"train": tree.datasets.train, **tree.datasets.evaluated()}, document),
        *_stages(tree, document),
        *_patches(tree, document),
        *_schedule(tree, document),
        *_scoring(tree.val, document),
        *_strategy(tree, document),
    ]


def check_test(tree: TestTree, document: Document) -> list[Problem]:
    """What is wrong between the sections of a test file."""
    sets = tree.datasets.evaluated()
    problems = [
        *_scale(tree, document),
        *_scoring(tree.val, document),
        *_sets(tree, sets, document),
    ]
    if not sets:
        wanted = f"test_1 with type: one of {', '.join(EVALUATION_SETS)}"
        what, fix = "no data set to test", "add 'test_1: …'"
        problems.append(document.problem(("datasets",), "OPT12", what, "none", wanted, fix))
    return problems


def check_channels(
    sets: Mapping[str, Section], network: Any, name: str, document: Document
) -> Iterator[Problem]:
    """Sets (by key) whose images have not the channels that `network`, called `name`, takes."""
    channels = architecture_of(network).channels(network)
    for key, options in sets.items():
        given = channels_of(options)
        if channels not in given:
            yield document.problem(
                ("datasets", key, "type"),
                "OPT37",
                f"the set's images do not suit {name}",
                " or ".join(map(str, given)) + " channels",
                f"{channels} channels",
                "remove 'gray', or use a network of 1 channel"
                if given == (1,)
                else "use DualPixelDataset for 6 channels, another set for 1 or 3",
            )


def _scale(tree: RunTree, document: Document) -> Iterator[Problem]:
    network: Any = tree.network_g
    scale = architecture_of(network).scale(network)
    if scale != tree.scale:
        yield document.problem(
            ("scale",),
            "OPT33",
            f"scale differs from {network.type}'s",
            f"{tree.scale}",
            f"{scale}, as network_g says",
            "make both the same",
        )


def _sets(tree: RunTree, sets: Mapping[str, Section], document: Document) -> Iterator[Problem]:
    """Each set's degradation against the scale, and its channels against the network's."""
    network: Any = tree.network_g
    for key, options in sets.items():
        wrong = check_degradation(options, tree.scale)
        if wrong:
            yield document.problem(("datasets", key, "degradation"), "OPT36", *wrong)
    yield from check_channels(sets, network, network.type, document)


def _stages(tree: TrainTree, document: Document) -> Iterator[Problem]:
    """The lists of progressive learning against one another."""
    train: Any = tree.datasets.train
    keys = ("iters", "gt_sizes", "mini_batch_sizes")
    given = {key: len(getattr(train, key)) for key in keys if getattr(train, key) is not None}
    if not given:
        return
    if len(given) < len(keys) or len(set(given.values())) > 1:
        yield document.problem(
            ("datasets", "train", next(iter(given))),
            "OPT34",
            "the stages of progressive learning do not match",
            ", ".join(f"{key}: {given.get(key, 'none')}" for key in keys),
            "iters, gt_sizes and mini_batch_sizes of one length",
            "give one value of each per stage",
        )
    largest = max(train.gt_sizes or (0,))
    if largest > train.gt_size:
        yield document.problem(
            ("datasets", "train", "gt_sizes"),
            "OPT26",
            "a stage's patch is larger than gt_size",
            f"{largest}",
            f"at most {train.gt_size}",
            f"set gt_size to {largest}",
        )


def _patches(tree: TrainTree, document: Document) -> Iterator[Problem]:
    """The side of every patch against the scale and the network."""
    train: Any = tree.datasets.train
    yield from _patch(tree, document, ("datasets", "train", "gt_size"), train.gt_size)
    for stage, size in enumerate(train.gt_sizes or ()):
        yield from _patch(tree, document, ("datasets", "train", "gt_sizes", stage), size)


def _patch(tree: TrainTree, document: Document, at: Path, gt_size: int) -> Iterator[Problem]:
    network: Any = tree.network_g
    size = architecture_of(network).size
    side, beyond = divmod(gt_size, tree.scale)
    if beyond:
        near = sorted({max(side, 1) * tree.scale, (side + 1) * tree.scale})
        yield document.problem(
            at,
            "OPT26",
            "gt_size is not a multiple of the scale",
            f"{gt_size}",
            f"a multiple of {tree.scale}",
            "use " + " or ".join(map(str, near)),
        )
    elif size.padded(side) != side:
        yield document.problem(
            at,
            "OPT26",
            f"gt_size does not suit {network.type}",
            f"LQ patches of {side}",
            f"a multiple of {size.multiple}, ≥ {size.minimum}",
            f"use gt_size {size.padded(side) * tree.scale}",
        )


def _schedule(tree: TrainTree, document: Document) -> Iterator[Problem]:
    """The scheduler's lists against total_iter and against one another."""
    scheduler: Any = tree.train.scheduler
    if hasattr(scheduler, "milestones"):
        yield from _milestones(scheduler.milestones, tree.train.total_iter, document)
    if hasattr(scheduler, "periods"):
        yield from _periods(scheduler, tree.train.total_iter, document)
    if hasattr(scheduler, "restarts"):
        restarts, weights = len(scheduler.restarts), len(scheduler.restart_weights)
        if restarts != weights:
            yield document.problem(
                ("train", "scheduler", "restarts"),
                "OPT34",
                "restarts and restart_weights differ in length",
                f"{restarts} and {weights}",
                "one weight per restart",
                "make them equal",
            )


def _milestones(milestones: tuple[int, ...], total: int, document: Document) -> Iterator[Problem]:
    at = ("train", "scheduler", "milestones")
    if list(milestones) != sorted(set(milestones)):
        what, wanted = "milestones are not ascending", "each larger than the one before"
        got = f"{list(milestones)}"
        yield document.problem(at, "OPT28", what, got, wanted, "sort them")
    if max(milestones, default=0) > total:
        what, wanted = "milestones beyond the end of training", f"at most total_iter = {total}"
        yield document.problem(at, "OPT27", what, f"{max(milestones)}", wanted, "shorten them")


def _periods(scheduler: Any, total: int, document: Document) -> Iterator[Problem]:
    at, periods = ("train", "scheduler"), scheduler.periods
    if sum(periods) < total:
        yield document.problem(
            (*at, "periods"),
            "OPT27",
            "the periods end before training does",
            f"sum {sum(periods)}",
            f"at least total_iter = {total}",
            "lengthen the last period",
        )
    for key, length in scheduler.lengths().items():
        if length != len(periods):
            yield document.problem(
                (*at, key),
                "OPT34",
                f"{key} does not match periods",
                f"{length} values",
                f"{len(periods)} values",
                "give one per period",
            )


def _strategy(tree: TrainTree, document: Document) -> Iterator[Problem]:
    """What does not go with parameters that are dealt out over the ranks."""
    if tree.dist_params.strategy != "fsdp2":
        return
    train = tree.train
    refused = {
        "ema_decay": (train.ema_decay != 0, "0"),
        "precision": (train.precision == "fp16", "bf16 or fp32"),
        "compile": (train.compile is not False, "false"),
    }
    for key, (wrong, expected) in refused.items():
        if wrong:
            yield document.problem(
                ("train", key),
                "OPT38",
                f"{key} does not go with strategy fsdp2",
                str(getattr(train, key)),
                expected,
                f"set train.{key} to that, or dist_params.strategy to ddp",
            )


def _scoring(val: ScoringOptions, document: Document) -> Iterator[Problem]:
    """BasicSR's `metrics`, which say their own rule, against what else says one."""
    entries = val.metrics.entries() if val.metrics is not None else []
    if entries and val.protocol is not None:
        yield document.problem(
            ("val", "protocol"),
            "OPT35",
            "protocol and metrics are both given",
            f"{val.protocol} and metrics",
            "one of them",
            "remove val.metrics",
        )
    if entries and val.crop_border is not None:
        yield document.problem(
            ("val", "crop_border"),
            "OPT35",
            "crop_border and metrics are both given",
            f"{val.crop_border} and metrics",
            "one of them",
            "remove val.crop_border; each metric has its own",
        )
    if len({(e.crop_border, e.test_y_channel) for e in entries}) > 1:
        yield document.problem(
            ("val", "metrics"),
            "OPT35",
            "metrics under different rules in one run",
            "different crop_border or test_y_channel",
            "the same for all",
            "test once per rule",
        )
