"""Floor 5. What an option file can say about training (no torch here)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from restore.catalog import Catalog
from restore.evaluation.options import Precision
from restore.losses.options import LOSS
from restore.section import Count, NotNegative, OneOf, Section, mistake, no_effect

Rate = Annotated[float, Field(gt=0)]
Betas = tuple[float, float]
CompileMode = Literal["default", "reduce-overhead", "max-autotune"]


class Optimiser(Section):
    """A `torch.optim` optimiser; a key left out takes torch's default."""

    lr: Rate
    weight_decay: NotNegative | None = None


class Adam(Optimiser):
    type: Literal["Adam"] = "Adam"
    betas: Betas | None = None
    eps: Rate | None = None
    amsgrad: bool | None = None


class AdamW(Optimiser):
    type: Literal["AdamW"] = "AdamW"
    betas: Betas | None = None
    eps: Rate | None = None
    amsgrad: bool | None = None


class NAdam(Optimiser):
    type: Literal["NAdam"] = "NAdam"
    betas: Betas | None = None
    eps: Rate | None = None
    momentum_decay: float | None = None


class RAdam(Optimiser):
    type: Literal["RAdam"] = "RAdam"
    betas: Betas | None = None
    eps: Rate | None = None


class Adamax(Optimiser):
    type: Literal["Adamax"] = "Adamax"
    betas: Betas | None = None
    eps: Rate | None = None


class SGD(Optimiser):
    type: Literal["SGD"] = "SGD"
    momentum: NotNegative | None = None
    dampening: NotNegative | None = None
    nesterov: bool | None = None


class ASGD(Optimiser):
    type: Literal["ASGD"] = "ASGD"
    lambd: float | None = None
    alpha: float | None = None
    t0: float | None = None


class RMSprop(Optimiser):
    type: Literal["RMSprop"] = "RMSprop"
    alpha: float | None = None
    eps: Rate | None = None
    momentum: NotNegative | None = None
    centered: bool | None = None


class Adagrad(Optimiser):
    type: Literal["Adagrad"] = "Adagrad"
    lr_decay: float | None = None
    eps: Rate | None = None
    initial_accumulator_value: float | None = None


class Adadelta(Optimiser):
    type: Literal["Adadelta"] = "Adadelta"
    rho: float | None = None
    eps: Rate | None = None


class Rprop(Section):
    type: Literal["Rprop"] = "Rprop"
    lr: Rate
    etas: tuple[float, float] | None = None
    step_sizes: tuple[float, float] | None = None


_OPTIMISERS = (
    Adam,
    AdamW,
    NAdam,
    RAdam,
    Adamax,
    SGD,
    ASGD,
    RMSprop,
    Adagrad,
    Adadelta,
    Rprop,
)
OPTIMISERS: Catalog[type[Section]] = Catalog("optimiser", {o.__name__: o for o in _OPTIMISERS})
OPTIMISER = OneOf(OPTIMISERS, lambda section: section)


class MultiStepLR(Section):
    """The rate times `gamma` at each milestone."""

    type: Literal["MultiStepLR"] = "MultiStepLR"
    milestones: tuple[Count, ...]
    gamma: Rate = 0.1


class _Cosine(Section):
    periods: Annotated[tuple[Count, ...], Field(min_length=1)]
    restart_weights: tuple[Rate, ...] = (1.0,)

    def lengths(self) -> dict[str, int]:
        """The lists that need one entry per period, and how many they have."""
        return {"restart_weights": len(self.restart_weights)}


class CosineAnnealingRestartLR(_Cosine):
    """Cosine from weight × rate to `eta_min` in each period."""

    type: Literal["CosineAnnealingRestartLR"] = "CosineAnnealingRestartLR"
    eta_min: NotNegative = 0.0


class CosineAnnealingRestartCyclicLR(_Cosine):
    """Cosine from weight × rate to the period's own `eta_mins` entry."""

    type: Literal["CosineAnnealingRestartCyclicLR"] = "CosineAnnealingRestartCyclicLR"
    eta_mins: tuple[NotNegative, ...]

    def lengths(self) -> dict[str, int]:
        return super().lengths() | {"eta_mins": len(self.eta_mins)}


