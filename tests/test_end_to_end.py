"""The real commands on the demo set: train, kill, resume, test; the same bytes as undisturbed."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from restore import images
from restore.commands.main import main

import runs
from runs import command, contents, run, start_until

STEPS = 20
SMALL = (
    f"train.total_iter={STEPS} train.scheduler.periods=[{STEPS}] network_g.feature_channels=8 "
    "datasets.train.gt_size=32 datasets.train.batch_size_per_gpu=4 val.val_freq=10 "
    "logger.save_checkpoint_freq=5 logger.print_freq=5 num_gpu=0"
)


def train(name: str, *more: str) -> list[str]:
    return command("train.py", "train_SPAN_demo.yml", name, *SMALL.split(), *more)


def checkpoint(place: Path, name: str, step: int = STEPS) -> Path:
    return runs.checkpoint(place, name, step)


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> Path:
    run(train("undisturbed"), place)
    return checkpoint(place, "undisturbed")


def test_a_run_leaves_what_it_promises(place: Path, undisturbed: Path) -> None:
    folder = place / "experiments/undisturbed"
    names = {"checkpoints", "log.jsonl", "options.yml", "run.json", "tb_logger", "train.log"}
    assert {f.name for f in folder.iterdir()} == names
    about = json.loads((folder / "run.json").read_text())
    assert about["versions"]["torch"] and "commit" in about
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if "loss" in x] == [5, 10, 15, 20]
    assert [x["step"] for x in lines if "val/demo-val/psnr" in x] == [10, 20]
    assert all(x["lr"] > 0 and x["it_per_s"] > 0 for x in lines if "loss" in x)
    assert (
        main(["check", str(folder / "options.yml")]) == 0
    )  # the resolved options are a file again
    state = json.loads((undisturbed / "state.json").read_text())
    assert state["step"] == STEPS and state["samples"] == STEPS * 4
    events = EventAccumulator(str(folder / "tb_logger")).Reload()
    assert [e.step for e in events.Scalars("loss/pixel")] == [5, 10, 15, 20]
    assert [e.step for e in events.Images("demo-val/0801")] == [10, 20]


def test_kill_and_resume_give_the_same_bytes(place: Path, undisturbed: Path) -> None:
    process = start_until(train("killed"), place, checkpoint(place, "killed", 5))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not checkpoint(place, "killed").exists()
    done = run(train("killed", "--auto_resume"), place)
    assert "resumed from" in done.stderr
    assert contents(checkpoint(place, "killed")) == contents(undisturbed)
    again = run(train("killed", "--auto_resume"), place)
    assert f"already at step {STEPS} of {STEPS}" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_leaves(place: Path, undisturbed: Path, number: signal.Signals) -> None:
    name = f"stopped-{number.name}"
    # no regular save before the end: what is resumed from is what the signal saved
    words = train(name, "logger.save_checkpoint_freq=1000", "val.val_freq=1000")
    story = place / "experiments" / name / "train.log"
    process = start_until(words, place, story)
    while "GT patches of" not in story.read_text():  # said when the first step begins
        time.sleep(0.001)
    process.send_signal(number)
    assert process.wait(60) in (0, 75)
    if process.returncode == 75:
        steps = [int(f.name[5:]) for f in checkpoint(place, name).parent.glob("step_*")]
        assert len(steps) == 1 and 0 < steps[0] < STEPS
    run([*words, "--auto_resume"], place)
    ours, theirs = contents(checkpoint(place, name)), contents(undisturbed)
    for file in ("model.safetensors", "ema.safetensors", "optim.safetensors"):
        assert ours[file] == theirs[file]


def test_an_existing_run_is_not_touched(place: Path, undisturbed: Path) -> None:
    before = contents(undisturbed)
    done = run(train("undisturbed"), place, expected=2)
    assert done.stderr.startswith("error[OPT22]: an experiment of this name exists")
    assert "Traceback" not in done.stderr and contents(undisturbed) == before


def test_loss_that_is_not_finite_stops_the_run(place: Path) -> None:
    words = train("infinite", "train.optim_g.lr=1e30", "train.scheduler=~")
    done = run(words, place, expected=3)
    assert "error[RUN01]: the loss is not finite (step " in done.stderr
    assert "at lr 1e+30 on 000" in done.stderr and "Traceback" not in done.stderr


def test_torchrun_trains_the_same_batch(place: Path) -> None:
    sgd = ["train.optim_g={type: SGD, lr: 1e-9}", "train.ema_decay=0", "val.val_freq=1000"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    half = "datasets.train.batch_size_per_gpu=2"
    for name in ("ranks", "ranks-again"):
        run([*launch, *train(name, *sgd, half)[1:], "--launcher", "pytorch"], place)
    run(train("one-rank", *sgd), place)
    ranks, one = checkpoint(place, "ranks"), checkpoint(place, "one-rank")
    assert contents(ranks) == contents(checkpoint(place, "ranks-again"))
    numbers = [json.loads((folder / "state.json").read_text()) for folder in (ranks, one)]
    # gradients are summed in another order, so a pixel of the validation may round the other way
    bests = [found.pop("best") for found in numbers]
    assert [found.pop("ranks") for found in numbers] == [2, 1]
    assert numbers[0] == numbers[1] and bests[0] == pytest.approx(bests[1], rel=1e-6)
    ours, theirs, start = (
        flat(folder / "model.safetensors")
        for folder in (ranks, one, checkpoint(place, "one-rank", 10))
    )
    moved = (theirs - start).abs().max()
    assert moved > 0 and (ours - theirs).abs().max() < 1e-2 * moved


def flat(file: Path) -> torch.Tensor:
    return torch.cat([v.double().flatten() for v in load_file(file).values()])


def test_the_tested_run_has_its_numbers_and_page(place: Path, undisturbed: Path) -> None:
    words = command("test.py", "test_SPAN_demo.yml", "tested", "network_g.feature_channels=8")
    done = run([*words, "path.pretrain_network_g=experiments/undisturbed", "num_gpu=0"], place)
    assert "DemoTest" in done.stdout and "sr-y" in done.stdout
    results = place / "experiments/tested/results"
    summary = json.loads((results / "summary.json").read_text())
    score = summary["sets"]["DemoTest"]
    assert score["protocol"] == "sr-y@1" and score["images"] == 2
    rows = [json.loads(line) for line in (results / "rows.jsonl").read_text().splitlines()]
    assert score["psnr"] == pytest.approx(sum(r["psnr"] for r in rows) / 2, abs=1e-12)
    assert len((results / "rows.csv").read_text().splitlines()) == 3
    saved = {f.name for f in (results / "visualization/DemoTest").iterdir()}
    assert saved == {"chelsea_tested.png", "motorcycle_left_tested.png"}
    page = (results / "report/index.html").read_text()
    assert "motorcycle_left" in page and "http" + "://" not in page
    for picture in ("00000_gt.png", "00001_lq.png", "00001_baseline.png", "00000_restored.png"):
        assert (results / "report/images/01" / picture).is_file()
    scored = run(
        [sys.executable, "-m", "restore.commands", "score", "--border", "2", "--json",
         str(results / "visualization/DemoTest"), "datasets/demo/benchmark/DemoTest/HR"],
        place,
    )  # fmt: skip
    assert json.loads(scored.stdout)["psnr"] == pytest.approx(score["psnr"], abs=1e-12)


def test_any_number_of_ranks_gives_the_same_digits(place: Path, undisturbed: Path) -> None:
    options = ["network_g.feature_channels=8", "path.pretrain_network_g=experiments/undisturbed"]
    options += ["val.protocol=vdsr-y", "num_gpu=0"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    run(command("test.py", "test_SPAN_demo.yml", "alone", *options), place)
    ranks = command("test.py", "test_SPAN_demo.yml", "shared", *options)
    done = run([*launch, *ranks[1:], "--launcher", "pytorch"], place)
    assert done.stdout.count("DemoTest") == 1
    one, three = (
        json.loads((place / "experiments" / name / "results/summary.json").read_text())["sets"]
        for name in ("alone", "shared")
    )
    assert one == three and one["DemoTest"]["protocol"] == "vdsr-y@1"
    pictures = place / "experiments/shared/results/report/images/01"
    assert len(list(pictures.iterdir())) == 10  # four layers and a thumbnail each


@pytest.mark.browser
def test_the_page_opens_in_a_browser(place: Path, undisturbed: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    words = command("test.py", "test_SPAN_demo.yml", "seen", "network_g.feature_channels=8")
    run([*words, "path.pretrain_network_g=experiments/undisturbed", "num_gpu=0"], place)
    page_file = place / "experiments/seen/results/report/index.html"
    faults: list[str] = []
    with playwright.sync_playwright() as p:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = p.chromium.launch(executable_path=browser, args=flags)
        page = chromium.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("requestfailed", lambda request: faults.append(request.url))
        page.goto(page_file.as_uri())
        page.get_by_text("chelsea").first.click()
        loaded = page.evaluate("[...document.images].every(i => !i.complete || i.naturalWidth > 0)")
        assert loaded and page.get_by_role("slider").is_visible()
        chromium.close()
    assert faults == []


@pytest.mark.parametrize(
    ("assignment", "code"),
    [
        ("datasets.train.dataroot_gt=nowhere", "DAT02"),
        ("datasets.val.dataroot_lq=nowhere", "DAT02"),
        ("path.pretrain_network_g=nowhere.pth", "WGT05"),
        ("num_gpu=8", "DEV01"),
        ("datasets.train.filename_tmpl={}x3", "DAT05"),
        ("datasets.train.gt_size=480", "DAT07"),
    ],
)
def test_bad_input_writes_nothing(place: Path, assignment: str, code: str) -> None:
    done = run(train("refused", assignment), place, expected=2)
    assert done.stderr.count("error[") == 1 and f"error[{code}]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "experiments/refused").exists()


def broken_sets(place: Path, folder: Path) -> Path:
    """A copy of the demo's training pairs at ×2, to be broken."""
    for kind in ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X2"):
        shutil.copytree(place / "datasets/demo/DIV2K" / kind, folder / kind)
    return folder


