"""Floor 3. What preparing a set comes to, decided before anything is written.

A plan is a list of copies (a member of the source to a path) and, after them, of makings (LR,
sub-images, blocks) out of files that then lie in the set. All names are known but those of
sub-images, whose number shows when their image is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from restore.data.prepare.records import Reader, Record, Tiles
from restore.data.prepare.source import Member, Source
from restore.errors import DataError

SUB_IMAGES = " sub-images of "
LR_SHARE = 1.3  # bytes of an LR for each of its share of the HR's, at most; small PNGs pack worse


@dataclass(frozen=True)
class Copy:
    """A member of the source and where it goes."""

    target: str
    member: Member


@dataclass(frozen=True)
class Making:
    """What is made of a prepared file. `label` says it all, and is the key it is known by.

    `kind`: `bicubic` (with `scale`), `tiles` or `blocks` (with `reader`). `target` has `{k}` for
    all but the first. `bytes`: about what will be written.
    """

    label: str
    kind: str
    source: str
    target: str
    bytes: int
    scale: int = 1
    tiles: Tiles | None = None
    reader: Reader | None = None


@dataclass(frozen=True)
class Wishes:
    """What the user may choose: the variant, the LR scales (None: all), sub-images at all, and
    their crop and step (None: the set's own) and threshold in GT pixels."""

    variant: str = ""
    scales: tuple[int, ...] | None = None
    sub_images: bool = False
    crop: int | None = None
    step: int | None = None
    threshold: int = 0


@dataclass(frozen=True)
class Plan:
    """Everything to be done for one set, in order."""

    record: Record
    wishes: Wishes
    copies: tuple[Copy, ...]
    makings: tuple[Making, ...]
    ignored: int
    """Members of the source that no layout of the set names."""


def plan(record: Record, source: Source, wishes: Wishes) -> Plan:
    """Raises DataError DAT24 when the source holds nothing of the set, DAT15 when two different
    files of it would go to one path."""
    copies: dict[str, Copy] = {}
    for member, target in record.arrange(source, wishes.variant):
        before = copies.setdefault(target, Copy(target, member))
        if before.member != member and not _alike(source, before.member, member):
            raise DataError.of(
                "DAT15",
                "two images of one name",
                member.path,
                f"also {before.member.path}, which differs",
                f"one file for {target}",
                "give only one of the two as --source",
            )
    if not copies:
        raise _nothing(record, source)
    chosen = sorted(copies.values(), key=lambda copy: (copy.member.holder, copy.member.number))
    sizes = {copy.target: copy.member.size for copy in chosen}
    makings = tuple(_makings(record, wishes, sizes))
    return Plan(record, wishes, tuple(chosen), makings, len(source.members) - len(copies))


def _alike(source: Source, one: Member, other: Member) -> bool:
    """Whether two members hold the same bytes: a download beside its unpacked copy, say."""
    return one.size == other.size and source.read(one) == source.read(other)


def _nothing(record: Record, source: Source) -> DataError:
    found = ", ".join(member.path for member in source.members[:3]) or "no files"
    fix = "check --source, and that it is this set"
    if source.foreign:
        fix = f"unpack {source.foreign[0].name} first: such archives cannot be read here"
    return DataError.of(
        "DAT24",
        f"nothing of {record.title} in the source",
        "--source",
        f"{len(source.members)} files: {found}",
        record.expected,
        fix,
    )


def _makings(record: Record, wishes: Wishes, copied: Mapping[str, int]) -> Iterator[Making]:
    """Blocks, LR and sub-images, in the order in which they can be made; `copied`: path -> bytes of
    what is there before."""
    there = dict(copied)
    for blocks in record.blocks:
        for path, groups in _fitting(blocks.pattern, copied):
            target = _fill(blocks.target, groups)
            label = f"images of {path}"
            yield Making(label, "blocks", path, target, there[path], reader=blocks.reader)
    stems = {path.rpartition(".")[0] for path in copied}
    for rule in record.bicubic:
        for scale in wishes.scales or rule.scales:
            for path, groups in _fitting(rule.pattern, copied):
                target = rule.target.format(**groups, scale=scale)
                if target.rpartition(".")[0] not in stems:
                    size = int(there[path] / scale**2 * LR_SHARE)
                    label = f"bicubic 1/{scale} of {path}"
                    yield Making(label, "bicubic", path, target, size, scale=scale)
                    there[target] = size
    if wishes.sub_images:
        for tiles in (_sized(rule, wishes) for rule in record.tiles):
            for path, groups in _fitting(tiles.pattern, there):
                label = f"{tiles.crop}/{tiles.step}/{tiles.threshold}{SUB_IMAGES}{path}"
                size = int(there[path] * (tiles.crop / tiles.step) ** 2)
                target = _fill(tiles.target, groups)
                yield Making(label, "tiles", path, target, size, tiles=tiles)


def _sized(tiles: Tiles, wishes: Wishes) -> Tiles:
    """The rule at the user's crop and step, in pixels of its own files."""
    crop, step = wishes.crop or tiles.crop, wishes.step or tiles.step
    crop, step, threshold = (n // tiles.scale for n in (crop, step, wishes.threshold))
    return replace(tiles, crop=crop, step=step, threshold=threshold)


def _fitting(pattern: str, paths: Iterable[str]) -> list[tuple[str, dict[str, str]]]:
    compiled = re.compile(pattern)
    fits = ((path, compiled.fullmatch(path)) for path in paths)
    return [(path, fit.groupdict()) for path, fit in fits if fit is not None]


def _fill(template: str, groups: Mapping[str, str]) -> str:
    """The template with all filled in but `{k…}`, which stays as it is."""
    return re.sub(r"\{(\w+)\}", lambda m: groups.get(m[1], m[0]), template)
