"""Floor 5. The training loop: built objects in, a trained state and its checkpoints out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from restore import images
from restore.data.loader import Batch, Loader
from restore.data.stages import Stage
from restore.errors import RunError, SaveError
from restore.evaluation.evaluator import Evaluator, Provenance, Seen
from restore.evaluation.predictor import Predictor
from restore.losses.pixel import Loss, LossValue
from restore.reports.records import SetScore, summarise
from restore.reports.sinks import Sinks, progress
from restore.reports.tables import number
from restore.training.checkpoint import Checkpoints
from restore.training.mixing import Mixup
from restore.training.state import TrainState
from restore.training.stop import Stop
from restore.world import World

AGREE_EVERY = 10  # steps between the ranks' asking each other whether to stop
MISSED_SAVES = 3
log = logging.getLogger("restore")


@dataclass(frozen=True)
class Clock:
    """When things happen, in steps."""

    total: int
    print_every: int
    save_every: int
    validate_every: int | None

    def prints(self, step: int) -> bool:
        return step % self.print_every == 0 or step == self.total

    def saves(self, step: int) -> bool:
        return step % self.save_every == 0 or step == self.total

    def validates(self, step: int) -> bool:
        every = self.validate_every
        return every is not None and (step % every == 0 or step == self.total)


@dataclass(frozen=True)
class Pending:
    """A step whose loss has not been read yet."""

    step: int
    lr: float
    names: tuple[str, ...]
    loss: Tensor


class Trainer:
    """Runs `state` over `loader` until the clock's total, validating and saving on its word."""

    def __init__(
        self,
        state: TrainState,
        loader: Loader,
        loss: Loss,
        evaluators: Sequence[Evaluator],
        predictor: Callable[[nn.Module], Predictor],
        checkpoints: Checkpoints,
        sinks: Sinks,
        clock: Clock,
        world: World,
        *,
        mixup: Mixup | None = None,
        pictures: Path | None = None,
    ) -> None:
        self.state, self.loader, self.loss, self.clock = state, loader, loss, clock
        self._mixup = mixup
        self._stage: Stage | None = None
        self._evaluators, self._predictor = evaluators, predictor
        self._checkpoints, self._sinks, self._world = checkpoints, sinks, world
        self._pictures = pictures
        self._pending: list[Pending] = []
        self._missed = 0

    def step(self, batch: Batch) -> LossValue:
        """One batch: forward, loss, backward, update."""
        lq, gt = batch.to(self._world.device)
        if self._mixup is not None:
            lq, gt = self._mixup(lq, gt, self.state.step)
        step, lr = self.state.step + 1, self.state.lr
        loss = self.loss(self.state.forward(lq), gt)
        self.state.advance(loss.total, batch.end)
        self._pending.append(Pending(step, lr, batch.names, loss.total.detach()))
        return loss

    def run(self) -> bool:
        """Train to the end; False when a signal asked to stop (the state is then saved).

        Raises RunError when a loss is not finite, SaveError when saving failed three times,
        DataError for an image that cannot be used.
        """
        state, clock = self.state, self.clock
        with (
            Stop() as stop,
            progress(clock.total, state.step, "train", shown=self._world.first) as bar,
        ):
            self._validate_if_due()
            batches = self.loader.batches(state.step)
            waited, since, since_step = 0.0, time.perf_counter(), state.step
            while state.step < clock.total:
                self._announce_stage()
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                loss = self.step(batch)
                bar.update()
                if self._world.device.type == "cpu":
                    self._refuse_not_finite()
                if clock.prints(state.step):
                    self._refuse_not_finite()
                    elapsed = time.perf_counter() - since
                    rate = (state.step - since_step) / elapsed
                    values = self._log(loss, rate, waited / elapsed)
                    bar.set_postfix(values, refresh=False)
                    waited, since, since_step = 0.0, time.perf_counter(), state.step
                done = state.step == clock.total
                leaving = self._asked_to_stop(stop) and not done
                if not leaving:  # else the resumed run does it first
                    since += self._validate_if_due()
                if clock.saves(state.step) or leaving:
                    self._save(last=leaving or done)
                if leaving:
                    log.info("stopped at step %d on request; --auto_resume continues", state.step)
                    return False
            batches.close()
        return True

    def _announce_stage(self) -> None:
        stage = self.loader.stages.at(self.state.step)
        if stage is not self._stage:
            self._stage = stage
            log.info(
                "step %d: GT patches of %d, batch %d × %d rank(s)",
                self.state.step,
                stage.gt_size,
                stage.batch,
                self._world.size,
            )

    def _asked_to_stop(self, stop: Stop) -> bool:
        if self._world.size == 1:
            return stop.asked
        return self.state.step % AGREE_EVERY == 0 and self._world.any(stop.asked)

    def _log(self, loss: LossValue, rate: float, wait: float) -> dict[str, str]:
        values = {f"loss/{name}": float(part.detach()) for name, part in loss.parts.items()}
        total, lr = float(loss.total.detach()), self.state.schedule(self.state.step - 1)
        speed = {"lr": lr, "it_per_s": rate, "data_wait": wait}
        self._sinks.scalars(self.state.step, {"loss": total, **values, **speed})
        log.debug("step %d loss %.5g lr %.3g", self.state.step, total, lr)
        return {"loss": f"{total:.4f}", "lr": f"{lr:.2e}", "wait": f"{wait:.0%}"}

    def _refuse_not_finite(self) -> None:
        """Read the losses not read yet, and stop at the first that is no number."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        values = torch.stack([p.loss for p in pending]).tolist()
        for entry, value in zip(pending, values, strict=True):
            if not math.isfinite(value):
                raise RunError.of(
                    "RUN01",
                    "the loss is not finite",
                    f"step {entry.step}",
                    f"{value} at lr {entry.lr:.3g} on {', '.join(entry.names)}",
                    "a finite loss",
                    "lower train.optim_g.lr or set train.grad_clip (checkpoints are intact)",
                )

    def _validate_if_due(self) -> float:
        """Score the network on every validation set, once a due step; returns the seconds taken."""
        step = self.state.step
        if not step or not self.clock.validates(step) or self.state.validated == step:
            return 0.0
        start = time.perf_counter()
        self.state.validated = step
        predictor = self._predictor(self.state.evaluated)
        for place, evaluator in enumerate(self._evaluators):
            rows = evaluator.run(predictor, Provenance("", "", ""), self._show)
            score = summarise(rows)[0]
            if place == 0:
                self._note_best(score)
            self._report(score)
        self.state.network.train()
        return time.perf_counter() - start

    def _note_best(self, score: SetScore) -> None:
        if math.isnan(score.psnr):
            return
        if not self.state.best or score.psnr > self.state.best["psnr"]:
            self.state.best = {"step": self.state.step, "psnr": score.psnr, "ssim": score.ssim}
            self._save(best=True)

    def _report(self, score: SetScore) -> None:
        step = self.state.step
        self._sinks.scalars(
            step, {f"val/{score.set}/psnr": score.psnr, f"val/{score.set}/ssim": score.ssim}
        )
        log.info(
            "step %d  %s: PSNR %s dB, SSIM %s (%s); input %s dB",
            step,
            score.set,
            number(score.psnr, 2),
            number(score.ssim, 4),
            score.protocol,
            number(score.input_psnr, 2),
        )

    def _show(self, index: int, seen: Seen) -> None:
        if index == 0:
            self._sinks.image(self.state.step, f"{seen.set}/{seen.pair.name}", seen.restored)
        if self._pictures is not None:
            folder = self._pictures / seen.pair.name
            folder.mkdir(parents=True, exist_ok=True)
            images.write(folder / f"{seen.pair.name}_{self.state.step}.png", seen.restored)

    def _save(self, *, best: bool = False, last: bool = False) -> None:
        """Save on rank 0. A failed save is tried again at the next one, but not without end."""
        self._refuse_not_finite()
        if not self._world.first:
            return
        try:
            self._checkpoints.save(self.state.tensors(), self.state.numbers(), best=best)
            self._missed = 0
        except SaveError as error:
            self._missed += 1
            if last or self._missed >= MISSED_SAVES:
                raise
            log.error("%s\ntraining goes on; %d save(s) missed", error, self._missed)
