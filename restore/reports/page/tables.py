"""Floor 2. The tables of a report, cell by cell, as the template prints them.

A cell has its text and the key that the page sorts it by (empty: unknown, always last).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from markupsafe import Markup

from restore.errors import printable
from restore.reports.comparison import Comparison, Contender, Rank, Standing, spreads
from restore.reports.curves import LOSS, Series, set_of
from restore.reports.page.charts import Curve, Point, lines, scatter
from restore.reports.papers import count, duration
from restore.reports.records import ImageRow
from restore.reports.statistics import Difference, compare


@dataclass(frozen=True)
class Figure:
    """One figure as the reader sees it and as the page sorts it."""

    text: str
    key: str
    tone: str = ""


@dataclass(frozen=True)
class ScoreLine:
    """One network in a table of scores."""

    name: str
    kind: str
    note: str
    parameters: Figure
    seconds: Figure
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class ScoreTable:
    """One protocol's table; two figures a set. `about`: what it compares; `plots`: (set, chart),
    where there is one."""

    protocol: str
    border: str
    about: str
    sets: tuple[tuple[str, int], ...]
    lines: tuple[ScoreLine, ...]
    plots: tuple[tuple[str, Markup], ...]
    timed: bool
    published: bool


@dataclass(frozen=True)
class ImageLine:
    """One image under one protocol; `view` is its place in the viewer's list, if it has one.

    `figures`: for the baseline and every contender PSNR and SSIM; last the best gain.
    """

    set: str
    image: str
    protocol: str
    view: int | None
    figures: tuple[tuple[Figure, Figure], ...]
    gain: Figure


@dataclass(frozen=True)
class ImageTable:
    """All images; those of the first protocol are shown first."""

    sets: tuple[str, ...]
    protocols: tuple[str, ...]
    lines: tuple[ImageLine, ...]


@dataclass(frozen=True)
class DifferenceLine:
    """One contender less the first on one set."""

    name: str
    set: str
    protocol: str
    images: int
    mean: Figure
    interval: str
    win_rate: Figure
    p: Figure
    worst: str


def shown_number(value: float, digits: int, *, sign: bool = False) -> str:
    """`value` with a true minus sign; – for NaN, ∞ for infinity, no sign before 0.00."""
    if math.isnan(value):
        return "–"
    size = "∞" if math.isinf(value) else f"{abs(value):.{digits}f}"
    if not size.strip("0."):
        return size
    return "−" + size if value < 0 else "+" + size if sign else size


def _key(value: float) -> str:
    """`value` as JavaScript's Number() reads it; empty for NaN."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(float(value))


def _figure(value: float, digits: int, tone: str = "") -> Figure:
    return Figure(shown_number(value, digits), _key(value), tone)


def score_tables(
    comparisons: Sequence[Comparison], about: Mapping[str, str] = MappingProxyType({})
) -> list[ScoreTable]:
    """One table per protocol, with its plots. `about`: what a protocol compares."""
    return [_score_table(one, about.get(one.protocol, "")) for one in comparisons]


def _score_table(comparison: Comparison, about: str) -> ScoreTable:
    found, images = [], dict.fromkeys(comparison.sets, 0)
    for standing in comparison.standings:
        figures = []
        for name in comparison.sets:
            score = standing.scores.get(name)
            if score is None:
                figures += [Figure("–", "", "unknown")] * 2
                continue
            images[name] = max(images[name], score.images)
            figures.append(_figure(score.psnr, 2, score.psnr_rank))
            figures.append(_figure(score.ssim, 4, score.ssim_rank))
        found.append(_score_line(standing, tuple(figures)))
    return ScoreTable(
        printable(comparison.protocol),
        " or ".join(map(str, comparison.borders)),
        printable(about),
        tuple((printable(name), number) for name, number in images.items()),
        tuple(found),
        _plots(comparison),
        any(line.seconds.key for line in found),
        any(line.kind == "published" for line in found),
    )


def _score_line(standing: Standing, figures: tuple[Figure, ...]) -> ScoreLine:
    parameters, seconds = standing.parameters, standing.seconds
    return ScoreLine(
        printable(standing.name),
        standing.kind,
        printable(standing.note),
        Figure(count(parameters), "" if parameters is None else str(parameters)),
        Figure(duration(seconds), _key(seconds)),
        figures,
    )


def _plots(comparison: Comparison) -> tuple[tuple[str, Markup], ...]:
    measured = [s for s in comparison.standings if s.kind == "measured"]
    plots = []
    for name in comparison.sets:
        points = [
            Point(s.name, k, s.scores[name].seconds, s.scores[name].psnr, s.parameters)
            for k, s in enumerate(measured)
            if name in s.scores
        ]
        chart = scatter(points, "PSNR, dB")
        if chart is not None:
            plots.append((printable(name), chart))
    return tuple(plots)


def image_table(contenders: Sequence[Contender], views: Sequence[tuple[str, str]]) -> ImageTable:
    """Every image of every protocol, the largest gain first, unknown ones last; then views without
    a row."""
    place = {key: index for index, key in enumerate(views)}
    found: dict[tuple[str, str, str], list[ImageRow | None]] = {}
    for k, contender in enumerate(contenders):
        for row in contender.rows:
            key = (row.protocol, row.set, row.image)
            found.setdefault(key, [None] * len(contenders))[k] = row
    seen = {(name, image) for _, name, image in found}
    protocols = tuple(dict.fromkeys(protocol for protocol, _, _ in found))
    for name, image in place:
        if (name, image) not in seen:
            found[protocols[0] if protocols else "", name, image] = [None] * len(contenders)
    keyed = [
        (_image_line(key, rows, place.get(key[1:])), best_gain(rows)) for key, rows in found.items()
    ]
    order = {protocol: k for k, protocol in enumerate(protocols)}
    keyed.sort(
        key=lambda item: (
            order.get(item[0].protocol, 0),
            math.isnan(item[1]),
            -item[1] if not math.isnan(item[1]) else 0,
        )
    )
    return ImageTable(
        tuple(printable(name) for name in dict.fromkeys(name for _, name, _ in found)),
        tuple(map(printable, protocols)),
        tuple(line for line, _ in keyed),
    )


