"""Floor 6. The option trees of `train` and `test`, and the checks that no section can make alone.

BasicSR's vocabulary; nothing here imports torch, so a mistake is answered at once.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from restore.archs.table import NETWORK, architecture_of
from restore.data.options import EVALUATION_SET, EVALUATION_SETS, TRAINING_SET
from restore.errors import Problem
from restore.metrics.options import MetricsOptions, Protocol
from restore.metrics.protocols import PROTOCOLS, ScoringRule, default_border
from restore.options import Document
from restore.section import Count, Natural, Path, Section, UserPath, mistake, no_effect
from restore.training.options import DistOptions, LoggerOptions, TrainOptions

EvaluationSet = Annotated[Section, EVALUATION_SET]


class _Sets(Section):
    """Data sets by key; further keys are evaluation sets."""

    model_config = {"extra": "allow"}
    __pydantic_extra__: dict[str, EvaluationSet] = Field(init=False)  # pyright: ignore

    @classmethod
    def child(cls, key: str, value: object) -> type[Section] | None:
        return (
            super().child(key, value) if key in cls.model_fields else EVALUATION_SET.section(value)
        )

    def evaluated(self) -> dict[str, Section]:
        """Key -> evaluation set, in the file's order."""
        return dict(self.__pydantic_extra__ or {})


class TrainSets(_Sets):
    """`train`, and any number of `val`, `val_2`, …"""

    further_keys = r"val(_\w+)?"
    further_examples = ("val", "val_2")
    train: Annotated[Section, TRAINING_SET]


class TestSets(_Sets):
    """`test_1`, `test_2`, …"""

    further_keys = r"test(_\w+)?|val(_\w+)?"
    further_examples = ("test_1", "test_2")


class PathOptions(Section):
    """BasicSR's `path`."""

    pretrain_network_g: UserPath | None = None
    """Weights to start from or to test: a file, or the folder of a run or checkpoint of ours."""
    strict_load_g: bool = True
    param_key_g: Literal["params", "params_ema", "state_dict", "model", "net_g"] | None = None
    """Which weights of the file; `params_ema` before `params` when left out."""
    resume_state: UserPath | None = None
    """A checkpoint folder to continue from."""
    experiments_root: UserPath = "experiments"
    root: str | None = no_effect("paths are relative to the folder the command runs in")
    ignore_resume_networks: str | None = no_effect("there is one network")


class ScoringOptions(Section):
    """How images are scored: a protocol by name, or BasicSR's `metrics`."""

    protocol: Protocol | None = None
    crop_border: Natural | None = None
    """Pixels left out on every side; the protocol's own rule when left out."""
    metrics: MetricsOptions | None = None
    save_img: bool = False
    report_images: Natural = 100
    """Images of each set that a test's page shows, evenly spread."""
    suffix: str | None = None
    """Added to the names of saved images."""
    pbar: bool | None = no_effect("the bar is always shown")

    def rule(self, scale: int) -> tuple[ScoringRule, int]:
        """(rule, border) at `scale`: `sr-y` for super-resolution, `rgb` otherwise, unless told."""
        if self.metrics is not None and self.metrics.entries():
            return self.metrics.rule()
        rule = PROTOCOLS[self.protocol or ("sr-y" if scale > 1 else "rgb")]
        border = self.crop_border
        return rule, default_border(rule, scale) if border is None else border


class ValidationOptions(ScoringOptions):
    """`val` of a training file."""

    val_freq: Count | None = None


class _Run(Section):
    name: str
    model_type: Literal["SRModel"] = "SRModel"
    scale: Count
    num_gpu: Natural | Literal["auto"] = "auto"
    num_threads: Count | None = None
    """CPU threads of one operation; torch's own choice when left out."""
    manual_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    network_g: Annotated[Section, NETWORK]
    path: PathOptions = PathOptions()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._+-]{1,100}", name) or set(name) == {"."}:
            raise mistake(
                "OPT20",
                "name cannot be a folder's name",
                "1 to 100 letters, digits, '.', '_', '+', '-'",
                "choose a plain name",
            )
        return name


class TrainTree(_Run):
    """A training file."""

    datasets: TrainSets
    train: TrainOptions
    val: ValidationOptions = ValidationOptions()
    logger: LoggerOptions = LoggerOptions()
    dist_params: DistOptions = DistOptions()


class TestTree(_Run):
    """A test file."""

    __test__ = False
    datasets: TestSets
    val: ScoringOptions = ScoringOptions()
    logger: LoggerOptions | None = no_effect("a test writes its results and a report")
    dist_params: DistOptions = DistOptions()


def check_train(tree: TrainTree, document: Document) -> list[Problem]:
    """What is wrong between the sections of a training file."""
    return (
        _check_scale(tree, document)
        + _check_patch(tree, document)
        + _check_schedule(tree, document)
        + _check_scoring(tree.val, document)
    )


def check_test(tree: TestTree, document: Document) -> list[Problem]:
    """What is wrong between the sections of a test file."""
    problems = _check_scale(tree, document) + _check_scoring(tree.val, document)
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


def _check_scale(tree: _Run, document: Document) -> list[Problem]:
    network: Any = tree.network_g
    scale = architecture_of(network.type).scale(network)
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


def _check_patch(tree: TrainTree, document: Document) -> list[Problem]:
    train: Any = tree.datasets.train
    network: Any = tree.network_g
    path = ("datasets", "train", "gt_size")
    below = train.gt_size - train.gt_size % tree.scale
    nearest = sorted({below or tree.scale, below + tree.scale})
    if below != train.gt_size:
        return [
            _problem(
                document,
                path,
                "OPT26",
                "gt_size is not a multiple of the scale",
                f"{train.gt_size}",
                f"a multiple of {tree.scale}",
                "use " + " or ".join(map(str, nearest)),
            )
        ]
    size = architecture_of(network.type).size
    side = train.gt_size // tree.scale
    if size.padded(side) == side:
        return []
    fitting = size.padded(side) * tree.scale
    return [
        _problem(
            document,
            path,
            "OPT26",
            f"gt_size does not suit {network.type}",
            f"LQ patches of {side}",
            f"a multiple of {size.multiple}, ≥ {size.minimum}",
            f"use gt_size {fitting}",
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
