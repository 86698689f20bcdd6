"""Floor 5. All that changes while training: network, average, optimiser, step, samples, best score.

Random numbers are not part of it: samples draw from (seed, epoch, index) and each step reseeds
torch from (seed, step, rank), so a state restored at a step continues with the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from restore.errors import CheckpointError
from restore.section import Section
from restore.training.schedule import Schedule
from restore.world import World

FUSED = {"Adam", "AdamW", "SGD", "Adagrad"}


def build_optimiser(options: Section, network: nn.Module) -> torch.optim.Optimizer:
    """The `torch.optim` optimiser that `options` name, over the trainable parameters."""
    values = options.model_dump(exclude_none=True)
    kind = values.pop("type")
    if kind in FUSED and not values.get("amsgrad"):
        values["fused"] = True  # one kernel for all parameters, also on the CPU
    parameters = [p for p in network.parameters() if p.requires_grad]
    return getattr(torch.optim, kind)(parameters, **values)


class TrainState:
    """What a checkpoint holds, and the one operation that changes it (`advance`)."""

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
    ) -> None:
        self.network, self.optimiser, self.schedule = network, optimiser, schedule
        self.ema = copy.deepcopy(network).eval().requires_grad_(False) if ema_decay else None
        self.step = 0
        self.samples = 0
        self.validated = 0
        self.best: dict[str, float] = {}
        self._decay, self._clip = ema_decay, grad_clip
        self._seed, self._world = seed, world
        self._wrapped = world.wrap(network)

    @property
    def lr(self) -> float:
        """The rate of the step at hand."""
        return self.schedule(self.step)

    @property
    def evaluated(self) -> nn.Module:
        """The network to validate and to publish: the average where there is one."""
        return self.ema if self.ema is not None else self.network

    def forward(self, lq: Tensor) -> tuple[Tensor, ...]:
        """The network's outputs for `lq: (B, C, h, w)`, finest first."""
        torch.manual_seed((self._seed * 1_000_003 + self.step) * 4096 + self._world.rank)
        output = self._wrapped(lq)
        return output if isinstance(output, tuple) else (output,)

    def advance(self, loss: Tensor, samples: int) -> None:
        """Backward, clip, optimiser, average; `samples` is where the stream stands afterwards."""
        loss.backward()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        if self._clip is not None:
            nn.utils.clip_grad_norm_(parameters, self._clip)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.ema is not None:
            self._average()
        self.step += 1
        self.samples = samples

    @torch.no_grad()
    def _average(self) -> None:
        assert self.ema is not None
        ours: list[Tensor] = list(self.ema.parameters())
        theirs: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - self._decay)  # pyright: ignore
        for kept, live in zip(self.ema.buffers(), self.network.buffers(), strict=True):
            kept.copy_(live)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """File stem -> tensors by name; the optimiser's are keyed by parameter name."""
        files = {"model": dict(self.network.state_dict()), "optim": self._optimiser_tensors()}
        if self.ema is not None:
            files["ema"] = dict(self.ema.state_dict())
        return files

    def numbers(self) -> dict[str, Any]:
        """The rest of the state, as JSON values."""
        return {
            "step": self.step,
            "samples": self.samples,
            "validated": self.validated,
            "seed": self._seed,
            "best": self.best,
        }

    def restore(
        self, tensors: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]
    ) -> None:
        """Take over a saved state. Raises CheckpointError CKP03 when it does not fit this run."""
        if (self.ema is None) != ("ema" not in tensors):
            raise _misfit("ema", "ema.safetensors " + ("there" if "ema" in tensors else "missing"))
        try:
            self.network.load_state_dict(dict(tensors["model"]))
            if self.ema is not None:
                self.ema.load_state_dict(dict(tensors["ema"]))
        except RuntimeError as error:
            raise _misfit("network", str(error).splitlines()[-1].strip()) from None
        self._restore_optimiser(tensors["optim"])
        self.step, self.samples = int(numbers["step"]), int(numbers["samples"])
        self.validated, self.best = int(numbers["validated"]), dict(numbers["best"])

    def _optimiser_tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, parameter in self._trained():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"{key}/{name}"] = value
        return found

    def _restore_optimiser(self, tensors: Mapping[str, Tensor]) -> None:
        index = {name: number for number, (name, _) in enumerate(self._trained())}
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            what, _, name = key.partition("/")
            if name not in index:
                raise _misfit("optimiser", f"state for {name}, which is not trained here")
            state.setdefault(index[name], {})[what] = value
        if state and len(state) != len(index):
            raise _misfit("optimiser", f"state for {len(state)} of {len(index)} parameters")
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.network.named_parameters() if p.requires_grad]


def _misfit(what: str, got: str) -> CheckpointError:
    return CheckpointError.of(
        "CKP03",
        f"checkpoint does not fit this run's {what}",
        "resume",
        got,
        "a checkpoint of the same options",
        "resume with the options the run was started with",
    )