def lone_lq(hr: Path) -> None:
    hr.unlink()


def empty_folder(hr: Path) -> None:
    for file in hr.parent.iterdir():
        file.unlink()


def truncated(hr: Path) -> None:
    hr.write_bytes(hr.read_bytes()[:-200])


def zero_bytes(hr: Path) -> None:
    hr.write_bytes(b"")


def text_named_png(hr: Path) -> None:
    hr.write_text("no picture at all\n")


def transparent(hr: Path) -> None:
    image = images.read(hr)
    Image.fromarray(np.dstack([image, np.full(image.shape[:2], 9, np.uint8)])).save(hr)


def wrong_size(hr: Path) -> None:
    images.write(hr, images.read(hr)[:-2])


@pytest.mark.parametrize(
    ("breaking", "code"),
    [
        (lone_lq, "DAT05"), (empty_folder, "DAT03"), (truncated, "IMG03"), (zero_bytes, "IMG01"),
        (text_named_png, "IMG02"), (transparent, "IMG06"), (wrong_size, "DAT06"),
    ],
)  # fmt: skip
def test_broken_training_images(
    place: Path, tmp_path: Path, breaking: Callable[[Path], None], code: str
) -> None:
    root = broken_sets(place, tmp_path)
    breaking(root / "DIV2K_train_HR/0005.png")
    sets = f"datasets.train.dataroot_gt={root}/DIV2K_train_HR"
    done = run(
        train("broken", sets, f"datasets.train.dataroot_lq={root}/DIV2K_train_LR_bicubic/X2"),
        place,
        expected=2,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("error[")]
    assert len(lines) == 1 and lines[0].startswith(f"error[{code}]: ") and "; fix: " in lines[0]
    assert str(root) in lines[0] and "Traceback" not in done.stderr
    assert not (place / "experiments/broken").exists()


