"""Floor 6. The checks between the sections of an option file, which no section can make alone.

Each gives its problems with the place in the file; nothing is opened and nothing imports torch.
"""

from __future__ import annotations

from typing import Any

from restore.archs.table import architecture_of
from restore.data.options import EVALUATION_SETS, channels_of, check_degradation
from restore.errors import Problem
from restore.options import Document
from restore.recipes.trees import RunTree, ScoringOptions, TestTree, TrainTree
from restore.section import Path, Section


def check_train(tree: TrainTree, document: Document) -> list[Problem]:
    """What is wrong between the sections of a training file."""
    sets = {"train": tree.datasets.train, **tree.datasets.evaluated()}
    return (
        _check_scale(tree, document)
        + _check_sets(tree, sets, document)
        + _check_patch(tree, document)
        + _check_schedule(tree, document)
        + _check_scoring(tree.val, document)
        + _check_strategy(tree, document)
    )


def check_test(tree: TestTree, document: Document) -> list[Problem]:
    """What is wrong between the sections of a test file."""
    problems = _check_scale(tree, document) + _check_scoring(tree.val, document)
    problems += _check_sets(tree, tree.datasets.evaluated(), document)
    if not tree.datasets.evaluated():
        kinds = ", ".join(EVALUATION_SETS)
        problems.append(
            _problem(
                document,
                ("datasets",),
                "OPT12",
                "no data set to test",
                "none",
                f"test_1 with type: one of {kinds}",
                "add 'test_1: …'",
            )
        )
    return problems


def _check_scale(tree: RunTree, document: Document) -> list[Problem]:
    network: Any = tree.network_g
    scale = architecture_of(network).scale(network)
    if scale == tree.scale:
        return []
    return [
        _problem(
            document,
            ("scale",),
            "OPT33",
            f"scale differs from {network.type}'s",
            f"{tree.scale}",
            f"{scale}, as network_g says",
            "make both the same",
        )
    ]


def _check_sets(tree: RunTree, sets: dict[str, Section], document: Document) -> list[Problem]:
    """Each set's degradation against the scale, and its channels against the network's."""
    network: Any = tree.network_g
    channels = architecture_of(network).channels(network)
    problems: list[Problem] = []
    for key, options in sets.items():
        wrong = check_degradation(options, tree.scale)
        if wrong:
            problems.append(_problem(document, ("datasets", key, "degradation"), "OPT36", *wrong))
        given = channels_of(options)
        if channels not in given:
            problems.append(
                _problem(
                    document,
                    ("datasets", key, "type"),
                    "OPT37",
                    f"the set's images do not suit {network.type}",
                    " or ".join(map(str, given)) + " channels",
                    f"{channels} channels, as network_g says",
                    "remove 'gray', or use a network of 1 channel"
                    if given == (1,)
                    else "use DualPixelDataset for 6 channels, another set for 1 or 3",
                )
            )
    return problems


def _check_patch(tree: TrainTree, document: Document) -> list[Problem]:
    train: Any = tree.datasets.train
    at: Path = ("datasets", "train")
    problems: list[Problem] = []
    stages = {key: getattr(train, key) for key in ("iters", "gt_sizes", "mini_batch_sizes")}
    given = {key: len(value) for key, value in stages.items() if value is not None}
    if given and (len(given) < len(stages) or len(set(given.values())) > 1):
        found = ", ".join(f"{key}: {given.get(key, 'none')}" for key in stages)
        problems.append(
            _problem(
                document,
                (*at, next(iter(given))),
                "OPT34",
                "the stages of progressive learning do not match",
                found,
                "iters, gt_sizes and mini_batch_sizes of one length",
                "give one value of each per stage",
            )
        )
    if given and train.gt_sizes and max(train.gt_sizes) > train.gt_size:
        problems.append(
            _problem(
                document,
                (*at, "gt_sizes"),
                "OPT26",
                "a stage's patch is larger than gt_size",
                f"{max(train.gt_sizes)}",
                f"at most {train.gt_size}",
                f"set gt_size to {max(train.gt_sizes)}",
            )
        )
    patches = [((*at, "gt_size"), train.gt_size)]
    patches += [((*at, "gt_sizes", k), size) for k, size in enumerate(train.gt_sizes or ())]
    return problems + [p for at, size in patches for p in _check_size(tree, document, at, size)]


