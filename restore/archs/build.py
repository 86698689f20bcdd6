"""Floor 3. Options -> network, and network -> deploy form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from torch import nn

from restore.archs.table import NETWORK, architecture_of
from restore.parsing import parse
from restore.section import Path, Section


class _Request(Section):
    network_g: Annotated[Section, NETWORK]


def network_options(values: Mapping[str, Any]) -> Section:
    """`{"type": "SPAN", "upscale": 4, …}` as that network's options. Raises OptionError."""

    def where(path: Path) -> str:
        return ".".join(map(str, path))

    return parse(_Request, {"network_g": _tuples(values)}, where).network_g


def build_network(options: Mapping[str, Any] | Section, *, meta: bool = False) -> nn.Module:
    """The network that `options` describe, in training mode.

    `options`: a mapping as under `network_g` in a YAML file, or an options section.
    Weights are drawn from torch's global generator; with `meta` they hold no memory.
    The network's forward takes `lq: (B, C, h, w)` in [0, 1] and gives one tensor, or a tuple with
    the finest first. Raises OptionError for unknown names, keys and values.
    """
    section = options if isinstance(options, Section) else network_options(options)
    architecture = architecture_of(section)
    with torch.device("meta" if meta else "cpu"):
        return architecture.build(section)


def fuse(network: nn.Module) -> nn.Module:
    """`network` in its deploy form, in evaluation mode: same outputs, fewer operations.

    A network that has one answers with a copy made by its `fused()`; any other is itself the
    deploy form. Weights changed later do not reach the copy.
    """
    fused: Callable[[], nn.Module] | None = getattr(network, "fused", None)
    return (network if fused is None else fused()).eval()


def _tuples(value: Any) -> Any:
    """Lists as tuples, the form in which options hold them."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
