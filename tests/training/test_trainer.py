"""The loop on tiny objects: what it does when a save fails and when a loss is no number."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from restore.archs.architecture import SizeRule
from restore.data.loader import Loader
from restore.data.pair import ImagePair
from restore.data.source import Source
from restore.data.stages import Stages
from restore.errors import RunError, SaveError
from restore.evaluation.evaluator import Evaluator
from restore.evaluation.predictor import Predictor
from restore.losses.options import L1Loss
from restore.losses.pixel import Loss
from restore.metrics.protocols import PROTOCOLS
from restore.reports.sinks import Sinks
from restore.training.checkpoint import Checkpoints
from restore.training.clock import Clock, kept
from restore.training.options import OPTIMISERS
from restore.training.state import TrainState, build_optimiser
from restore.training.trainer import Trainer
from restore.training.writer import Writer
from restore.world import World


class Twins(Source):
    """Three 16×16 pairs at scale 1: LQ is GT, darker."""

    def __len__(self) -> int:
        return 3

    def name(self, index: int) -> str:
        return f"twin{index}"

    def files(self, index: int) -> tuple[Path, ...]:
        return ()

    def check(self, index: int) -> tuple[int, int]:
        return 16, 16

    def __getitem__(self, index: int) -> ImagePair:
        gt = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        return ImagePair(self.name(index), gt // 2, gt, 1)


class Collected:
    def __init__(self) -> None:
        self.values: list[tuple[int, dict[str, float]]] = []
        self.images: list[tuple[int, str]] = []
        self.shown: list[np.ndarray] = []

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.values.append((step, dict(values)))

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        self.shown.append(image)
        self.images.append((step, name))

    def close(self) -> None: ...


def trainer(
    folder: Path,
    network: nn.Module,
    sink: Collected,
    clock: Clock,
    skip: bool = False,
    ema: float = 0.0,
) -> Trainer:
    world, source = World(), Twins()
    options = OPTIMISERS["SGD"].model_validate({"type": "SGD", "lr": 0.5})
    state = TrainState(
        network,
        build_optimiser(options, network),
        lambda step: 0.5,
        ema_decay=ema,
        grad_clip=None,
        seed=0,
        world=world,
        skip_nonfinite=skip,
    )
    predictor: Callable[[nn.Module], Predictor] = lambda net: Predictor(net, 1, SizeRule())  # noqa: E731
    return Trainer(
        state,
        Loader(source, Stages.single(2, 8), hflip=True, rot=True, seed=0),
        Loss({"pixel": L1Loss()}),
        [Evaluator("twins", source, [(PROTOCOLS["rgb"], 0)], world)],
        predictor,
        Writer(Checkpoints(folder, 2, {})),
        Sinks([sink]),
        clock,
        world,
    )


def brighter() -> nn.Module:
    """One convolution that begins as the identity; the best it can learn is to double."""
    layer = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.dirac_(layer.weight)
    return layer


def test_it_trains_validates_and_keeps_the_best(tmp_path: Path) -> None:
    sink = Collected()
    run = trainer(tmp_path, brighter(), sink, Clock(30, 10, 15, 10))
    assert run.run() and run.state.step == 30 and run.state.samples == 60
    losses = [v["loss"] for _, v in sink.values if "loss" in v]
    scores = [v["val/twins/psnr"] for _, v in sink.values if "val/twins/psnr" in v]
    assert [s for s, v in sink.values if "loss" in v] == [10, 20, 30]
    assert losses[-1] < losses[0] and scores[-1] > scores[0] > 10
    assert sink.images == [(step, "twins/twin0") for step in (10, 20, 30)]
    assert {(image.dtype.name, image.shape) for image in sink.shown} == {("uint8", (16, 16, 3))}
    assert run.state.best["psnr"] == max(scores)
    assert run.state.network.training  # validation gives the network back as it was
    waits = [v["data_wait"] for _, v in sink.values if "data_wait" in v]
    assert all(0 <= wait <= 1 for wait in waits)


def test_the_first_bad_step_is_named(tmp_path: Path) -> None:
    class Poisoned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.calls = brighter(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.layer(x) * (float("nan") if self.calls == 7 else 1.0)

    run = trainer(tmp_path, Poisoned(), Collected(), Clock(30, 10, 5, None))
    with pytest.raises(RunError) as caught:
        run.run()
    text = str(caught.value)
    assert text.startswith(
        "error[RUN01]: the loss is not finite (step 7): got nan at lr 0.5 on twin"
    )
    assert caught.value.exit_code == 3
    checkpoints = Checkpoints(tmp_path, 2, {})
    assert checkpoints.steps() == [5]
    assert checkpoints.load_newest() is not None


def test_the_logs_of_a_long_run_stay_small() -> None:
    """A week of 3 million steps, each of which is to be reported, and a validation every 5,000."""
    steps = 3_000_000
    clock = Clock(steps, 1, 5000, 5000)
    reports = [step for step in range(1, steps + 1) if clock.prints(step)]
    assert reports[:50_000] == list(range(1, 50_001))
    assert len(reports) < 50_000 + 6 * 25_000 and reports[-1] == steps
    assert max(b - a for a, b in pairwise(reports)) == 64
    pictures = [step for step in range(5000, steps + 1, 5000) if clock.shows(step)]
    assert pictures[:50] == list(range(5000, 250_001, 5000)) and len(pictures) < 50 + 4 * 25
    usual = Clock(steps, 100, 5000, 5000)
    assert all(usual.prints(step) for step in range(100, steps + 1, 100))


@given(number=st.integers(1, 10**12), most=st.integers(2, 10**5).map(lambda n: 2 * n))
def test_what_a_log_keeps_thins_out_by_halves(number: int, most: int) -> None:
    assert kept(number, most) or number > most
    stride = 1
    while number > most * stride:
        stride *= 2
    assert kept(number, most) == (number % stride == 0)


def test_logs_show_the_middle_of_a_large_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore.training.trainer.PICTURE", 8)
    sink = Collected()
    run = trainer(tmp_path, brighter(), sink, Clock(10, 10, 15, 10))
    assert run.run()
    assert [image.shape for image in sink.shown] == [(8, 8, 3)]


def test_missed_saves_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = trainer(tmp_path, brighter(), Collected(), Clock(30, 10, 2, None))
    save, calls = Checkpoints.save, []

    def failing(self: Checkpoints, tensors, numbers, *, best: bool) -> Path:
        calls.append(numbers["step"])
        if numbers["step"] in (2, 4, 8, 10, 12):
            raise SaveError.of(
                "CKP04", "checkpoint could not be saved", "x", "full", "room", "free it"
            )
        return save(self, tensors, numbers, best=best)

    monkeypatch.setattr(Checkpoints, "save", failing)
    with pytest.raises(SaveError) as caught:
        run.run()
    assert calls == [2, 4, 6, 8, 10, 12] and caught.value.exit_code == 4
    assert caplog.text.count("training goes on") == 4
    assert Checkpoints(tmp_path, 2, {}).steps() == [6]


def test_a_failing_last_save_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path, brighter(), Collected(), Clock(3, 10, 100, None))

    def failing(*_: object, **__: object) -> Path:
        raise SaveError.of("CKP04", "checkpoint could not be saved", "x", "full", "room", "free it")

    monkeypatch.setattr(Checkpoints, "save", failing)
    with pytest.raises(SaveError):
        run.run()


def test_steps_without_a_finite_gradient_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Poisoned(nn.Module):
        def __init__(self, bad: range) -> None:
            super().__init__()
            self.layer, self.calls, self.bad = brighter(), 0, bad

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.layer(x) * (float("inf") if self.calls in self.bad else 1.0)

    run = trainer(tmp_path, Poisoned(range(7, 9)), Collected(), Clock(30, 10, 5, None), skip=True)
    assert run.run() and run.state.skipped == 2
    assert caplog.text.count("left out: twin") == 2
    assert all(p.isfinite().all() for p in run.state.network.parameters())
    poisoned, clock = Poisoned(range(3, 99)), Clock(30, 10, 5, None)
    endless = trainer(tmp_path, poisoned, Collected(), clock, skip=True)
    with pytest.raises(RunError, match=r"error\[RUN02\].*step 13.*11 steps left out in a row"):
        endless.run()


def test_a_signal_saves_and_training_goes_on(tmp_path: Path) -> None:
    class Signalling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.calls = brighter(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls == 7:
                os.kill(os.getpid(), signal.SIGUSR1)
            return self.layer(x)

    run = trainer(tmp_path, Signalling(), Collected(), Clock(30, 10, 100, None))
    assert run.run()
    assert Checkpoints(tmp_path, 2, {}).steps() == [7, 30]