class MultiStepRestartLR(Section):
    """BasicSR's name for MultiStepLR, with restarts to weight × rate."""

    type: Literal["MultiStepRestartLR"] = "MultiStepRestartLR"
    milestones: tuple[Count, ...]
    gamma: Rate = 0.1
    restarts: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    restart_weights: tuple[Rate, ...] = (1.0,)


_SCHEDULES = (
    MultiStepLR,
    MultiStepRestartLR,
    CosineAnnealingRestartLR,
    CosineAnnealingRestartCyclicLR,
)
SCHEDULES: Catalog[type[Section]] = Catalog("scheduler", {s.__name__: s for s in _SCHEDULES})
SCHEDULE = OneOf(SCHEDULES, lambda section: section)


class MixingOptions(Section):
    """MIRNet-v2's `mixing_augs`: pairs of a batch blended, LQ and GT alike."""

    mixup: bool = False
    mixup_beta: Rate = 1.2
    """λ is drawn from Beta(β, β), once a batch."""
    use_identity: bool = True
    """Leave every second batch, by chance, as it is."""


class TrainOptions(Section):
    """BasicSR's `train`."""

    total_iter: Count
    optim_g: Annotated[Section, OPTIMISER]
    scheduler: Annotated[Section, SCHEDULE] | None = None
    """The rate's course; constant when absent."""
    warmup_iter: Annotated[int, Field(ge=-1)] = -1
    """Iterations in which the rate rises in a straight line; -1 for none."""
    pixel_opt: Annotated[Section, LOSS]
    frequency_opt: Annotated[Section, LOSS] | None = None
    """A second loss, added to the first: MIMO-UNet's `type: FrequencyLoss`."""
    mixing_augs: MixingOptions = MixingOptions()
    ema_decay: float = 0.0
    """Weight of the past in the averaged network that is validated and saved; 0 for none."""
    grad_clip: Rate | None = None
    """Largest norm of the whole gradient."""
    global_batch: Count | None = None
    """Samples of one step over all ranks (in the first stage), whatever their number: fewer ranks
    than global_batch / batch_size_per_gpu add up several batches a step. Left out: one batch of
    batch_size_per_gpu on each rank."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """A loss or gradient that is no finite number ends the run, or leaves the step out (at most
    10 in a row)."""
    precision: Precision = "fp32"
    """Of products and convolutions, by autocast; weights and optimiser stay float32."""
    channels_last: bool = False
    """Lay out images and convolution weights with channels last: faster for some networks."""
    compile: bool | CompileMode = False
    """torch.compile for the network's blocks, in the named mode; `reduce-overhead` is CUDA
    graphs."""
    deterministic: bool = False
    """Deterministic algorithms on a GPU, where some are not by default; slower."""

    @field_validator("ema_decay")
    @classmethod
    def _below_one(cls, decay: float) -> float:
        if not 0 <= decay < 1:
            raise mistake("OPT29", "ema_decay is out of range", "a number in [0, 1)", "try 0.999")
        return decay


class WandbOptions(Section):
    """Weights & Biases; used when a project is named."""

    project: str | None = None
    resume_id: str | None = None


class LoggerOptions(Section):
    """BasicSR's `logger`."""

    print_freq: Count = 100
    """Steps between reports. After 50,000 of them only every 2nd comes, after 100,000 every 4th and
    so on, so that the logs of a long run stay small."""
    save_checkpoint_freq: Count = 5000
    keep_checkpoints: Annotated[int, Field(ge=2)] = 3
    """The newest ones kept; the best one is kept besides."""
    use_tb_logger: bool = True
    """Event files in `tb_logger`: what `log.jsonl` holds, and the middle of the first image of each
    validation set (256 × 256, of the first 50 validations, then ever more rarely)."""
    wandb: WandbOptions = WandbOptions()


class DistOptions(Section):
    """BasicSR's `dist_params`."""

    backend: Literal["nccl", "gloo"] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] = 29500
    timeout: Count = 600
    """Seconds that ranks wait for one another before the run fails."""
    strategy: Literal["ddp", "fsdp2"] = "ddp"
    """Every rank holds the whole network (ddp), or its share of weights, gradients and optimiser
    (fsdp2), for networks whose state would not fit on one GPU. Checkpoints are the same files."""
    find_unused_parameters: bool | None = no_effect("no network here has any")
