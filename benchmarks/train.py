"""What the training loop costs over the bare forward, backward and step of the same network.

  python benchmarks/train.py [--only NAME] [--quick] [--no-record]

Per family, on the demo set and with the demo's network: reading, cutting and turning patches, the
bookkeeping of losses and the schedule against one batch used again and again. The first step of
both must leave the same weights. CPU time of the whole process, loader threads included; on a GPU,
wall time between synchronisations.
"""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from restore.commands.main import main as restore
from restore.options import read_options
from restore.recipes.build_trainer import TrainRun, build_trainer
from restore.recipes.trees import TrainTree
from restore.reports.tables import text_table
from restore.training.state import build_optimiser
from restore.world import World

from common import command_line, interleaved, peak_memory, ratio, record

BAR = 0.02
ROOT = Path(__file__).resolve().parent.parent
PAIRS = "datasets/demo/SIDD_Medium_Srgb/Data"
FAMILIES = {
    "SPAN": [],
    "GRL": [],
    "MaIR": [],
    "MIRNet_v2": [
        "train.mixing_augs.mixup=false", "datasets.train.iters=[100000,1,1]",
    ],
    "MIMOUNet": [  # ready pairs: the demo's draws a blur anew for every sample
        "datasets.train={type: PairedImageDataset, pairing: sidd, gt_size: 64, use_hflip: true, "
        "use_rot: true, batch_size_per_gpu: 4, num_worker_per_gpu: 1, ram_cache_mib: 256, "
        f"dataroot_gt: {PAIRS}, dataroot_lq: {PAIRS}}}",
    ],
}  # fmt: skip
PLAIN = [
    "train.ema_decay=0", "train.scheduler=~", "train.warmup_iter=-1", "train.grad_clip=~",
    "logger.use_tb_logger=false",
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One family's figures."""

    name: str
    rate: float
    wait: float
    memory: float
    cost: float


def built(name: str, world: World) -> tuple[TrainTree, TrainRun]:
    """The demo's training run of a family, without what only a recipe adds."""
    words = [*PLAIN, *FAMILIES[name], "train.total_iter=100000"]
    file = ROOT / f"options/train_{name}_demo.yml"
    tree, _ = read_options(TrainTree, file, words)
    return tree, build_trainer(tree, world, resume=False, overwrite=True)


def on_device(run: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """`run`, waited for."""

    def waited() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return waited


def measured(name: str, rounds: int, device: torch.device) -> Row:
    """Loop and bare step of one family, interleaved."""
    world = World(device=device)
    tree, ready = built(name, world)
    trainer, state = ready.trainer, ready.trainer.state
    network = copy.deepcopy(state.network)
    optimiser = build_optimiser(tree.train.optim_g, network)
    with closing(ready.sinks):
        batches = trainer.loader.batches(0)
        lq, gt = (image.clone() for image in next(trainer.loader.batches(0)).to(device))

        def bare() -> None:
            torch.manual_seed(tree.manual_seed)
            output = network(lq)
            outputs = output if isinstance(output, tuple) else (output,)
            trainer.loss(outputs, gt).total.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        def loop() -> None:
            trainer.step(batches)
            if device.type == "cpu":
                trainer._refuse_not_finite()

        bare()
        loop()
        for ours, theirs in zip(state.network.parameters(), network.parameters(), strict=True):
            assert torch.equal(ours, theirs), f"{name}: the loop's first step is another"
        variants = {"bare": on_device(bare, device), "loop": on_device(loop, device)}
        clock = time.process_time if device.type == "cpu" else time.perf_counter
        times = interleaved(variants, rounds, clock)
        trainer._waited, begun = 0.0, time.perf_counter()
        for _ in range(rounds):  # alone, for the rate and the share of waiting
            variants["loop"]()
        loops = time.perf_counter() - begun
        batches.close()
    cost = 1 / ratio(times, "bare", "loop") - 1
    memory = _memory(name, device)
    return Row(name, rounds / loops, trainer._waited / loops, memory, cost)


def _memory(name: str, device: torch.device) -> float:
    """MiB of three steps at their peak, over what was there before them."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        _, ready = built(name, World(device=device))
        with closing(ready.sinks):
            batches = ready.trainer.loader.batches(0)
            for _ in range(3):
                ready.trainer.step(batches)
            batches.close()
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_memory(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import logging, torch, train; torch.set_num_threads(1)\n"
        f"_, ready = train.built({name!r}, train.World())\n"
        "batches = ready.trainer.loader.batches(0)\n"
        "measured()\n"
        "for _ in range(3): ready.trainer.step(batches)\n"
        "batches.close()"
    )


def main() -> None:
    """Measure and record."""
    parser = command_line(__doc__, quick="5 rounds")
    parser.add_argument("--only", choices=FAMILIES, help="one family only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = World.start().device
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        assert restore(["prepare", "demo"]) == 0
        names = [args.only] if args.only else list(FAMILIES)
        found = [measured(name, 5 if args.quick else 25, device) for name in names]
        os.chdir(here)
    rows = [
        [
            row.name, f"{row.rate:.2f}", f"{row.wait:.1%}", f"{row.memory:.0f}", f"{row.cost:+.1%}",
            "holds" if row.cost <= BAR else "MISSED",
        ]
        for row in found
    ]  # fmt: skip
    median = statistics.median(row.cost for row in found)
    columns = ["family", "it/s", "data wait", "peak MiB", "loop over bare", f"bar ≤ {BAR:.0%}"]
    body = f"on {device}, the demo's networks and batches; median cost {median:+.1%}\n"
    body += text_table(columns, rows)
    record(args, "Training: what the loop costs", body)


if __name__ == "__main__":
    main()