def best_gain(rows: Sequence[ImageRow | None]) -> float:
    """The best contender's gain over the baseline; NaN where none is known."""
    gains = [row.gain for row in rows if row is not None and not math.isnan(row.gain)]
    return max(gains, default=math.nan)


def _image_line(
    key: tuple[str, str, str], rows: Sequence[ImageRow | None], view: int | None
) -> ImageLine:
    protocol, name, image = key
    given = next((row for row in rows if row is not None), None)
    pairs = [(given.input_psnr, given.input_ssim) if given else (math.nan, math.nan)]
    pairs += [(row.psnr, row.ssim) if row else (math.nan, math.nan) for row in rows]
    psnrs, ssims = ([pair[k] for pair in pairs[1:]] for k in (0, 1))
    marks = zip(_best(psnrs, 2), _best(ssims, 4), strict=True)
    tones = [("", ""), *marks]
    figures = tuple(
        (_figure(p, 2, a), _figure(s, 4, b)) for (p, s), (a, b) in zip(pairs, tones, strict=True)
    )
    gain = best_gain(rows)
    tone = "unknown" if math.isnan(gain) else "worse" if gain < 0 else ""
    shown = Figure(shown_number(gain, 2, sign=True), _key(gain), tone)
    return ImageLine(printable(name), printable(image), printable(protocol), view, figures, shown)


def _best(values: Sequence[float], digits: int) -> list[Rank]:
    """Which of several contenders is best as printed; nobody where all are equal."""
    printed = [round(v, digits) if math.isfinite(v) else v for v in values]
    known = {v for v in printed if not math.isnan(v)}
    top = max(known, default=math.nan)
    return ["best" if len(known) > 1 and v == top else "" for v in printed]


def difference_lines(contenders: Sequence[Contender]) -> list[DifferenceLine]:
    """Every further contender less the first, set by set."""
    return [
        _difference_line(other.name, difference)
        for other in contenders[1:]
        for difference in compare(other.rows, contenders[0].rows, worst=3)
        if difference.images
    ]


def _difference_line(name: str, found: Difference) -> DifferenceLine:
    sure = found.p < 0.05 and (found.interval.low > 0 or found.interval.high < 0)
    tone = ("worse" if found.mean < 0 else "better") if sure else ""
    low, high = (shown_number(v, 3, sign=True) for v in (found.interval.low, found.interval.high))
    return DifferenceLine(
        name=printable(name),
        set=printable(found.set),
        protocol=printable(found.protocol),
        images=found.images,
        mean=Figure(shown_number(found.mean, 3, sign=True), _key(found.mean), tone),
        interval="–" if math.isnan(found.interval.low) else f"{low} … {high}",
        win_rate=Figure(f"{100 * found.win_rate:.0f} %", _key(found.win_rate)),
        p=Figure(p_value(found.p), _key(found.p)),
        worst=", ".join(f"{printable(n)} {shown_number(g, 2, sign=True)}" for n, g in found.worst),
    )


@dataclass(frozen=True)
class SpreadLine:
    """How far the protocol moves one contender's scores of one set: lowest, highest, apart.

    `psnr`, `ssim`: (figure, protocol) of the lowest and the highest, and their distance.
    """

    name: str
    set: str
    protocols: int
    psnr: tuple[Figure, str, Figure, str, Figure]
    ssim: tuple[Figure, str, Figure, str, Figure]


def spread_lines(contenders: Sequence[Contender]) -> list[SpreadLine]:
    """One line per contender and set that several protocols scored."""
    return [
        SpreadLine(
            printable(found.name),
            printable(found.set),
            found.protocols,
            _apart(found.psnr, 2),
            _apart(found.ssim, 4),
        )
        for found in spreads(contenders)
    ]


def _apart(
    ends: tuple[float, str, float, str], digits: int
) -> tuple[Figure, str, Figure, str, Figure]:
    low, lowest, high, highest = ends
    return (
        _figure(low, digits),
        printable(lowest),
        _figure(high, digits),
        printable(highest),
        _figure(high - low, digits),
    )


def p_value(p: float) -> str:
    """A p as papers print it."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def curve_charts(series: Sequence[Series]) -> list[tuple[str, Markup, list[tuple[int, str]]]]:
    """(heading, chart, legend) per measure: the loss first, then the validation sets."""
    runs = list(dict.fromkeys(s.run for s in series))
    measures = sorted(dict.fromkeys(s.measure for s in series), key=lambda m: (m != LOSS, m))
    charts = []
    for measure in measures:
        drawn = [
            Curve(s.run, runs.index(s.run), s.steps, s.values)
            for s in series
            if s.measure == measure
        ]
        loss = measure == LOSS
        heading = "Training loss" if loss else f"Validation PSNR, {set_of(measure)}"
        chart = lines(drawn, "loss" if loss else "PSNR, dB", heading)
        if chart is not None:
            legend = [(curve.colour, printable(curve.name)) for curve in drawn]
            charts.append((printable(heading), chart, legend))
    return charts
