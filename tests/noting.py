"""train.py, which also notes the samples of every part of a step: `$SAMPLES/<rank>.jsonl`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from restore.commands.main import main
from restore.data.loader import Batch
from restore.losses.pixel import LossValue
from restore.training.trainer import Trainer

trained = Trainer._part


def noted(self: Trainer, batch: Batch, index: int) -> LossValue:
    """Note a line [step, place of this part among those of all ranks, names], then train."""
    rank = self.state.world.rank
    place = rank * self.loader.parts + index
    with (Path(os.environ["SAMPLES"]) / f"{rank}.jsonl").open("a") as file:
        file.write(json.dumps([self.state.step, place, batch.names]) + "\n")
    return trained(self, batch, index)


if __name__ == "__main__":
    Trainer._part = noted
    sys.exit(main(["train", *sys.argv[1:]]))