def test_sixteen_bit_training_images(place: Path, tmp_path: Path) -> None:
    root = broken_sets(place, tmp_path)
    for file in sorted(root.rglob("*.png"))[::2]:  # some of them, beside 8-bit ones
        images.write(file, images.read(file).astype(np.uint16) * 257)
    sets = f"datasets.train.dataroot_gt={root}/DIV2K_train_HR"
    lq = f"datasets.train.dataroot_lq={root}/DIV2K_train_LR_bicubic/X2"
    run(train("sixteen", sets, lq), place)
    assert checkpoint(place, "sixteen").exists()


def demo(options: str, name: str, *more: str) -> list[str]:
    return command("train.py", options, name, "num_gpu=0", "logger.print_freq=20", *more)


def validation(place: Path, name: str) -> list[float]:
    """The validation PSNRs of a run, in order."""
    log = (place / "experiments" / name / "log.jsonl").read_text().splitlines()
    values = [json.loads(line) for line in log]
    return [v for x in values for key, v in x.items() if key.endswith("/psnr")]


STAGED = (
    "datasets.train.iters=[8,7,5] datasets.train.gt_sizes=[32,48,64] "
    "datasets.train.mini_batch_sizes=[3,2,1] train.total_iter=20 train.scheduler=~ "
    "val.val_freq=10 logger.save_checkpoint_freq=3"
)


