"""Training that survives: the real command resumed, on several ranks, with ranks that fail."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from restore.commands.main import main
from restore.errors import RunError
from restore.recipes.experiment import Experiment
from restore.training.checkpoint import fault_of

from runs import (
    ROOT,
    checkpoint,
    children,
    command,
    contents,
    environment,
    on_ranks,
    run,
    start,
    start_until,
    wait_for,
)

HALF, WHOLE = 8, 16
SMALL = (
    f"num_gpu=0 network_g.feature_channels=8 train.scheduler=~ train.total_iter={WHOLE} "
    f"datasets.train.gt_size=48 datasets.train.batch_size_per_gpu=4 val.val_freq={HALF} "
    "logger.save_checkpoint_freq=4 logger.print_freq=4 logger.use_tb_logger=false"
).split()
STAGED = (  # the stage changes after the resumed step, within what a loader has made ahead
    "datasets.train.iters=[9,7] datasets.train.gt_sizes=[32,48] "
    "datasets.train.mini_batch_sizes=[4,2]"
).split()
SGD = ["train.optim_g={type: SGD, lr: 1e-3}", "train.ema_decay=0", "val.val_freq=1000"]
NEVER = [
    f"{key}=100000" for key in ("logger.save_checkpoint_freq", "val.val_freq", "train.total_iter")
]
QUICKLY = 60.0  # seconds in which a failure must have ended the job, on a busy machine


def train(name: str, *more: str) -> list[str]:
    return command("train.py", "train_SPAN_demo.yml", name, *SMALL, *more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "precision", "parts", "workers"),
    [
        (1, "bf16", 2, (0, 2)),
        (1, "fp16", 3, (2, 0)),
        (2, "bf16", 2, (0, 2)),
        (3, "fp16", 2, (2, 0)),
    ],
)
def test_resumed_is_undisturbed(
    place: Path, ranks: int, precision: str, parts: int, workers: tuple[int, int]
) -> None:
    """Half, then the rest with other workers, is the same bytes as the whole; with all at once:
    average, several parts a step, autocast, a change of stage, validation."""
    kind = f"{precision}-{ranks}"
    share = f"train.global_batch={4 * ranks * parts}"
    options = [*STAGED, share, f"train.precision={precision}", "train.nonfinite=skip"]

    def job(name: str, *more: str) -> subprocess.CompletedProcess[str]:
        words = train(name, *options, *more)
        return run(words if ranks == 1 else on_ranks(ranks, words), place)

    first, second = (f"datasets.train.num_worker_per_gpu={n}" for n in workers)
    job(f"whole-{kind}", first)
    job(f"parted-{kind}", first, f"train.total_iter={HALF}")
    done = job(f"parted-{kind}", second, "--auto_resume")
    assert "resumed from" in done.stderr and "GT patches of 48" in done.stderr
    whole, parted = (checkpoint(place, f"{n}-{kind}", WHOLE) for n in ("whole", "parted"))
    assert contents(parted) == contents(whole)
    state = json.loads((whole / "state.json").read_text())
    assert state["samples"] == ranks * parts * (9 * 4 + 7 * 2)
    assert (state["scaler"] is not None) == (precision == "fp16")


def noted(place: Path, name: str, ranks: int, *more: str) -> tuple[str, list[list[str]]]:
    """Train by tests/noting.py: what the log said, and the samples of each step in order."""
    folder = place / "samples" / f"{name}-{ranks}"
    folder.mkdir(parents=True)
    words = train(name, *more)
    words[1] = str(ROOT / "tests/noting.py")
    words = words if ranks == 1 else on_ranks(ranks, words)
    done = run(["env", f"SAMPLES={folder}", *words], place)
    parts = [json.loads(line) for file in folder.iterdir() for line in file.open()]
    steps: dict[int, list[str]] = {}
    for step, _, names in sorted(parts):
        steps.setdefault(step, []).extend(names)
    return done.stderr, [steps[step] for step in sorted(steps)]


@pytest.mark.slow
def test_a_global_batch_is_the_same_on_any_ranks(place: Path) -> None:
    """1 rank in 2 parts, 2 ranks, and 2 ranks resumed on 1: same samples, same order, weights
    but for the rounding of sums."""
    options = [*SGD, *STAGED, "train.global_batch=8"]
    said, one = noted(place, "one", 1, *options)
    assert "batch 4 × 1 rank(s) × 2 part(s) = 8" in said
    _, two = noted(place, "two", 2, *options)
    assert one == two and [len(step) for step in one] == 9 * [8] + 7 * [4]
    _, begun = noted(place, "moved", 2, *options, f"train.total_iter={HALF}")
    said, rest = noted(place, "moved", 1, *options, "--auto_resume")
    assert "saved by 2 rank(s), resumed on 1: the same samples" in said and "not bit" in said
    assert begun + rest == one
    one_end, two_end, moved = (
        flat(checkpoint(place, n, WHOLE) / "model.safetensors") for n in ("one", "two", "moved")
    )
    walked = np.abs(one_end - flat(checkpoint(place, "one", HALF) / "model.safetensors")).max()
    assert walked > 0
    assert np.abs(one_end - two_end).max() < 1e-3 * walked
    assert np.abs(one_end - moved).max() < 1e-3 * walked


@pytest.mark.slow
def test_another_batch_continues_at_the_next_boundary(place: Path) -> None:
    """Without a global batch, 2 ranks take twice the samples; what follows begins after them."""
    options = [*SGD, "val.val_freq=1000"]
    _, begun = noted(place, "wider", 2, *options, f"train.total_iter={HALF}")
    _, rest = noted(place, "wider", 1, *options, "--auto_resume")
    taken = [name for step in begun + rest for name in step]
    assert [len(s) for s in begun + rest] == HALF * [8] + HALF * [4]
    for epoch in range(len(taken) // 8):  # the demo set has 8 images: each once an epoch
        assert len(set(taken[8 * epoch : 8 * epoch + 8])) == 8


def flat(file: Path) -> np.ndarray:
    return np.concatenate([v.double().flatten().numpy() for v in load_file(file).values()])


@pytest.mark.slow
def test_validation_has_the_same_digits_on_any_ranks(place: Path) -> None:
    """One step that changes nothing (the rate is no float32), then the scores."""
    still = ["train.optim_g={type: SGD, lr: 1e-300}", "train.ema_decay=0", "train.total_iter=1"]
    found = []
    for ranks in (1, 2, 3):
        words = train(f"scored-{ranks}", *still, "val.val_freq=1")
        run(words if ranks == 1 else on_ranks(ranks, words), place)
        log = (place / f"experiments/scored-{ranks}/log.jsonl").read_text().splitlines()
        scores = [x for x in map(json.loads, log) if "val/demo-val/psnr" in x]
        assert len(scores) == 1
        found.append({key: v for key, v in scores[0].items() if key.startswith("val/")})
    assert found[0] == found[1] == found[2]


FAMILIES = r"""
import copy, torch
from restore.archs import build_network
from restore.training.options import OPTIMISERS
from restore.training.state import TrainState, build_optimiser
from restore.world import World
from helpers import SMALL_NETWORKS

