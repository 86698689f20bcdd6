"""The same numbers on a GPU; skipped without one (scripts/gpu_check.sh runs these)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from restore.archs import build_network, fuse
from restore.archs.table import ARCHS
from restore.commands.main import main
from restore.data.loader import Loader
from restore.data.options import PairedImageDataset
from restore.data.sources import open_source
from restore.data.stages import Stages
from restore.evaluation import memory
from restore.evaluation.options import PredictorOptions
from restore.evaluation.predictor import Predictor
from restore.evaluation.profile import timed
from restore.options_yaml import dump
from restore.reports.records import read_rows
from restore.training.computation import Computation
from restore.training.options import OPTIMISERS
from restore.training.state import TrainState, build_optimiser
from restore.world import World

from helpers import SMALL_NETWORKS
from runs import ROOT, checkpoint, environment

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
DEMOS = ("SPAN", "MIRNet_v2", "MIMOUNet", "MaIR", "GRL")


@pytest.fixture(autouse=True)
def full_precision() -> Generator[None]:
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = False
    yield
    for flag, value in zip(flags, before, strict=True):
        flag.allow_tf32 = value


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`place`, as the working folder."""
    monkeypatch.chdir(place)
    return place


def test_the_gpu_is_taken() -> None:
    for asked in ("auto", 1):
        assert World.start(num_gpu=asked).device == GPU


# Networks and steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(SMALL_NETWORKS))
def test_outputs_and_gradients(kind: str) -> None:
    torch.manual_seed(0)
    network = build_network(SMALL_NETWORKS[kind]).eval()
    lq, found = torch.rand(2, 3, 32, 40), []
    for device in (CPU, GPU):
        network = network.to(device)
        network.zero_grad(set_to_none=True)
        output = network(lq.to(device))
        outputs = output if isinstance(output, tuple) else (output,)
        torch.stack([(o - 0.3).abs().mean() for o in outputs]).sum().backward()
        gradients = [p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None]
        with torch.no_grad():
            deployed = fuse(network)(lq.to(device))
        finest = deployed[0] if isinstance(deployed, tuple) else deployed
        found.append((outputs[0].detach().cpu(), torch.cat(gradients), finest.cpu()))
    for truth, ours in zip(*found, strict=True):
        assert (ours - truth).norm() / truth.norm() < 1e-4


def state(device: torch.device, kind: str, computation: Computation) -> TrainState:
    torch.manual_seed(1)
    dropping = {"drop_path_rate": 0.0} if kind == "MaIR" else {}  # devices draw other numbers
    network = build_network(SMALL_NETWORKS[kind] | dropping)
    adam = OPTIMISERS["Adam"].model_validate({"type": "Adam", "lr": 1e-3})
    network = network.to(device)
    return TrainState(
        network, build_optimiser(adam, network), lambda step: 1e-3, ema_decay=0.9, grad_clip=0.5,
        seed=5, world=World(device=device), computation=computation,
    )  # fmt: skip


def losses(device: torch.device, kind: str, computation: Computation) -> list[float]:
    """Of three steps."""
    ours, found = state(device, kind, computation), []
    if ours._scaler is not None:  # the scale that it begins with leaves out the first steps
        ours._scaler.load_state_dict({**ours._scaler.state_dict(), "scale": 256.0})
    for step in range(3):
        lq = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(step)).to(device)
        with ours.part(0, 1):
            outputs = ours.forward(lq)
            each = [(o - o.detach().mean() - 0.1).abs().mean() for o in outputs]
            loss = torch.stack(each).sum()
            ours.backward(loss)
        ours.advance(4 * step + 4)
        found.append(loss.item())
    return found


@pytest.mark.parametrize("kind", list(SMALL_NETWORKS))
@pytest.mark.parametrize(
    "how", [{"precision": "bf16"}, {"precision": "fp16"}, {"channels_last": True}], ids=str
)
def test_steps_of_any_precision_and_layout(kind: str, how: dict[str, Any]) -> None:
    exact = losses(CPU, kind, Computation())
    slack = {"rel": 0.05, "abs": 2e-3} if "precision" in how else {"rel": 1e-3}
    assert losses(GPU, kind, Computation(**how)) == pytest.approx(exact, **slack)


@pytest.mark.parametrize("kind", ["SPAN", "MaIR"])
def test_compiled_steps(kind: str) -> None:
    exact = losses(GPU, kind, Computation())
    compiled = losses(GPU, kind, Computation(compile="default"))
    assert compiled == pytest.approx(exact, rel=1e-3)


# Data and training --------------------------------------------------------------------------------


def test_batches_arrive_as_they_were(place: Path) -> None:
    """Copied ahead from pinned memory and turned on the GPU: the CPU's floats, bit for bit, while
    slots are used again and again."""
    train = place / "datasets/demo/GOPRO_Large/train"
    options = PairedImageDataset(
        dataroot_gt=str(train), dataroot_lq=str(train), pairing="gopro", ram_cache_mib=100
    )
    source, found = open_source(options, 1, channels=3, training=True), []
    for device in (CPU, GPU):
        loader = Loader(source, Stages.single(8, 128), hflip=True, rot=True, seed=3, device=device)
        batches = islice(loader.batches(0), 60)
        found.append([tuple(t.double().cpu() for t in batch.to(device)) for batch in batches])
    for truth, ours in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(truth, ours, strict=True))