@pytest.mark.parametrize("killed_at", [6, 9])
def test_resume_across_a_change_of_stage(place: Path, killed_at: int) -> None:
    """Killed in the first and in the middle of the second stage; with mixup and clipping."""
    words = ["train_MIRNet_v2_demo.yml", *STAGED.split()]
    whole = checkpoint(place, "stages-whole")
    if not whole.exists():
        run(demo(words[0], "stages-whole", *words[1:]), place)
    name = f"stages-{killed_at}"
    process = start_until(
        demo(words[0], name, *words[1:]), place, checkpoint(place, name, killed_at)
    )
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = run(demo(words[0], name, *words[1:], "--auto_resume"), place)
    assert "resumed from" in done.stderr and "GT patches of 64, batch 1 × 1" in done.stderr
    assert contents(checkpoint(place, name)) == contents(whole)
    state = json.loads((whole / "state.json").read_text())
    assert state["samples"] == 8 * 3 + 7 * 2 + 5 * 1


def test_ranks_change_stage_at_the_same_step(place: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = demo("train_MIRNet_v2_demo.yml", "stages-ranks", *STAGED.split())
    done = run([*launch, *words[1:], "--launcher", "pytorch"], place)
    assert "step 8: GT patches of 48, batch 2 × 2 rank(s)" in done.stderr
    state = json.loads((checkpoint(place, "stages-ranks") / "state.json").read_text())
    assert state["samples"] == 2 * (8 * 3 + 7 * 2 + 5 * 1)


RISING = {
    "MIRNet_v2": ("train_MIRNet_v2_demo.yml", 120, 3.0, ["datasets.train.iters=[60,40,20]"]),
    "MIMOUNet": ("train_MIMOUNet_demo.yml", 160, 0.02, []),
    "MIMOUNetPlusCFA": (
        "train_MIMOUNet_demo.yml",
        320,
        0.02,
        ["network_g={type: MIMOUNetPlusCFA, num_res: 1, widths: [16, 24, 32]}"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", list(RISING))
def test_a_short_run_rises_above_its_input(place: Path, family: str) -> None:
    options, steps, gain, more = RISING[family]
    words = [f"train.total_iter={steps}", f"train.scheduler.periods=[{steps}]"]
    if family == "MIRNet_v2":
        words[1] = f"train.scheduler.periods=[{steps // 2},{steps // 2}]"
    done = run(demo(options, f"short-{family}", *words, f"val.val_freq={steps // 2}", *more), place)
    scores = validation(place, f"short-{family}")
    before = float(done.stderr.split("input ")[1].split(" dB")[0])
    assert len(scores) == 2 and scores[1] > scores[0] and scores[1] > before + gain


def test_dual_pixel_sixteen_bit(place: Path, tmp_path: Path) -> None:
    """The dual-pixel recipe, small: six 16-bit channels through training, testing and the page."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("a", "b"):
            smooth = rng.integers(0, 65536, (16, 20, 3), dtype=np.uint16)
            sharp = smooth.repeat(4, 0).repeat(4, 1)
            ends = "_crops" if part == "train" else ""
            views = {f"target{ends}": 0, f"inputL{ends}": 2, f"inputR{ends}": -2}
            for folder, shift in views.items():
                (tmp_path / part / folder).mkdir(parents=True, exist_ok=True)
                images.write(tmp_path / part / folder / f"{name}.png", np.roll(sharp, shift, 1))
    sets = [
        f"datasets.{key}.{root}={tmp_path}/{part}/{folder}{ends}"
        for key, part, ends in (("train", "train", "_crops"), ("val", "test", ""))
        for root, folder in (
            ("dataroot_gt", "target"), ("dataroot_lqL", "inputL"), ("dataroot_lqR", "inputR"),
        )
    ]  # fmt: skip
    small = ["network_g.n_feat=16", "network_g.n_MRB=1", "num_gpu=0"]
    options = "train_MIRNet_v2_DefocusDualPixel.yml"
    stages = ["datasets.train.iters=[2,2]", "datasets.train.gt_sizes=[32,48]"]
    stages += ["datasets.train.mini_batch_sizes=[2,1]", "train.total_iter=4"]
    stages += ["train.scheduler=~", "val.val_freq=4"]
    run(command("train.py", options, "dual", *small, *sets, *stages), place)
    tests = [s.replace("datasets.val", "datasets.test_1") for s in sets if "val" in s]
    weights = "path.pretrain_network_g=experiments/dual"
    options = "test_MIRNet_v2_DefocusDualPixel.yml"
    run(command("test.py", options, "dual-test", *small, *tests, weights), place)
    results = place / "experiments/dual-test/results"
    assert json.loads((results / "summary.json").read_text())["sets"]["DPDD"]["images"] == 2
    shown = images.read(results / "report/images/01/00000_baseline.png")
    assert shown.shape == (64, 80, 3) and shown.dtype == np.uint16
    assert images.read(next((results / "visualization/DPDD").iterdir())).dtype == np.uint16
