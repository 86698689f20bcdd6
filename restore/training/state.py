"""Floor 5. All that changes while training: network, average, optimiser, step, samples, best score.

Random numbers are not part of it: samples draw from (seed, epoch, index) and each part of a step
reseeds torch from (seed, step, rank, part), so a state restored at a step continues with the same
bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from restore.errors import CheckpointError, RunError
from restore.section import Section
from restore.training.computation import Computation
from restore.training.schedule import Schedule
from restore.world import World

FUSED = {"Adam", "AdamW", "SGD", "Adagrad"}
FUSED_IN_SHARES = {"Adam", "AdamW"}  # torch 2.13 has no fused SGD or Adagrad for FSDP2
SKIPPED_IN_A_ROW = 10


def build_optimiser(options: Section, network: nn.Module) -> torch.optim.Optimizer:
    """The `torch.optim` optimiser that `options` name, over the trainable parameters."""
    values = options.model_dump(exclude_none=True)
    kind = values.pop("type")
    parameters = [p for p in network.parameters() if p.requires_grad]
    in_shares = any(hasattr(p, "full_tensor") for p in parameters)
    if kind in (FUSED_IN_SHARES if in_shares else FUSED) and not values.get("amsgrad"):
        values["fused"] = True  # one kernel for all parameters, also on the CPU
    return getattr(torch.optim, kind)(parameters, **values)


class TrainState:
    """What a checkpoint holds, and the one operation that changes it (`advance`).

    A step is one or more parts, whose gradients add up:

        with state.part(k, parts):
            loss = …(state.forward(lq))
            state.backward(loss / parts)
        state.advance(samples)
    """

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        schedule: Schedule,
        *,
        ema_decay: float,
        grad_clip: float | None,
        seed: int,
        world: World,
        computation: Computation = Computation(),  # noqa: B008 (frozen)
        skip_nonfinite: bool = False,
        twin: nn.Module | None = None,
    ) -> None:
        """`twin`: a whole network like `network`, to score, where that is dealt out over ranks."""
        self.network, self.optimiser, self.schedule = network, optimiser, schedule
        self.ema = copy.deepcopy(network).eval().requires_grad_(False) if ema_decay else None
        self.step = 0
        self.samples = 0
        self.skipped = 0
        self.validated = 0
        self.best: dict[str, float] = {}
        self._decay, self._clip = ema_decay, grad_clip
        self._seed, self.world, self._twin = seed, world, twin
        self._computation, self._scaler = computation, computation.scaler(world.device)
        self.skips_nonfinite, self._skips_in_a_row = skip_nonfinite, 0
        computation.prepare(network)
        self._wrapped = world.wrap(network)

    @property
    def lr(self) -> float:
        """The rate of the step at hand."""
        return self.schedule(self.step)

    @property
    def sharded(self) -> bool:
        """Whether each rank holds a share of the network: all of them are needed for the whole."""
        return self._twin is not None

    @property
    def evaluated(self) -> nn.Module:
        """The network to validate and to publish: the average where there is one.

        Where it is sharded, the twin with its weights; asked for by all ranks.
        """
        if self._twin is not None:
            shares = self.network.state_dict()
            for name, kept in self._twin.state_dict().items():
                kept.copy_(self.world.whole(shares[name]))
            return self._twin
        return self.ema if self.ema is not None else self.network

    @contextmanager
    def part(self, index: int, parts: int) -> Generator[None, None, None]:
        """Forward and backward of part `index` of a step; ranks exchange gradients in the last."""
        number = self.world.rank * parts + index
        torch.manual_seed((self._seed * 1_000_003 + self.step) * 4096 + number)
        last = index == parts - 1
        with nullcontext() if last else self.world.without_exchange(self._wrapped):
            yield

    def rehearse(self, loss: Callable[[], Tensor]) -> None:
        """One forward and backward pass for nothing, before the first step on several ranks.

        After its first backward pass DDP changes the order in which gradients are exchanged, and so
        the order of their sums: without this, a resumed run would differ in its first step.
        """
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        with self.part(0, 1):
            self.backward(loss())
        self.optimiser.zero_grad(set_to_none=True)
        for buffer, before in zip(self.network.buffers(), buffers, strict=True):
            buffer.copy_(before)

    def forward(self, lq: Tensor) -> tuple[Tensor, ...]:
        """The network's outputs for `lq: (B, C, h, w)`, finest first, float32."""
        with self._computation.autocast(lq.device):
            output = self._wrapped(self._computation.laid_out(lq))
        outputs = output if isinstance(output, tuple) else (output,)
        return tuple(each.to(torch.promote_types(each.dtype, torch.float32)) for each in outputs)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, a share of the step's loss."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def advance(self, samples: int) -> None:
        """Clip, optimiser, average; `samples` is where the stream stands afterwards.

        Raises RunError RUN02 when more steps in a row than allowed had no finite gradient.
        """
        if self._scaler is not None:
            self._scaler.unscale_(self.optimiser)
        if self._finite(self._clipped_norm()):
            for group in self.optimiser.param_groups:
                group["lr"] = self.lr
            if self._scaler is None:
                self.optimiser.step()
            else:
                self._scaler.step(self.optimiser)
        if self._scaler is not None:
            self._scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.ema is not None:
            self._average()
        self.step += 1
        self.samples = samples

    def _clipped_norm(self) -> Tensor | None:
        """The norm of the whole gradient, the same on all ranks; None when nobody needs it."""
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        if self._clip is not None:
            return self.world.whole(nn.utils.clip_grad_norm_(parameters, self._clip))
        if self.skips_nonfinite:
            gradients = [p.grad for p in parameters if p.grad is not None]
            return self.world.whole(nn.utils.get_total_norm(gradients))
        return None

    def _finite(self, norm: Tensor | None) -> bool:
        """Whether to take the step: always, unless told to leave out those with no finite norm."""
        if not self.skips_nonfinite or norm is None or bool(norm.isfinite()):
            self._skips_in_a_row = 0
            return True
        self.skipped += 1
        self._skips_in_a_row += 1
        if self._skips_in_a_row > SKIPPED_IN_A_ROW:
            raise RunError.of(
                "RUN02",
                "no finite gradient for many steps",
                f"step {self.step + 1}",
                f"{self._skips_in_a_row} steps left out in a row",
                f"at most {SKIPPED_IN_A_ROW}",
                "lower train.optim_g.lr or set train.grad_clip (checkpoints are intact)",
            )
        return False

    @torch.no_grad()
    def _average(self) -> None:
        assert self.ema is not None
        ours: list[Tensor] = list(self.ema.parameters())
        theirs: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - self._decay)  # pyright: ignore
        for kept, live in zip(self.ema.buffers(), self.network.buffers(), strict=True):
            kept.copy_(live)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """File stem -> tensors by name; the optimiser's are keyed by parameter name.

        Where the network is sharded, all ranks ask, and the first gets the whole tensors.
        """
        model, optimiser = self.network.state_dict(), self._optimiser_tensors()
        files = {"model": self._whole(model), "optim": self._whole(optimiser)}
        if self.ema is not None:
            files["ema"] = dict(self.ema.state_dict())
        return files

    def _whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not self.sharded:
            return dict(tensors)
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():  # one at a time: a GPU may not hold all of them
            whole = self.world.whole(tensor)
            if self.world.first:
                found[name] = whole.cpu()
        return found

    def numbers(self) -> dict[str, Any]:
        """The rest of the state, as JSON values."""
        return {
            "step": self.step,
            "samples": self.samples,
            "skipped": self.skipped,
            "validated": self.validated,
            "seed": self._seed,
            "ranks": self.world.size,
            "best": self.best,
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
        }

    def restore(
        self, tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]
    ) -> None:
        """Take over a saved state. Raises CheckpointError CKP03 when it does not fit this run."""
        _check(tensors, numbers)
        if (self.ema is None) != ("ema" not in tensors):
            raise _misfit("ema", "ema.safetensors " + ("there" if "ema" in tensors else "missing"))
        own = self.network.state_dict()
        shares = {
            k: self.world.share(v, own[k]) if k in own else v for k, v in tensors["model"].items()
        }
        try:
            self.network.load_state_dict(shares)
            if self.ema is not None:
                self.ema.load_state_dict(dict(tensors["ema"]))
        except RuntimeError as error:
            raise _misfit("network", str(error).splitlines()[-1].strip()) from None
        self._restore_optimiser(tensors["optim"])
        self.step, self.samples = numbers["step"], numbers["samples"]
        self.skipped = numbers.get("skipped", 0)
        self.validated, self.best = numbers["validated"], dict(numbers["best"])
        if self._scaler is not None and numbers.get("scaler") is not None:
            self._scaler.load_state_dict(numbers["scaler"])

    def _optimiser_tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, parameter in self._trained():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"{key}/{name}"] = value
        return found

    def _restore_optimiser(self, tensors: Mapping[str, Tensor]) -> None:
        index = {name: number for number, (name, _) in enumerate(self._trained())}
        trained = dict(self._trained())
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            what, _, name = key.partition("/")
            if name not in index:
                raise _misfit("optimiser", f"state for {name}, which is not trained here")
            if value.dim() and value.shape != trained[name].shape:
                raise _misfit("optimiser", f"{what} of {name} of shape {tuple(value.shape)}")
            state.setdefault(index[name], {})[what] = self.world.share(value, trained[name])
        if state and len(state) != len(index):
            raise _misfit("optimiser", f"state for {len(state)} of {len(index)} parameters")
        kinds = {tuple(sorted(held)) for held in state.values()}
        if len(kinds) > 1:
            raise _misfit("optimiser", "different state for different parameters")
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.network.named_parameters() if p.requires_grad]


def _check(tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]) -> None:
    """Raises CheckpointError CKP03 for a state that no run saves."""
    for file in ("model", "optim"):
        if file not in tensors:
            raise _misfit(file, f"no {file}.safetensors")
    for key, least in (("step", 0), ("samples", 0), ("skipped", 0), ("validated", 0), ("ranks", 1)):
        value = numbers.get(key, 0 if key == "skipped" else None)
        if type(value) is not int or value < least:
            raise _misfit("state.json", f"{key} {value!r}")
    best = numbers.get("best")
    known = isinstance(best, Mapping) and all(isinstance(v, int | float) for v in best.values())
    if not known or best and "psnr" not in best:
        raise _misfit("state.json", f"best {best!r}")
    scaler = numbers.get("scaler")
    if scaler is not None and not isinstance(scaler, Mapping):
        raise _misfit("state.json", f"scaler {scaler!r}")


def _misfit(what: str, got: str) -> CheckpointError:
    return CheckpointError.of(
        "CKP03",
        f"checkpoint does not fit this run's {what}",
        "resume",
        got,
        "a checkpoint of the same options",
        "resume with the options the run was started with",
    )