MORE = {
    "MaIRUNet": {"type": "MaIRUNet", "dim": 8, "num_blocks": [1, 1, 1, 1],
                 "num_refinement_blocks": 1},
    "MIMOUNetPlusCFA": {"type": "MIMOUNetPlusCFA", "num_res": 1, "widths": [8, 16, 24]},
}


def trained(options, world, sharded):
    torch.manual_seed(1)
    network = build_network(options)
    twin = copy.deepcopy(network) if sharded else None
    if sharded:
        world.shard(network)
    sgd = OPTIMISERS["SGD"].model_validate({"type": "SGD", "lr": 1e-2})
    state = TrainState(
        network, build_optimiser(sgd, network), lambda step: 1e-2,
        ema_decay=0.0, grad_clip=None, seed=5, world=world, twin=twin,
    )
    for step in range(2):
        for part in range(2):
            seed = 4 * step + 2 * world.rank + part
            lq = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
            with state.part(part, 2):
                outputs = state.forward(lq)
                state.backward(torch.stack([o.abs().mean() for o in outputs]).sum() / 2)
        assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
        state.advance(state.samples + 4)
    return torch.cat([p.detach().flatten() for p in state.evaluated.parameters()]).double()


with World.start("pytorch", num_gpu=0) as world:
    for name, options in {**SMALL_NETWORKS, **MORE}.items():
        whole, shares = trained(options, world, False), trained(options, world, True)
        assert torch.equal(world.sum(whole.clone()), 2 * whole), name
        start = torch.cat([p.detach().flatten() for p in (
            torch.manual_seed(1) and build_network(options)).parameters()]).double()
        off = (shares - whole).abs().max() / (whole - start).abs().max()
        assert 0 <= off < 1e-3, (name, off)
        if world.first:
            print("trained", name)
