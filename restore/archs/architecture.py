"""Floor 3. The record of a network: its name, options, needs and origin (no torch here)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from restore.catalog import locate
from restore.section import Section


@dataclass(frozen=True)
class SizeRule:
    """Which input sizes a network takes: sides of at least `minimum`, multiples of `multiple`.

    The predictor pads an input to the rule and crops the output back.
    """

    minimum: int = 1
    multiple: int = 1

    def padded(self, side: int) -> int:
        """The smallest side ≥ `side` that the network takes."""
        side = max(side, self.minimum)
        return -(-side // self.multiple) * self.multiple


@dataclass(frozen=True)
class Architecture:
    """One family member as users name it in `network_g.type`."""

    name: str
    options: type[Section]
    builder: str
    """Dotted path `module:function`, called with the options; imported when first built."""
    scale: Callable[[Any], int]
    """Options -> output size / input size."""
    scale_key: str | None
    """The option that holds the scale; None for networks whose output is as large as the input."""
    channels: Callable[[Any], int]
    """Options -> channels of the input image."""
    tasks: tuple[str, ...]
    paper: str
    license: str
    size: SizeRule = SizeRule()
    grid: Callable[[Any], int] | None = None
    """Options -> what tiles begin at multiples of, where that is more than `size.multiple`."""
    reach: int | None = None
    """How many LQ pixels away an output pixel still sees, where that is known and the same for all
    options; None also for networks that see the whole image."""
    scans: bool = False
    """Whether it has selective scans, whose backend a result names."""
    ignored_keys: str = ""
    """Pattern of further keys in official files (derived copies, index tables), never loaded."""
    presets: Mapping[str, Section] = field(default_factory=dict)
    """Published variants by name."""

    def step(self, options: Any) -> int:
        """What tiles begin at multiples of, so that each meets the grid of the whole image."""
        return self.size.multiple if self.grid is None else self.grid(options)

    def build(self, options: Section) -> Any:
        """The network for `options`, weights drawn from torch's global generator."""
        return locate(self.builder)(options)
