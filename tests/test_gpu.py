"""The same numbers on a GPU; skipped without one (scripts/gpu_check.sh runs these)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

from restore.archs import build_network, fuse
from restore.commands.main import main
from restore.data.loader import Loader
from restore.data.options import PairedImageDataset
from restore.data.sources import open_source
from restore.data.stages import Stages

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def test_span_forward_and_gradients() -> None:
    torch.manual_seed(0)
    network = build_network({"type": "SPAN", "feature_channels": 48, "upscale": 4})
    lq, gt = torch.rand(2, 3, 33, 41), torch.rand(2, 3, 132, 164)
    found = []
    for device in ("cpu", "cuda"):
        network = network.to(device)
        network.zero_grad(set_to_none=True)
        output = network(lq.to(device))
        (output - gt.to(device)).abs().mean().backward()
        gradients = torch.cat([p.grad.flatten().cpu() for p in network.parameters()])
        with torch.no_grad():
            deployed = fuse(network)(lq.to(device)).cpu()
        found.append((output.detach().cpu(), gradients, deployed))
    for truth, ours in zip(*found, strict=True):
        assert (ours - truth).norm() / truth.norm() < 1e-4


def test_batches_arrive_as_they_were(tmp_path: Path) -> None:
    """Copied ahead from pinned memory and turned on the GPU: the CPU's floats, bit for bit, while
    slots are used again and again."""
    assert main(["prepare", "demo", "--out", str(tmp_path / "demo")]) == 0
    train = tmp_path / "demo/GOPRO_Large/train"
    options = PairedImageDataset(dataroot_gt=str(train), dataroot_lq=str(train), pairing="gopro")
    source = open_source(
        options.model_copy(update={"ram_cache_mib": 100}), 1, channels=3, training=True
    )
    found = []
    for device in (torch.device("cpu"), torch.device("cuda:0")):
        loader = Loader(source, Stages.single(8, 128), hflip=True, rot=True, seed=3, device=device)
        batches = islice(loader.batches(0), 60)
        found.append([tuple(t.double().cpu() for t in batch.to(device)) for batch in batches])
    for truth, ours in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(truth, ours, strict=True))


def test_training_resumes_on_the_gpu(tmp_path: Path) -> None:
    assert main(["prepare", "demo", "--out", str(tmp_path / "datasets/demo")]) == 0
    words = [
        sys.executable, str(ROOT / "train.py"), "-opt", str(ROOT / "options/train_SPAN_demo.yml"),
        "--set", "num_gpu=1", "train.scheduler=~", "logger.save_checkpoint_freq=10",
        "val.val_freq=10", "--auto_resume",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for total in (10, 20):
        done = subprocess.run(
            [*words, "--set", f"train.total_iter={total}"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stderr and "on cuda:0" in done.stderr
    state = tmp_path / "experiments/train_SPAN_demo/checkpoints/step_00000020/state.json"
    assert json.loads(state.read_text())["samples"] == 160


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_ranks_on_gpus_resume_to_the_same_bytes(tmp_path: Path) -> None:
    """NCCL: half and the rest are the whole."""
    assert main(["prepare", "demo", "--out", str(tmp_path / "datasets/demo")]) == 0
    ranks = torch.cuda.device_count()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = [
        *launch, f"--nproc-per-node={ranks}", str(ROOT / "train.py"), "-opt",
        str(ROOT / "options/train_SPAN_demo.yml"), "--launcher", "pytorch", "--auto_resume",
        "--set", "train.scheduler=~", "logger.save_checkpoint_freq=10", "val.val_freq=1000",
        "train.deterministic=true",
    ]  # fmt: skip
    for name, total in (("whole", 20), ("parted", 10), ("parted", 20)):
        subprocess.run(
            [*words, f"name={name}", f"train.total_iter={total}"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300, check=True,
        )  # fmt: skip
    whole, parted = (
        tmp_path / f"experiments/{name}/checkpoints/step_00000020/model.safetensors"
        for name in ("whole", "parted")
    )
    assert whole.read_bytes() == parted.read_bytes()