"""


@pytest.mark.slow
def test_every_family_trains_on_two_ranks(place: Path) -> None:
    """Two steps of two parts; no parameter is left without a gradient, both ranks stay alike, and
    the weights are the same when the network is sharded."""
    script = place / "families.py"
    script.write_text(FAMILIES)
    path = f"PYTHONPATH={ROOT}:{ROOT / 'tests'}"
    done = run(["env", path, *on_ranks(2, ["python", str(script)])[:-2]], place)
    assert done.stdout.count("trained") == 7


def test_a_second_ctrl_c_ends_at_once(place: Path) -> None:
    name = "twice"
    words = train(name, "train.total_iter=100000", "val.val_freq=100000")
    process = start_until(words, place, checkpoint(place, name, 4))
    os.kill(process.pid, signal.SIGSTOP)  # so that both signals meet the same step
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGCONT)
    time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(QUICKLY) in (75, 130)
    steps = checkpoint(place, name, 0).parent.glob("step_*")
    assert all(fault_of(folder) is None for folder in steps)


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    run(train("alone"), place)
    return checkpoint(place, "alone", WHOLE)


def test_a_disk_that_is_full_during_a_save(place: Path, alone: Path) -> None:
    """Files may not grow beyond the network's size: the optimiser's cannot be written."""
    name = "full"
    run(train(name, f"train.total_iter={HALF}"), place)
    before = contents(checkpoint(place, name, HALF))
    limit = len(before["model.safetensors"]) + 1000
    assert limit < len(before["optim.safetensors"])
    done = subprocess.run(
        train(name, "--auto_resume"),
        cwd=place, env=environment(), capture_output=True, text=True, timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "error[CKP04]: checkpoint could not be saved" in done.stderr
    assert "training goes on; 1 save(s) missed" in done.stderr
    assert "Traceback" not in done.stderr
    folder = checkpoint(place, name, HALF).parent
    assert not list(folder.glob(".tmp-*"))
    assert contents(checkpoint(place, name, HALF)) == before
    run(train(name, "--auto_resume"), place)
    assert contents(checkpoint(place, name, WHOLE)) == contents(alone)


def test_a_tampered_checkpoint_is_passed_over(place: Path, alone: Path) -> None:
    name = "tampered"
    run(train(name, f"train.total_iter={HALF}"), place)
    file = checkpoint(place, name, HALF) / "optim.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)
    done = run(train(name, "--auto_resume"), place)
    assert "step_00000008 is not used: optim.safetensors does not match its sha256" in done.stderr
    assert "resumed from" in done.stderr and "step_00000004" in done.stderr
    assert contents(checkpoint(place, name, WHOLE)) == contents(alone)


def damage(file: Path) -> None:
    """Change a byte in the middle of an image, where only decoding it can tell."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


@pytest.mark.slow
def test_a_bad_image_on_one_rank_ends_the_job(place: Path, tmp_path: Path) -> None:
    """Its own error is shown, and no rank waits for the one that failed."""
    for part in ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X2"):
        (tmp_path / part).mkdir(parents=True)
        for file in (place / "datasets/demo/DIV2K" / part).iterdir():
            (tmp_path / part / file.name).write_bytes(file.read_bytes())
    bad = tmp_path / "DIV2K_train_HR/0005.png"
    damage(bad)
    sets = [
        f"datasets.train.dataroot_gt={tmp_path}/DIV2K_train_HR",
        f"datasets.train.dataroot_lq={tmp_path}/DIV2K_train_LR_bicubic/X2",
        "datasets.train.batch_size_per_gpu=1",
    ]
    begun = time.monotonic()
    done = run(on_ranks(2, train("bad", *sets)), place, expected=1)
    assert time.monotonic() - begun < QUICKLY
    shown = [line for line in done.stderr.splitlines() if "error[IMG" in line]
    assert shown and str(bad) in shown[0]


@pytest.mark.slow
def test_a_killed_rank_ends_the_job(place: Path) -> None:
    name = "widowed"
    words = on_ranks(2, train(name, "train.total_iter=100000"))
    process = start_until(words, place, checkpoint(place, name, 4))
    ranks = children(process.pid)
    os.kill(ranks[1], signal.SIGKILL)
    assert process.wait(QUICKLY) == 1
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_an_elastic_job_goes_on_to_the_same_bytes(place: Path, killed: int) -> None:
    """torchrun starts all ranks again when one is killed; they continue from the checkpoint."""
    if not checkpoint(place, "elastic", WHOLE).exists():
        run(on_ranks(2, train("elastic")), place)
    name, log = f"elastic-{killed}", place / f"elastic-{killed}.log"
    words = on_ranks(2, train(name, "--auto_resume"), "--standalone", "--max-restarts=3")
    process = start(words, place, log)
    wait_for(checkpoint(place, name, 4), process)
    os.kill(children(process.pid)[killed], signal.SIGKILL)
    assert process.wait(300) == 0, log.read_text()
    assert "resumed from" in log.read_text()
    ours, theirs = (checkpoint(place, n, WHOLE) for n in (name, "elastic"))
    assert contents(ours) == contents(theirs)


