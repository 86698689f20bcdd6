"""Floor 5. The training loop: built objects in, a trained state and its checkpoints out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from restore import images
from restore.data.loader import Batch, Loader
from restore.data.stages import Stage
from restore.errors import RunError
from restore.evaluation.evaluator import Evaluator, Provenance, Seen
from restore.evaluation.predictor import Predictor
from restore.losses.pixel import Loss, LossValue
from restore.reports.records import SetScore, summarise
from restore.reports.sinks import Sinks, progress
from restore.reports.tables import number
from restore.training.clock import Clock
from restore.training.computation import not_compiled
from restore.training.mixing import Mixup
from restore.training.state import TrainState
from restore.training.stop import Stop
from restore.training.writer import Writer
from restore.world import World

AGREE_EVERY = 10  # steps between the ranks' asking each other whether to stop
MISSED_SAVES = 3
PICTURE = 256  # side of what a log shows of an image, cut from its middle
log = logging.getLogger("restore")


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
        writer: Writer,
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
        self._writer, self._sinks, self._world = writer, sinks, world
        self._pictures = pictures
        self._pending: list[Pending] = []
        self._missed = 0
        self._waited = 0.0
        self._rehearsed = world.size == 1

    def step(self, batches: Iterator[Batch]) -> LossValue:
        """One update from the next batches, one a part of the step; the last part's loss."""
        parts = [self._part(self._next(batches), index) for index in range(self.loader.parts)]
        self.state.advance(self.loader.position(self.state.step + 1))
        return parts[-1]

    def _part(self, batch: Batch, index: int) -> LossValue:
        """Forward, loss, backward of one batch."""
        state, parts = self.state, self.loader.parts
        lq, gt = batch.to(self._world.device)
        if self._mixup is not None:
            lq, gt = self._mixup(lq, gt, state.step * parts + index)
        if not self._rehearsed:
            self._rehearsed = True
            state.rehearse(lambda: self.loss(state.forward(lq), gt).total)
        with state.part(index, parts):
            loss = self.loss(state.forward(lq), gt)
            state.backward(loss.total / parts)
        found = loss.total.detach()
        self._pending.append(Pending(state.step + 1, state.lr, batch.names, found))
        return loss

    def _next(self, batches: Iterator[Batch]) -> Batch:
        asked = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - asked
        return batch

    def run(self) -> bool:
        """Train to the end; False when a signal asked to stop (the state is then saved).

        Raises RunError when a loss is not finite, SaveError when saving failed three times,
        DataError for an image that cannot be used.
        """
        state, clock = self.state, self.clock
        with (
            Stop(watched=self._world.size > 1) as stop,
            progress(clock.total, state.step, "train", shown=self._world.first) as bar,
            self._writer,
        ):
            self._validate_if_due()
            batches = self.loader.batches(state.step)
            since, since_step = self._restart_clock()
            while state.step < clock.total:
                self._announce_stage()
                loss = self.step(batches)
                bar.update()
                if self._world.device.type == "cpu":
                    self._refuse_not_finite()
                if clock.prints(state.step):
                    self._refuse_not_finite()
                    elapsed = time.perf_counter() - since
                    rate = (state.step - since_step) / elapsed
                    values = self._log(loss, rate, self._waited / elapsed)
                    bar.set_postfix(values, refresh=False)
                    since, since_step = self._restart_clock()
                done = state.step == clock.total
                asked, save = self._asked(stop)
                leaving = asked and not done
                if not leaving:  # else the resumed run does it first
                    since += self._validate_if_due()
                if clock.saves(state.step) or leaving or save:
                    self._save(last=leaving or done)
                if leaving:
                    log.info("stopped at step %d on request; --auto_resume continues", state.step)
                    return False
            batches.close()
        return True

    def _restart_clock(self) -> tuple[float, int]:
        """The time and step from which speed is counted anew."""
        self._waited = 0.0
        return time.perf_counter(), self.state.step

    def _announce_stage(self) -> None:
        stage = self.loader.stages.at(self.state.step)
        if stage is not self._stage:
            self._stage = stage
            log.info(
                "step %d: GT patches of %d, batch %d × %d rank(s)%s = %d",
                self.state.step,
                stage.gt_size,
                self.loader.share.size(stage),
                self._world.size,
                f" × {self.loader.parts} part(s)" if self.loader.parts > 1 else "",
                stage.batch * self.loader.share.recipe_ranks,
            )

    def _asked(self, stop: Stop) -> tuple[bool, bool]:
        """Whether a signal, on any rank, asked to stop and whether one asked to save."""
        if self._world.size > 1 and self.state.step % AGREE_EVERY:
            return False, False
        save, stop.save_asked = stop.save_asked, False
        return self._world.any(stop.asked), self._world.any(save)

    def _log(self, loss: LossValue, rate: float, wait: float) -> dict[str, str]:
        values = {f"loss/{name}": float(part.detach()) for name, part in loss.parts.items()}
        total, lr = float(loss.total.detach()), self.state.schedule(self.state.step - 1)
        speed = {"lr": lr, "it_per_s": rate, "data_wait": wait}
        self._sinks.scalars(self.state.step, {"loss": total, **values, **speed})
        log.debug("step %d loss %.5g lr %.3g", self.state.step, total, lr)
        return {"loss": f"{total:.4f}", "lr": f"{lr:.2e}", "wait": f"{wait:.0%}"}

    def _refuse_not_finite(self) -> None:
        """Read the losses not read yet, and stop at the first that is no number.

        Where such steps are left out, name it instead.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        values = torch.stack([p.loss for p in pending]).tolist()
        for entry, value in zip(pending, values, strict=True):
            if math.isfinite(value):
                continue
            if self.state.skips_nonfinite:
                log.warning("step %d left out: %s", entry.step, ", ".join(entry.names))
            else:
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
            with not_compiled():
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
        figures = {"psnr": score.psnr, "ssim": score.ssim, **score.further}
        self._sinks.scalars(step, {f"val/{score.set}/{key}": v for key, v in figures.items()})
        own = "".join(f", {key} {number(value, 4)}" for key, value in score.further.items())
        log.info(
            "step %d  %s: PSNR %s dB, SSIM %s (%s)%s; input %s dB",
            step,
            score.set,
            number(score.psnr, 2),
            number(score.ssim, 4),
            score.protocol,
            own,
            number(score.input_psnr, 2),
        )

    def _show(self, index: int, seen: Seen) -> None:
        if index == 0 and self.clock.shows(self.state.step):
            name = f"{seen.set}/{seen.pair.name}"
            self._sinks.image(self.state.step, name, _middle(seen.restored))
        if self._pictures is not None:
            folder = self._pictures / seen.pair.name
            folder.mkdir(parents=True, exist_ok=True)
            images.write(folder / f"{seen.pair.name}_{self.state.step}.png", seen.restored)

    def _save(self, *, best: bool = False, last: bool = False) -> None:
        """Begin to save on rank 0; the `last` one is waited for."""
        self._refuse_not_finite()
        tensors = self.state.tensors() if self._world.first or self.state.sharded else {}
        if not self._world.first:
            return
        self._note_outcome(last=False)
        self._writer.start(tensors, self.state.numbers(), best=best)
        if last:
            self._note_outcome(last=True)

    def _note_outcome(self, *, last: bool) -> None:
        """A failed save is made good by the next one, but not without end. Raises SaveError."""
        error = self._writer.wait()
        if error is None:
            self._missed = 0
            return
        self._missed += 1
        if last or self._missed >= MISSED_SAVES:
            raise error
        log.error("%s\ntraining goes on; %d save(s) missed", error, self._missed)


def _middle(image: np.ndarray) -> np.ndarray:
    """At most PICTURE × PICTURE pixels of an image, from its middle."""
    top, left = (max(0, (side - PICTURE) // 2) for side in image.shape[:2])
    return image[top : top + PICTURE, left : left + PICTURE]
