"""Train the network of an option file.

  python train.py -opt options/train_SPAN_SRx4.yml
  python train.py -opt … --auto_resume            continue where it stopped
  torchrun --nproc-per-node=8 train.py -opt … --launcher pytorch

SIGTERM and Ctrl-C save and leave with exit code 75; --auto_resume then continues bit for bit.
"""

from __future__ import annotations

import argparse
import logging
from contextlib import closing

from restore.commands.shared import add_option_file, overrides, read_tree, world_of
from restore.recipes.checks import check_train
from restore.recipes.experiment import Experiment
from restore.recipes.trees import TrainTree
from restore.reports.sinks import log_to_console

log = logging.getLogger("restore")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train`."""
    add_option_file(parser)
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--auto_resume", action="store_true", help="continue from the last checkpoint"
    )
    again.add_argument(
        "--overwrite", action="store_true", help="delete an earlier run of this name"
    )


def run(args: argparse.Namespace) -> int:
    """Train; exit code 75 when a signal asked to stop."""
    log_to_console(first_rank=True)
    tree = read_tree(TrainTree, args.opt, overrides(args), check_train)
    resume = args.auto_resume or tree.path.resume_state is not None
    experiment = Experiment(tree.path.experiments_root, tree.name)
    if args.launcher == "none":  # at once; of several ranks the first looks when they have met
        experiment.refuse_existing(resume=resume, overwrite=args.overwrite)
    from restore.recipes.build_trainer import build_trainer
    from restore.training.stop import SAVED_AND_LEFT

    total = tree.train.total_iter
    with world_of(tree, args.launcher) as world:
        log_to_console(first_rank=world.first)
        ready = build_trainer(tree, world, resume=resume, overwrite=args.overwrite)
        with closing(ready.sinks):
            step = ready.trainer.state.step
            if step >= total:
                log.info("already at step %d of %d", step, total)
                return 0
            finished = ready.trainer.run()
        if finished:
            log.info("done: %s", ready.experiment.folder)
    return 0 if finished else SAVED_AND_LEFT
