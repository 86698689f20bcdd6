"""Floor 6. `import restore.bridges.basicsr`: our networks, losses and metrics in BasicSR.

Put that line into the script that starts BasicSR, before it builds anything; then an option file of
BasicSR may say `network_g: {type: MaIR, …}` with our keys. What BasicSR itself has under the same
name (its L1Loss, say) stays; ours is then called `L1Loss_restore`. Needs the extra `basicsr`, and a
torchvision that imports. BasicSR calls what it finds with the option's keys as keyword arguments,
which is why the three makers here take them so.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from restore.archs.build import build_network
from restore.archs.table import ARCHS
from restore.errors import BackendError
from restore.losses.options import LOSS, LOSSES
from restore.losses.pixel import Loss
from restore.metrics.options import Protocol
from restore.metrics.protocols import PROTOCOLS
from restore.metrics.scores import score

SUFFIX = "_restore"
log = logging.getLogger("restore")


def network_maker(name: str) -> Callable[..., nn.Module]:
    """A callable that builds the network `name` from the keys of its options."""

    def make(**options: Any) -> nn.Module:
        network = build_network({"type": name, **options})
        network.register_forward_hook(_finest)
        return network

    return make


def _finest(network: nn.Module, _inputs: Any, outputs: Any) -> Any:
    """In evaluation BasicSR wants one image; in training our losses take all outputs."""
    return outputs[0] if isinstance(outputs, tuple) and not network.training else outputs


class BridgedLoss(nn.Module):
    """A loss of ours as BasicSR calls it: `(prediction, target)` -> one weighted number."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._loss = Loss({"loss": LOSS.validate(options)})

    def forward(self, pred: Tensor | tuple[Tensor, ...], target: Tensor) -> Tensor:
        """`pred: (B, C, H, W)`, or a tuple of outputs, finest first; `target: (B, C, H, W)`."""
        return self._loss(pred if isinstance(pred, tuple) else (pred,), target).total


def loss_maker(name: str) -> Callable[..., nn.Module]:
    """A callable that builds the loss `name` from the keys of its options."""

    def make(**options: Any) -> nn.Module:
        return BridgedLoss(type=name, **options)

    return make


def metric_maker(index: int) -> Callable[..., float]:
    """PSNR (0) or SSIM (1) under a named protocol, as BasicSR calls its metrics."""

    def metric(
        img: np.ndarray,
        img2: np.ndarray,
        crop_border: int = 0,
        test_y_channel: bool = False,
        protocol: Protocol | None = None,
    ) -> float:
        """Two uint8 images `(H, W, 3)` in BGR or `(H, W)`. `protocol` goes before the flag."""
        rule = PROTOCOLS[protocol or ("sr-y" if test_y_channel else "rgb")]
        return score(rule, _rgb(img), _rgb(img2), crop_border)[index]

    return metric


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image


def register(registries: Any) -> dict[str, str]:
    """Put everything into BasicSR's registries; name here -> name there.

    `registries` has ARCH_REGISTRY, LOSS_REGISTRY and METRIC_REGISTRY, each with `register(obj)`,
    which takes `obj.__name__`, and `in`.
    """
    entries: list[tuple[Any, str, Any]]
    entries = [(registries.ARCH_REGISTRY, name, network_maker(name)) for name in ARCHS]
    entries += [(registries.LOSS_REGISTRY, name, loss_maker(name)) for name in LOSSES]
    for index, name in enumerate(("calculate_psnr", "calculate_ssim")):
        entries.append((registries.METRIC_REGISTRY, name, metric_maker(index)))
    names: dict[str, str] = {}
    for registry, name, made in entries:
        names[name] = name + SUFFIX if name in registry else name
        made.__name__ = made.__qualname__ = names[name]
        registry.register(made)
    log.info("registered in BasicSR: %s", ", ".join(names.values()))
    return names


def _registries() -> Any:
    try:
        return importlib.import_module("basicsr.utils.registry")
    except Exception as error:  # torchvision fails in many ways when it does not fit torch
        raise BackendError.of(
            "ENV32",
            "BasicSR cannot be imported",
            "restore.bridges.basicsr",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason'}",
            "the package basicsr, and a torchvision that fits this torch",
            "pip install basicsr; its version 1.4.2 needs torchvision below 0.17",
        ) from error


REGISTERED = register(_registries())
"""Name here -> name in BasicSR."""
