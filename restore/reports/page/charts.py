"""Floor 2. Charts of a report as SVG: quality against time and size, and training curves.

Colours are classes that the page's style sets for light and dark; text is escaped by Markup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from restore.errors import printable
from restore.reports.papers import count, duration

WIDTH, HEIGHT = 480, 290
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 26, 46
COLOURS = 8  # classes c0 … c7 of the page's style
LINE = 15  # height of a label


@dataclass(frozen=True)
class Point:
    """One network: seconds an image, PSNR, deployed parameters."""

    name: str
    colour: int
    seconds: float
    psnr: float
    parameters: int | None


@dataclass(frozen=True)
class Curve:
    """One run's values over its steps."""

    name: str
    colour: int
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class _Frame:
    """The chart's area and its two axes, from data to SVG units."""

    x: Callable[[float], float]
    y: Callable[[float], float]
    axes: Markup


def scatter(points: Sequence[Point], unit: str) -> Markup | None:
    """PSNR over seconds (log scale), area by parameters; None where fewer than two can be placed.

    `unit`: what the vertical axis is called.
    """
    placed = [p for p in points if p.seconds > 0 and math.isfinite(p.psnr + p.seconds)]
    if len(placed) < 2:
        return None
    times = [math.log10(p.seconds) for p in placed]
    low, high = min(times) - 0.15, max(times) + 0.35
    ticks = [(math.log10(t), duration(t)) for t in _log_ticks(10**low, 10**high)]
    bottom, top, levels = _nice([p.psnr for p in placed], room=0.12)
    frame = _frame((low, high), ticks, (bottom, top), levels, "time an image (log scale)", unit)
    largest = max((p.parameters or 0) for p in placed) or 1
    marks, labels = [], []
    for p in sorted(placed, key=lambda p: -(p.parameters or 0)):  # small ones on top
        x, y = frame.x(math.log10(p.seconds)), frame.y(p.psnr)
        radius = 5 + 15 * math.sqrt((p.parameters or 0) / largest)
        about = (
            f"{p.name}: {p.psnr:.2f} dB, {duration(p.seconds)}, {count(p.parameters)} parameters"
        )
        marks.append(
            Markup(
                '<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}">'
                "<title>{}</title></circle>"
            ).format(p.colour % COLOURS, x, y, radius, printable(about))
        )
        labels.append((x, y, radius, p))
    return _svg(
        "PSNR against time and parameters", frame.axes + Markup("").join(marks) + _labels(labels)
    )


def lines(curves: Sequence[Curve], unit: str, about: str) -> Markup | None:
    """Values over steps, one line a run; None where there is nothing to draw."""
    thinned = [(curve, points) for curve in curves if len(points := _thinned(curve)) > 1]
    if not thinned:
        return None
    last = max(x for _, points in thinned for x, _ in points)
    values = [y for _, points in thinned for _, y in points]
    bottom, top, levels = _nice(values, room=0.05)
    _, _, steps = _nice([0, last], room=0)
    ticks = [(s, f"{s:,.0f}") for s, _ in steps if 0 <= s <= last]
    frame = _frame((0, last), ticks, (bottom, top), levels, "step", unit)
    paths = []
    for curve, points in thinned:
        d = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
        paths.append(
            Markup('<polyline class="curve c{}" points="{}"><title>{}</title></polyline>').format(
                curve.colour % COLOURS, d, printable(curve.name)
            )
        )
    return _svg(about, frame.axes + Markup("").join(paths))


def _thinned(curve: Curve, most: int = 240) -> list[tuple[float, float]]:
    """The finite points, at most `most`: medians of equal stretches, so that noise does not hide
    the way."""
    pairs = zip(curve.steps, curve.values, strict=True)
    points = [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]
    size = -(-len(points) // most)
    if size > 1:
        groups = [points[k : k + size] for k in range(0, len(points), size)]
        points = [(g[len(g) // 2][0], sorted(y for _, y in g)[len(g) // 2]) for g in groups]
    return points


def _labels(labels: list[tuple[float, float, float, Point]]) -> Markup:
    """Names beside their points, pushed apart where they would lie on each other."""
    taken: list[float] = []
    parts = []
    for x, y, radius, point in sorted(labels, key=lambda label: label[1]):
        at = y + 4
        while any(abs(at - other) < LINE for other in taken):
            at += 1
        taken.append(at)
        outside = x + radius + 8 + 7 * len(point.name) > WIDTH - RIGHT
        side = ("end", x - radius - 6) if outside else ("start", x + radius + 6)
        parts.append(
            Markup('<text class="name" text-anchor="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(
                *side, min(at, HEIGHT - BOTTOM - 4), printable(point.name)
            )
        )
    return Markup("").join(parts)


def _frame(
    xs: tuple[float, float],
    x_ticks: Iterable[tuple[float, str]],
    ys: tuple[float, float],
    y_ticks: Iterable[tuple[float, str]],
    x_name: str,
    y_name: str,
) -> _Frame:
    def x(value: float) -> float:
        return LEFT + (value - xs[0]) / ((xs[1] - xs[0]) or 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - ys[0]) / ((ys[1] - ys[0]) or 1) * (HEIGHT - TOP - BOTTOM)

    parts = []
    floor = HEIGHT - BOTTOM
    for value, text in y_ticks:
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                   '<text class="tick" text-anchor="end" x="{}" y="{:.1f}">{}</text>')
            .format(LEFT, WIDTH - RIGHT, y(value), y(value), LEFT - 8, y(value) + 4, text)
        )  # fmt: skip
    for value, text in x_ticks:
        parts.append(
            Markup('<line class="axis" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>'
                   '<text class="tick" text-anchor="middle" x="{:.1f}" y="{}">{}</text>')
            .format(x(value), x(value), floor, floor + 4, x(value), floor + 19, text)
        )  # fmt: skip
    parts.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>'
               '<text class="tick" text-anchor="end" x="{}" y="{}">{}</text>'
               '<text class="tick" x="{}" y="{}">{}</text>')
        .format(LEFT, WIDTH - RIGHT, floor, floor, WIDTH - RIGHT, HEIGHT - 6, x_name, 0, 12, y_name)
    )  # fmt: skip
    return _Frame(x, y, Markup("").join(parts))


def _svg(about: str, inside: Markup) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, HEIGHT, printable(about), inside)


def _nice(values: Sequence[float], room: float) -> tuple[float, float, list[tuple[float, str]]]:
    """An axis about `values` with `room` (a share of their range) left free: low, high, ticks."""
    low, high = min(values), max(values)
    spread = (high - low) or abs(high) * 0.1 or 1.0
    low, high = low - room * spread, high + room * spread
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.8)
    first = math.ceil(low / step - 1e-9)
    ticks = [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]
    digits = max(0, -math.floor(math.log10(step)) + (1 if f"{step:.6e}".startswith("2.5") else 0))
    return low, high, [(t, f"{t:.{digits}f}") for t in ticks]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or only the powers where that is too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(ticks) <= 7:
            break
    return ticks
