"""Floor 2. Several networks on several sets: who is best, second, and by how much.

A `Contender` is one network under one variant of inference. `compare` puts contenders side by side,
one `Comparison` per protocol, for the page and for papers (Markdown, CSV, LaTeX).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from restore.reports.records import ImageRow, mean, summarise

Rank = Literal["", "best", "second"]


@dataclass(frozen=True)
class Contender:
    """One line of a comparison. `parameters`: deployed; None where nothing is computed."""

    name: str
    parameters: int | None
    rows: Sequence[ImageRow]


@dataclass(frozen=True)
class Quoted:
    """A line that was not measured here: (psnr, ssim) by set, NaN where the source gives none."""

    name: str
    protocol: str
    source: str
    scores: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Score:
    """The means over one set and their places among the measured lines of a comparison.

    `seconds`: median over the set's images, as they were run; NaN where nothing ran.
    """

    psnr: float
    ssim: float
    images: int
    seconds: float = math.nan
    psnr_rank: Rank = ""
    ssim_rank: Rank = ""


@dataclass(frozen=True)
class Standing:
    """One contender under one protocol. `seconds`: median over all images, as they were run."""

    name: str
    kind: Literal["baseline", "measured", "published"]
    parameters: int | None
    seconds: float
    scores: dict[str, Score]
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """All contenders under one protocol."""

    protocol: str
    borders: tuple[int, ...]
    sets: tuple[str, ...]
    standings: tuple[Standing, ...]


def compare_all(
    contenders: Sequence[Contender], baseline: str, quoted: Sequence[Quoted] = ()
) -> list[Comparison]:
    """One Comparison per protocol, protocols, sets and contenders in the order of their rows."""
    rows = [row for contender in contenders for row in contender.rows]
    found = []
    for protocol in dict.fromkeys(row.protocol for row in rows):
        of_rule = [row for row in rows if row.protocol == protocol]
        sets = tuple(dict.fromkeys(row.set for row in of_rule))
        lines = [_baseline(contenders, protocol, baseline)]
        lines += [_measured(c, protocol) for c in contenders]
        lines += [_published(q, sets) for q in quoted if q.protocol == protocol.partition("@")[0]]
        shown = [line for line in lines if line.scores]
        borders = tuple(dict.fromkeys(row.border for row in of_rule))
        found.append(Comparison(protocol, borders, sets, tuple(_ranked(shown, sets))))
    return found


@dataclass(frozen=True)
class Spread:
    """How far the choice of protocol alone moves the scores of the same restored images.

    `psnr` and `ssim`: (lowest, its protocol, highest, its protocol).
    """

    name: str
    set: str
    protocols: int
    psnr: tuple[float, str, float, str]
    ssim: tuple[float, str, float, str]


def spreads(contenders: Sequence[Contender]) -> list[Spread]:
    """One Spread per contender and set that several protocols scored, infinite PSNRs aside."""
    found = []
    for contender in contenders:
        scores = summarise(contender.rows)
        for name in dict.fromkeys(score.set for score in scores):
            known = [s for s in scores if s.set == name and math.isfinite(s.psnr)]
            if len(known) > 1:
                ends = (
                    _ends([(getattr(s, k), s.protocol) for s in known]) for k in ("psnr", "ssim")
                )
                found.append(Spread(contender.name, name, len(known), *ends))
    return found


def _ends(scores: Sequence[tuple[float, str]]) -> tuple[float, str, float, str]:
    return (*min(scores, key=lambda s: s[0]), *max(scores, key=lambda s: s[0]))


def _measured(contender: Contender, protocol: str) -> Standing:
    rows = [row for row in contender.rows if row.protocol == protocol]
    scores = {}
    for name in dict.fromkeys(row.set for row in rows):
        part = [row for row in rows if row.set == name]
        psnr, ssim = mean(r.psnr for r in part), mean(r.ssim for r in part)
        took = statistics.median(r.seconds for r in part)
        scores[name] = Score(psnr, ssim, len(part), took)
    seconds = statistics.median(r.seconds for r in rows) if rows else math.nan
    return Standing(contender.name, "measured", contender.parameters, seconds, scores)


def _baseline(contenders: Sequence[Contender], protocol: str, name: str) -> Standing:
    """The input without a network, from whichever contender scored a set first."""
    scores: dict[str, Score] = {}
    for contender in contenders:
        rows = [row for row in contender.rows if row.protocol == protocol]
        for data in dict.fromkeys(row.set for row in rows):
            part = [row for row in rows if row.set == data]
            psnr, ssim = mean(r.input_psnr for r in part), mean(r.input_ssim for r in part)
            scores.setdefault(data, Score(psnr, ssim, len(part)))
    return Standing(name, "baseline", None, math.nan, scores)


def _published(quoted: Quoted, sets: Sequence[str]) -> Standing:
    scores = {s: Score(*quoted.scores[s], 0) for s in sets if s in quoted.scores}
    return Standing(quoted.name, "published", None, math.nan, scores, quoted.source)


def _ranked(lines: Sequence[Standing], sets: Sequence[str]) -> list[Standing]:
    """Best and second of every column as printed, equal figures sharing a place.

    Without a rival nobody is best; published lines were measured elsewhere and take no place.
    """
    rivals = [line for line in lines if line.kind != "published"]
    ranked = [dict(line.scores) for line in lines]
    for name in sets:
        psnrs = _places([round(r.scores[name].psnr, 2) for r in rivals if name in r.scores])
        ssims = _places([round(r.scores[name].ssim, 4) for r in rivals if name in r.scores])
        for line, scores in zip(lines, ranked, strict=True):
            if line.kind != "published" and name in scores:
                old = scores[name]
                scores[name] = replace(
                    old,
                    psnr_rank=psnrs.get(round(old.psnr, 2), ""),
                    ssim_rank=ssims.get(round(old.ssim, 4), ""),
                )
    return [replace(line, scores=found) for line, found in zip(lines, ranked, strict=True)]


def _places(values: Sequence[float]) -> dict[float, Rank]:
    order = sorted({value for value in values if not math.isnan(value)}, reverse=True)
    if len(values) < 2 or len(order) < 2:
        return {}
    places: dict[float, Rank] = {order[0]: "best"}
    if len(values) > 2:
        places[order[1]] = "second"
    return places