def _check_size(tree: TrainTree, document: Document, at: Path, gt_size: int) -> list[Problem]:
    network: Any = tree.network_g
    below = gt_size - gt_size % tree.scale
    nearest = sorted({below or tree.scale, below + tree.scale})
    if below != gt_size:
        return [
            _problem(
                document,
                at,
                "OPT26",
                "gt_size is not a multiple of the scale",
                f"{gt_size}",
                f"a multiple of {tree.scale}",
                "use " + " or ".join(map(str, nearest)),
            )
        ]
    size = architecture_of(network).size
    side = gt_size // tree.scale
    if size.padded(side) == side:
        return []
    return [
        _problem(
            document,
            at,
            "OPT26",
            f"gt_size does not suit {network.type}",
            f"LQ patches of {side}",
            f"a multiple of {size.multiple}, ≥ {size.minimum}",
            f"use gt_size {size.padded(side) * tree.scale}",
        )
    ]


def _check_schedule(tree: TrainTree, document: Document) -> list[Problem]:
    scheduler: Any = tree.train.scheduler
    total = tree.train.total_iter
    path: Path = ("train", "scheduler")
    problems: list[Problem] = []
    milestones = getattr(scheduler, "milestones", ())
    if list(milestones) != sorted(set(milestones)):
        problems.append(
            _problem(
                document,
                (*path, "milestones"),
                "OPT28",
                "milestones are not ascending",
                f"{list(milestones)}",
                "each larger than the one before",
                "sort them",
            )
        )
    if milestones and max(milestones) > total:
        problems.append(
            _problem(
                document,
                (*path, "milestones"),
                "OPT27",
                "milestones beyond the end of training",
                f"{max(milestones)}",
                f"at most total_iter = {total}",
                "shorten them",
            )
        )
    periods = getattr(scheduler, "periods", ())
    if periods and sum(periods) < total:
        problems.append(
            _problem(
                document,
                (*path, "periods"),
                "OPT27",
                "the periods end before training does",
                f"sum {sum(periods)}",
                f"at least total_iter = {total}",
                "lengthen the last period",
            )
        )
    for key, length in scheduler.lengths().items() if periods else ():
        if length != len(periods):
            problems.append(
                _problem(
                    document,
                    (*path, key),
                    "OPT34",
                    f"{key} does not match periods",
                    f"{length} values",
                    f"{len(periods)} values",
                    "give one per period",
                )
            )
    if len(getattr(scheduler, "restarts", ())) != len(getattr(scheduler, "restart_weights", ())):
        if not periods:
            problems.append(
                _problem(
                    document,
                    (*path, "restarts"),
                    "OPT34",
                    "restarts and restart_weights differ in length",
                    f"{len(scheduler.restarts)} and {len(scheduler.restart_weights)}",
                    "one weight per restart",
                    "make them equal",
                )
            )
    return problems


def _check_strategy(tree: TrainTree, document: Document) -> list[Problem]:
    """What does not go with parameters that are dealt out over the ranks."""
    if tree.dist_params.strategy != "fsdp2":
        return []
    train = tree.train
    refused = {
        "ema_decay": (train.ema_decay != 0, "0"),
        "precision": (train.precision == "fp16", "bf16 or fp32"),
        "compile": (train.compile is not False, "false"),
    }
    return [
        _problem(
            document,
            ("train", key),
            "OPT38",
            f"{key} does not go with strategy fsdp2",
            str(getattr(train, key)),
            expected,
            f"set train.{key} to that, or dist_params.strategy to ddp",
        )
        for key, (wrong, expected) in refused.items()
        if wrong
    ]


def _check_scoring(val: ScoringOptions, document: Document) -> list[Problem]:
    entries = val.metrics.entries() if val.metrics is not None else []
    problems: list[Problem] = []
    if entries and val.protocol is not None:
        problems.append(
            _problem(
                document,
                ("val", "protocol"),
                "OPT35",
                "protocol and metrics are both given",
                f"{val.protocol} and metrics",
                "one of them",
                "remove val.metrics",
            )
        )
    if entries and val.crop_border is not None:
        problems.append(
            _problem(
                document,
                ("val", "crop_border"),
                "OPT35",
                "crop_border and metrics are both given",
                f"{val.crop_border} and metrics",
                "one of them",
                "remove val.crop_border; each metric has its own",
            )
        )
    if len({(e.crop_border, e.test_y_channel) for e in entries}) > 1:
        problems.append(
            _problem(
                document,
                ("val", "metrics"),
                "OPT35",
                "metrics under different rules in one run",
                "different crop_border or test_y_channel",
                "the same for all",
                "test once per rule",
            )
        )
    return problems


def _problem(
    document: Document, path: Path, code: str, what: str, got: str, expected: str, fix: str
) -> Problem:
    return Problem(code, what, document.where(path), got, expected, fix)
