"""Floor 6. A training file's tree -> a trainer ready to go."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from restore.archs.build import build_network
from restore.archs.weights import describe
from restore.data.loader import Loader
from restore.data.source import Source
from restore.data.sources import check_source, open_source
from restore.data.stages import Share
from restore.errors import CheckpointError, OptionError
from restore.evaluation.precision import check_precision
from restore.losses.pixel import Loss
from restore.recipes.build import (
    channels_of,
    evaluators_of,
    load_pretrained,
    open_sets,
    predictor_of,
    use_threads,
)
from restore.recipes.experiment import Experiment, begin
from restore.recipes.trees import TrainTree
from restore.reports.sinks import (
    JsonlSink,
    Sinks,
    TensorBoardSink,
    WandbSink,
    find_wandb,
    log_to_file,
)
from restore.training import checkpoint
from restore.training.checkpoint import Checkpoints
from restore.training.clock import Clock
from restore.training.computation import Computation, use_deterministic_algorithms
from restore.training.mixing import Mixup
from restore.training.options import TrainOptions
from restore.training.schedule import schedule_of
from restore.training.state import TrainState, build_optimiser
from restore.training.trainer import Trainer
from restore.training.writer import Writer
from restore.world import World

log = logging.getLogger("restore")


@dataclass(frozen=True)
class TrainRun:
    """A training run ready to go, and what to close after it."""

    trainer: Trainer
    sinks: Sinks
    experiment: Experiment


def build_trainer(tree: TrainTree, world: World, *, resume: bool, overwrite: bool) -> TrainRun:
    """Everything a training run needs; nothing is written before all of it has been checked."""
    use_threads(tree.num_threads)
    experiment = Experiment(tree.path.experiments_root, tree.name)
    resume = resume or tree.path.resume_state is not None
    if world.first:
        experiment.refuse_existing(resume=resume, overwrite=overwrite)
    channels, share = channels_of(tree.network_g), share_of(tree, world)
    train: Any = tree.datasets.train
    source = open_source(train, tree.scale, channels=channels, training=True)
    largest = max(stage.gt_size for stage in train.stages())
    check_source(source, patch=1 if train.pad_small else largest, skip=train.on_bad == "skip")
    validation = open_sets(tree.datasets.evaluated(), tree.scale, channels)
    torch.manual_seed(tree.manual_seed)
    network = build_network(tree.network_g)
    load_pretrained(network, tree.path)
    state = _state(tree, network.to(world.device), world)
    about = describe(tree.network_g, tree.scale)
    checkpoints = Checkpoints(experiment.checkpoints, tree.logger.keep_checkpoints, about)
    if resume and not overwrite:
        _resume(tree, state, checkpoints)
    if tree.logger.wandb.project is not None:
        find_wandb(tree.logger.wandb.project)
    world.barrier()
    if world.first:
        begin(experiment.folder, tree, afresh=overwrite)
        log_to_file(experiment.folder / "train.log")
        if world.elastic:
            experiment.note_restart(state.step)
        checkpoints.claim()
        checkpoints.clear_leftovers()
    loader = _loader(tree, source, share, world)
    loader.continue_from(state.step, state.samples)
    sinks = _sinks(tree, experiment, state.step) if world.first else Sinks([])
    trainer = Trainer(
        state,
        loader,
        _loss(tree.train),
        evaluators_of(validation, tree.val, tree.scale, world),
        lambda evaluated: predictor_of(evaluated, tree.network_g, world.device, tree.val),
        Writer(checkpoints),
        sinks,
        Clock(
            tree.train.total_iter,
            tree.logger.print_freq,
            tree.logger.save_checkpoint_freq,
            tree.val.val_freq if validation else None,
        ),
        world,
        mixup=_mixup(tree, world),
        pictures=experiment.folder / "visualization" if tree.val.save_img else None,
    )
    kind = getattr(tree.network_g, "type", "")
    log.info("%s: %s on %d training images, on %s", tree.name, kind, len(source), world.device)
    return TrainRun(trainer, sinks, experiment)


def _loader(tree: TrainTree, source: Source, share: Share, world: World) -> Loader:
    train: Any = tree.datasets.train
    return Loader(
        source,
        train.stages(),
        hflip=train.use_hflip,
        rot=train.use_rot,
        seed=tree.manual_seed,
        share=share,
        workers=train.num_worker_per_gpu,
        worker_type=train.worker_type,
        device=world.device,
        on_bad=train.on_bad,
    )


def _loss(train: TrainOptions) -> Loss:
    parts = {"pixel": train.pixel_opt, "frequency": train.frequency_opt}
    return Loss({name: options for name, options in parts.items() if options is not None})


def _mixup(tree: TrainTree, world: World) -> Mixup | None:
    options = tree.train.mixing_augs
    if not options.mixup:
        return None
    return Mixup(options.mixup_beta, options.use_identity, tree.manual_seed, world.rank)


def _state(tree: TrainTree, network: nn.Module, world: World) -> TrainState:
    train = tree.train
    check_precision(train.precision, world.device, "train.precision")
    if train.deterministic:
        use_deterministic_algorithms()
    mode = "default" if train.compile is True else train.compile or None
    twin = None
    if tree.dist_params.strategy == "fsdp2" and world.size > 1:
        twin = copy.deepcopy(network).requires_grad_(False)
        world.shard(network)
    return TrainState(
        network,
        build_optimiser(train.optim_g, network),
        schedule_of(train),
        ema_decay=train.ema_decay,
        grad_clip=train.grad_clip,
        seed=tree.manual_seed,
        world=world,
        computation=Computation(train.precision, train.channels_last, mode),
        skip_nonfinite=train.nonfinite == "skip",
        twin=twin,
    )


def share_of(tree: TrainTree, world: World) -> Share:
    """This rank's share of every global batch. Raises OptionError DST03 where it is not even."""
    train: Any = tree.datasets.train
    batches = [stage.batch for stage in train.stages()]
    wanted = tree.train.global_batch
    share = Share.of(world.rank, world.size, batches, wanted)
    if share is None:
        assert wanted is not None
        unit = batches[0] * world.size
        near = sorted({max(unit, wanted // unit * unit), -(-wanted // unit) * unit})
        raise OptionError.of(
            "DST03",
            "the global batch cannot be dealt out evenly",
            "train.global_batch",
            f"{wanted} over {world.size} rank(s) with batches of {', '.join(map(str, batches))}",
            " or ".join(map(str, near)),
            "change train.global_batch, the batch of a rank or the number of ranks",
        )
    return share


def _resume(tree: TrainTree, state: TrainState, checkpoints: Checkpoints) -> None:
    """Continue from `path.resume_state`, or from the newest whole checkpoint of the run."""
    if tree.path.resume_state is not None:
        saved = checkpoint.load(Path(tree.path.resume_state))
    else:
        saved = checkpoints.load_newest()
    if saved is None:
        log.info("nothing to resume: starting at step 0")
        return
    changed = checkpoints.differences(saved)
    before = ", ".join(f"{option} {value}" for option, value, _ in changed)
    now = ", ".join(f"{option} {value}" for option, _, value in changed)
    try:
        state.restore(saved.tensors, saved.numbers)
    except CheckpointError:
        if not changed:
            raise
        raise CheckpointError.of(
            "CKP01",
            "checkpoint of another network",
            str(saved.folder),
            before,
            f"{now}, as network_g says",
            "resume with the options the run was started with",
        ) from None
    if changed:
        log.warning("saved with another network_g: %s; now %s", before, now)
    log.info("resumed from %s", saved.folder)
    if saved.numbers["ranks"] != state.world.size:
        log.warning(
            "saved by %d rank(s), resumed on %d: the same samples in the same order, but not bit "
            "for bit the same sums",
            saved.numbers["ranks"],
            state.world.size,
        )


def _sinks(tree: TrainTree, experiment: Experiment, step: int) -> Sinks:
    chosen: list[Any] = [JsonlSink(experiment.folder / "log.jsonl", step)]
    if tree.logger.use_tb_logger:
        chosen.append(TensorBoardSink(experiment.folder / "tb_logger", step))
    wandb = tree.logger.wandb
    if wandb.project is not None:
        chosen.append(WandbSink(wandb.project, tree.name, wandb.resume_id))
    return Sinks(chosen)
