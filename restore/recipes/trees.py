"""Floor 6. The option trees of `train` and `test`.

BasicSR's vocabulary; nothing here imports torch, so a mistake is answered at once.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator

from restore.archs.table import NETWORK
from restore.data.options import EVALUATION_SET, TRAINING_SET
from restore.evaluation.options import PredictorOptions
from restore.metrics.options import METRIC, MetricsOptions, Protocol, Protocols, named
from restore.metrics.protocols import Bordered, default_border
from restore.section import Count, Natural, Section, UserPath, mistake, no_effect
from restore.training.options import DistOptions, LoggerOptions, TrainOptions

EvaluationSet = Annotated[Section, EVALUATION_SET]
FurtherMetric = Annotated[Section, METRIC]


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


def set_name(key: str, options: Section) -> str:
    """What reports call the evaluation set under `key`: its own name, or else the key."""
    return str(getattr(options, "name", "") or key)


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


class FurtherMetrics(Section):
    """Metrics by the names of their columns."""

    model_config = {"extra": "allow"}
    __pydantic_extra__: dict[str, FurtherMetric] = Field(init=False)  # pyright: ignore
    further_keys = r"[A-Za-z]\w*"

    @classmethod
    def child(cls, key: str, value: object) -> type[Section] | None:
        return METRIC.section(value)

    def chosen(self) -> dict[str, Section]:
        """Name -> metric, in the file's order."""
        return dict(self.__pydantic_extra__ or {})


class ScoringOptions(PredictorOptions):
    """How images are restored and scored: protocols by name, or BasicSR's `metrics`."""

    protocol: Protocols | None = None
    """A name, a list of names, or `all`: each image is restored once and scored under each."""
    crop_border: Natural | None = None
    """Pixels left out on every side; the protocol's own rule when left out."""
    metrics: MetricsOptions | None = None
    further_metrics: FurtherMetrics = FurtherMetrics()
    """Figures of your own beside PSNR and SSIM, each under the name of its column."""
    save_img: bool = False
    report_images: Natural = 100
    """Images of each set that a test's page shows, evenly spread."""
    suffix: str | None = None
    """Added to the names of saved images."""
    pbar: bool | None = no_effect("the bar is always shown")

    def rules(self, scale: int) -> tuple[Bordered, ...]:
        """Each rule with its border at `scale`: `sr-y` for super-resolution, `rgb` otherwise,
        unless told."""
        if self.metrics is not None and self.metrics.entries():
            return (self.metrics.rule(),)
        asked, border = self.protocol or ("sr-y" if scale > 1 else "rgb"), self.crop_border
        return tuple(
            (rule, default_border(rule, scale) if border is None else border)
            for rule in named(asked)
        )


class TestingOptions(ScoringOptions):
    """`val` of a test file."""

    __test__ = False
    compile: bool = False
    """Compile the network; each new image size compiles again, so it pays for sets of few sizes."""

    @property
    def named(self) -> bool:
        """Whether protocols were named: then one that refuses an image is an error."""
        return self.protocol != "all"

    def under(self, protocols: tuple[str, ...]) -> Self:
        """The same inference, scored under these protocols; as it is where `metrics` rule."""
        if self.metrics is not None and self.metrics.entries():
            return self
        return self.model_copy(update={"protocol": protocols})

    @property
    def said(self) -> list[str]:
        """What was asked for beyond a plain pass over each image, in words."""
        size = f"tiles of {self.tile}" if isinstance(self.tile, int) else ""
        if size and self.tile_overlap is not None:
            size += f" overlapping by {self.tile_overlap}"
        words = [
            f"self-ensemble of {self.ensemble}" if self.ensemble > 1 else "",
            f"tiling {self.tiling}" if self.tiling != "blend" else "",
            size,
            self.precision if self.precision != "fp32" else "",
            "compiled" if self.compile else "",
        ]
        return [word for word in words if word]


class ValidationOptions(ScoringOptions):
    """`val` of a training file."""

    protocol: Protocol | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """The rule that also chooses the best checkpoint."""
    val_freq: Count | None = None


class Run(Section):
    """What every option file of a run says."""

    name: str
    scale: Count
    num_gpu: Natural | Literal["auto"] = "auto"
    num_threads: Count | None = None
    """CPU threads of one operation; torch's own choice when left out."""
    manual_seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

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


class RunTree(Run):
    """A run of one network."""

    model_type: Literal["SRModel"] = "SRModel"
    network_g: Annotated[Section, NETWORK]
    path: PathOptions = PathOptions()


class TrainTree(RunTree):
    """A training file."""

    datasets: TrainSets
    train: TrainOptions
    val: ValidationOptions = ValidationOptions()
    logger: LoggerOptions = LoggerOptions()
    dist_params: DistOptions = DistOptions()


class TestTree(RunTree):
    """A test file."""

    __test__ = False
    datasets: TestSets
    val: TestingOptions = TestingOptions()
    logger: LoggerOptions | None = no_effect("a test writes its results and a report")
    dist_params: DistOptions = DistOptions()