@pytest.mark.parametrize("kind", DEMOS)
def test_every_demo_trains(kind: str, here: Path) -> None:
    file, name = str(ROOT / f"options/train_{kind}_demo.yml"), f"{kind}_on_gpu"
    more = ["num_gpu=1", f"name={name}", "train.scheduler=~", "train.total_iter=3"]
    if kind == "MIRNet_v2":  # its stages are as long as the run
        more.append("datasets.train.iters=[1,1,1]")
    assert main(["train", "-opt", file, "--set", *more]) == 0
    assert "on cuda:0" in (here / f"experiments/{name}/train.log").read_text()
    assert json.loads((checkpoint(here, name, 3) / "state.json").read_text())["step"] == 3


SEVERAL = pytest.param(
    torch.cuda.device_count(), id="ranks",
    marks=pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
)  # fmt: skip


@pytest.mark.parametrize("processes", [pytest.param(1, id="alone"), SEVERAL])
def test_half_a_run_and_the_rest_are_the_whole(processes: int, place: Path) -> None:
    """To the byte; several over NCCL."""
    words = [sys.executable]
    if processes > 1:
        words += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words += [str(ROOT / "train.py"), "-opt", str(ROOT / "options/train_SPAN_demo.yml")]
    words += ["--launcher", "pytorch"] if processes > 1 else []
    words += [
        "--auto_resume", "--set", "train.scheduler=~", "logger.save_checkpoint_freq=10",
        "val.val_freq=10", "train.deterministic=true",
    ]  # fmt: skip
    said = ""
    for name, total in (("whole", 20), ("parted", 10), ("parted", 20)):
        done = subprocess.run(
            [*words, f"name={name}", f"train.total_iter={total}"], cwd=place, timeout=300,
            env=environment(gpus=True), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said = done.stderr
    assert "resumed from" in said and "on cuda:0" in said
    whole, parted = (
        checkpoint(place, name, 20) / "model.safetensors" for name in ("whole", "parted")
    )
    assert whole.read_bytes() == parted.read_bytes()


# Whole images -------------------------------------------------------------------------------------


def predictor(device: torch.device, **how: Any) -> Predictor:
    torch.manual_seed(2)
    network, span = build_network(SMALL_NETWORKS["SPAN"]), ARCHS["SPAN"]
    options = PredictorOptions.model_validate(how)
    return Predictor(network, 2, span.size, device, options, reach=span.reach)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("how", [{}, {"tile": 96}, {"ensemble": 8}, {"precision": "bf16"}], ids=str)
def test_images_are_restored_as_on_a_cpu(how: dict[str, Any]) -> None:
    image = picture(170, 230)
    truth, ours = (predictor(device, **how).restore(image) for device in (CPU, GPU))
    apart = np.abs(truth.astype(int) - ours)
    assert apart.max() <= (8 if "precision" in how else 1)


def test_tiles_are_fitted_to_the_memory_left() -> None:
    """`auto` finds the GPU full, for real, and goes on with smaller tiles."""
    image, total = picture(1200, 1600), torch.cuda.get_device_properties(GPU).total_memory
    whole = predictor(GPU, tile="none").run(image)
    assert memory.available(GPU) > 1 << 28
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((1 << 28) / total, GPU)
    try:
        tiled = predictor(GPU).run(image)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
    assert whole.tiles == 1 and tiled.tiles > 1
    assert np.abs(whole.image.astype(int) - tiled.image).max() <= 1


def test_time_and_memory_are_measured() -> None:
    network = build_network(SMALL_NETWORKS["SPAN"]).to(GPU)
    small, large = (timed(network, torch.rand(1, 3, n, n, device=GPU), 3) for n in (64, 512))
    assert len(small.seconds) == 3 and min(small.seconds) > 0
    assert small.memory is not None and large.memory is not None
    assert 0 < small.memory < large.memory


@pytest.fixture
def matrix(here: Path) -> dict[str, Any]:
    """A matrix of one network on the demo's two test images."""
    torch.manual_seed(3)
    torch.save(build_network(SMALL_NETWORKS["SPAN"]).state_dict(), here / "net.pth")
    folder = "datasets/demo/benchmark/DemoTest"
    roots = {"dataroot_gt": f"{folder}/HR", "dataroot_lq": f"{folder}/LR_bicubic/X2"}
    roots["filename_tmpl"] = "{}x2"
    return {
        "scale": 2,
        "networks": {"SPAN": {"network_g": SMALL_NETWORKS["SPAN"], "weights": "net.pth"}},
        "datasets": {"test_1": {"name": "Demo", "type": "PairedImageDataset", **roots}},
        "protocols": ["sr-y", "rgb"],
    }


def test_a_matrix_has_the_scores_of_a_cpu(matrix: dict[str, Any], here: Path) -> None:
    found = []
    for name, gpus in (("cpu", 0), ("gpu", 1)):
        (here / "bench.yml").write_text(dump({"name": name, "num_gpu": gpus} | matrix))
        assert main(["bench", "-opt", "bench.yml"]) == 0
        found.append(read_rows(here / f"experiments/{name}/results/SPAN/rows.jsonl"))
    assert len(found[0]) == 2 * 2
    for truth, ours in zip(*found, strict=True):
        assert (truth.device, ours.device) == ("cpu", "cuda")
        assert (truth.set, truth.image, truth.protocol) == (ours.set, ours.image, ours.protocol)
        assert (ours.psnr, ours.ssim) == pytest.approx((truth.psnr, truth.ssim), abs=0.01)