@pytest.mark.slow
def test_sharded_training_is_the_same_training(place: Path) -> None:
    """FSDP2 over MaIR's regions: DDP's weights, and checkpoints that either continues."""
    options = [
        "num_gpu=0", "network_g.embed_dim=12", "network_g.d_state=2", "datasets.train.gt_size=32",
        "datasets.train.batch_size_per_gpu=1", "train.global_batch=4", "train.scheduler=~",
        "train.ema_decay=0", "train.grad_clip=1.0", "val.val_freq=4", "train.total_iter=8",
        "logger.save_checkpoint_freq=4", "logger.use_tb_logger=false",
    ]  # fmt: skip
    sharded = "dist_params.strategy=fsdp2"

    def job(name: str, *more: str) -> Path:
        words = command("train.py", "train_MaIR_demo.yml", name, *options, *more)
        run(on_ranks(2, words), place)
        return checkpoint(place, name, 8)

    whole = job("ddp")
    job("resharded", "train.total_iter=4")
    moved = job("resharded", sharded, "--auto_resume")  # from DDP's checkpoint
    fsdp2 = job("fsdp2", sharded)
    shutil.copytree(fsdp2.parents[1], place / "experiments/back")
    shutil.rmtree(checkpoint(place, "back", 8))
    back = job("back", "--auto_resume")  # DDP from the sharded run's
    half = checkpoint(place, "ddp", 4)
    for file in ("model.safetensors", "optim.safetensors"):
        theirs = flat(whole / file)
        walked = np.abs(theirs - flat(half / file)).max()
        for ours in (moved, fsdp2, back):
            assert len(contents(ours)[file]) == len(contents(whole)[file])
            assert np.abs(flat(ours / file) - theirs).max() < 1e-3 * walked
    ours, theirs = (json.loads((f / "state.json").read_text()) for f in (fsdp2, whole))
    assert ours.pop("best")["psnr"] == pytest.approx(theirs.pop("best")["psnr"], abs=1e-3)
    assert ours == theirs


@pytest.mark.parametrize(
    "wrong", ["train.ema_decay=0.9", "train.precision=fp16", "train.compile=true"]
)
def test_what_does_not_go_with_shards(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = command("train.py", "train_SPAN_demo.yml", "refused", "train.ema_decay=0")
    sharded = ["dist_params.strategy=fsdp2", wrong]
    if wrong.startswith("train.ema_decay"):
        words.pop()
    assert main(["train", *words[2:], *sharded]) == 2
    assert "error[OPT38]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "kills"), [(1, 5), (2, 2)])
def test_killed_again_and_again(place: Path, ranks: int, kills: int) -> None:
    """scripts/soak.py, short: SIGKILL at random moments and in the middle of saves."""
    words = [str(ROOT / "scripts/soak.py"), f"--kills={kills}", f"--ranks={ranks}"]
    done = run([sys.executable, *words], place)
    assert f"{kills} kills on {ranks} rank(s)" in done.stdout
    assert "all equal, always loadable" in done.stdout


def test_restarts_that_get_no_further_end(tmp_path: Path) -> None:
    experiment = Experiment(str(tmp_path), "run")
    experiment.folder.mkdir()
    for step in (0, 0, 0, 4, 4, 4):
        experiment.note_restart(step)
    with pytest.raises(RunError, match=r"error\[RUN03\].*3 starts at step 4"):
        experiment.note_restart(4)


@pytest.mark.parametrize(
    "held", [b"", b"\0" * 30, b"\xff", b"[4, 3]", b'{"step": 4}', b'{"step": 4, "starts": "3"}']
)
def test_a_damaged_count_of_restarts_begins_anew(tmp_path: Path, held: bytes) -> None:
    experiment = Experiment(str(tmp_path), "run")
    experiment.folder.mkdir()
    (experiment.folder / "restarts.json").write_bytes(held)
    for _ in range(3):
        experiment.note_restart(4)
    with pytest.raises(RunError, match=r"error\[RUN03\]"):
        experiment.note_restart(4)


@pytest.mark.slow
def test_a_stopped_job_loses_no_step(place: Path) -> None:
    """SIGTERM to torchrun (pre-emption): all ranks save at one step and leave."""
    name, log = "stopped", place / "stopped.log"
    words = train(name, *NEVER)
    process = start(on_ranks(2, [*words, "--auto_resume"]), place, log)
    deadline = time.monotonic() + 240
    while "step 0: GT patches" not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(QUICKLY) != 0, "an unfinished job must not look finished"
    said = log.read_text()
    (saved,) = checkpoint(place, name, 0).parent.glob("step_*")
    assert f"stopped at step {int(saved.name[5:])} on request" in said
    assert fault_of(saved) is None
