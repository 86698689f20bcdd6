"""Floor 3. What is known of a data set, as data: where it comes from, how its files lie in what
people have, how they lie when prepared, and what can be made of them and checked.

A layout is a regular expression for the end of a member's path, from the start of a path component
on, and a template for the prepared path: `HR/(?P<id>…)` finds `benchmark/Set5/HR/baby.png`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from restore.data.prepare.source import Member, Source

SUFFIX = r"\.(?P<suffix>(?i:png|bmp|jpg|jpeg|tif|tiff|webp))"  # ends a layout of any image
PNG = r"\.png"
Placed = tuple[Member, str]  # a member and its path in the prepared set
Arrange = Callable[[Source, str], Iterable[Placed]]  # the second: the chosen variant, or ""
Reader = Callable[[Path, str], Iterable[np.ndarray]]
Rule = tuple[str, str]  # layout, template


@dataclass(frozen=True)
class Part:
    """Files that are counted together: those whose prepared path fits `pattern`.

    `count`: how many the whole set has. `sizes`: the (height, width) they have, when all do.
    `split`: `train` or `test` for ground truth that must not be in both. `bits` of a channel.
    """

    name: str
    pattern: str
    count: int | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    split: Literal["train", "test", ""] = ""
    bits: int = 8


@dataclass(frozen=True)
class Pair:
    """Folders to be matched as an option file would: see `PairedImageDataset`.

    `bicubic`: LQ should be MATLAB's bicubic of GT at `scale`. `training`: as training has no use
    for borders that the scale does not divide, GT must be exactly `scale` times as large.
    """

    gt: str
    lq: str
    scale: int = 1
    filename_tmpl: str = "{}"
    pairing: Literal["template", "gopro", "sidd", "reside"] = "template"
    bicubic: bool = False
    training: bool = False


@dataclass(frozen=True)
class Bicubic:
    """LR to make, by MATLAB's bicubic, of each prepared path that fits; `{scale}` in `target`."""

    pattern: str
    target: str
    scales: tuple[int, ...] = (2, 3, 4)


@dataclass(frozen=True)
class Tiles:
    """Sub-images to cut of each prepared path that fits; `{k}` in `target` counts from 1.

    `crop` and `step` in GT pixels; files `scale` times smaller are cut in squares `scale` times
    smaller. Sides are first cut to multiples of `multiple` GT pixels, so that all scales align.
    `threshold`: see `squares.starts`.
    """

    pattern: str
    target: str
    crop: int
    step: int
    scale: int = 1
    multiple: int = 1
    threshold: int = 0


@dataclass(frozen=True)
class Blocks:
    """Images that lie in prepared files of another kind, each to be written as one.

    `reader`: (set's folder, prepared path) -> images, uint8 or uint16.
    """

    pattern: str
    target: str
    reader: Reader


@dataclass(frozen=True)
class Finding:
    """A line of the doctor's table. `fault`: None when it is only worth knowing."""

    check: str
    part: str
    found: str
    expected: str = ""
    fault: bool | None = None


@dataclass(frozen=True)
class Look:
    """What the doctor saw of one image: (height, width), bits of a channel, channels, the sha256 of
    its pixels, and the descriptors of `similar.py`."""

    size: tuple[int, int]
    bits: int
    channels: int
    digest: bytes
    thumbnail: bytes


Version = Callable[[Path, Mapping[str, Look]], Iterable[Finding]]


@dataclass(frozen=True)
class Record:
    """One data set. `variants`: what the user must choose between, the default first.

    `expected`: the layouts in words, for whoever has another. `about`: what to know before use.
    """

    title: str
    folder: str
    licence: str
    origin: str
    expected: str
    arrange: Arrange
    parts: tuple[Part, ...]
    pairs: tuple[Pair, ...] = ()
    bicubic: tuple[Bicubic, ...] = ()
    tiles: tuple[Tiles, ...] = ()
    blocks: tuple[Blocks, ...] = ()
    variants: tuple[str, ...] = ()
    versions: tuple[Version, ...] = ()
    about: str = ""
    parts_by_pattern: tuple[tuple[re.Pattern[str], Part], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        compiled = tuple((re.compile(part.pattern), part) for part in self.parts)
        object.__setattr__(self, "parts_by_pattern", compiled)

    def part_of(self, path: str) -> Part | None:
        """The part that a prepared path belongs to."""
        for pattern, part in self.parts_by_pattern:
            if pattern.fullmatch(path):
                return part
        return None


def by_rules(*rules: Rule) -> Arrange:
    """Places members by the first rule that fits each."""

    def arrange(source: Source, variant: str) -> Iterator[Placed]:
        return placed(source.members, rules)

    return arrange


def placed(members: Iterable[Member], rules: Iterable[Rule]) -> Iterator[Placed]:
    """Each member that some rule fits, with its path by the first such rule."""
    compiled = [(layout(pattern), template) for pattern, template in rules]
    for member in members:
        for pattern, template in compiled:
            fit = pattern.search(member.path)
            if fit is not None:
                yield member, template.format(**fit.groupdict())
                break


def layout(pattern: str) -> re.Pattern[str]:
    """A layout, to be searched for in a member's path."""
    return re.compile(f"(?:^|/){pattern}$")


def flat(folder: str) -> str:
    """The pattern of images directly in a prepared folder, their stem as `id`."""
    return rf"{folder}/(?P<id>[^/]+){SUFFIX}"
