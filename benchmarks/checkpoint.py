"""How long training stands still for a checkpoint: copied and written beside, or torch.save.

  python benchmarks/checkpoint.py [--quick] [--no-record]

What is saved is the same: weights, their average, Adam's two moments. torch.save is called as
BasicSR does it, once for the weights and once for the training state, over the final names. Ours
ends in a checkpoint that is hashed, synced and renamed; what is timed is the stall of the loop.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from restore.archs import build_network
from restore.reports.tables import text_table
from restore.training.checkpoint import Checkpoints, load
from restore.training.options import OPTIMISERS
from restore.training.state import TrainState, build_optimiser
from restore.training.writer import Writer
from restore.world import World

from common import command_line, ratio, record

BAR = 5.0
NETWORKS = {
    "SPAN 48ch ×4": {"type": "SPAN", "feature_channels": 48, "upscale": 4},
    "MIRNet-v2": {"type": "MIRNet_v2"},
    "MIMO-UNet++": {"type": "MIMOUNetPlusCFA"},
}


def trained(options: dict[str, object], device: torch.device) -> TrainState:
    """A state after one step, so that the optimiser has moments."""
    network = build_network(options).to(device)
    adam = OPTIMISERS["Adam"].model_validate({"type": "Adam", "lr": 1e-4})
    state = TrainState(
        network, build_optimiser(adam, network), lambda step: 1e-4, ema_decay=0.999,
        grad_clip=None, seed=0, world=World(device=device),
    )  # fmt: skip
    with state.part(0, 1):
        outputs = state.forward(torch.rand(1, 3, 32, 32, device=device))
        state.backward(torch.stack([output.mean() for output in outputs]).sum())
    state.advance(1)
    return state


def two_files(state: TrainState, folder: Path) -> Callable[[], None]:
    """BasicSR's save: two files, written while training waits."""
    assert state.ema is not None
    ema = state.ema

    def save() -> None:
        on_cpu = {
            key: {name: value.cpu() for name, value in network.state_dict().items()}
            for key, network in (("params", state.network), ("params_ema", ema))
        }
        torch.save(on_cpu, folder / "net_g.pth")
        torch.save({"optimizers": [state.optimiser.state_dict()], "iter": 1}, folder / "1.state")

    return save


def stall(state: TrainState, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Wall and CPU seconds of the loop's own thread, interleaved; ours after the save before."""
    clocks = {"wall": time.perf_counter, "CPU": time.thread_time}
    times: dict[str, list[float]] = {f"{n} {c}": [] for c in clocks for n in ("plain", "ours")}
    plain = two_files(state, folder)
    with Writer(Checkpoints(folder / "checkpoints", 2, {})) as writer:
        for number in range(rounds + 1):
            start = {name: clock() for name, clock in clocks.items()}
            plain()
            middle = {name: clock() for name, clock in clocks.items()}
            numbers = {**state.numbers(), "step": number}
            writer.start(state.tensors(), numbers, best=False)
            end = {name: clock() for name, clock in clocks.items()}
            error = writer.wait()
            assert error is None, error
            for name in clocks if number else ():  # the first one makes the buffers
                times[f"plain {name}"].append(middle[name] - start[name])
                times[f"ours {name}"].append(end[name] - middle[name])
    saved = load(folder / "checkpoints" / f"step_{rounds:08d}")
    for stem, tensors in state.tensors().items():
        for name, tensor in tensors.items():
            assert torch.equal(saved.tensors[stem][name], tensor.cpu()), name
    return times


def main() -> None:
    """Measure and record."""
    args = command_line(__doc__, quick="5 rounds").parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for name, options in NETWORKS.items():
        state = trained(options, device)
        with tempfile.TemporaryDirectory() as folder:
            times = stall(state, Path(folder), 5 if args.quick else 15)
            shutil.rmtree(Path(folder) / "checkpoints")
        size = sum(t.nbytes for file in state.tensors().values() for t in file.values())
        for clock in ("wall", "CPU"):
            found = ratio(times, f"plain {clock}", f"ours {clock}")
            verdict = "holds" if found >= BAR else "MISSED"
            medians = [
                f"{1e3 * statistics.median(times[f'{which} {clock}']):.1f}"
                for which in ("plain", "ours")
            ]
            rows.append([name, f"{size / 1e6:.0f}", clock, *medians, f"{found:.1f} ×", verdict])
    columns = [
        "network", "MB", "time", "two torch.save, ms", "stall, ms", "ratio", f"bar ≥ {BAR:.0f} ×",
    ]  # fmt: skip
    body = f"on {device}; what was saved read back equal\n" + text_table(columns, rows)
    record(args, "Checkpoints: how long training waits", body)


if __name__ == "__main__":
    main()
