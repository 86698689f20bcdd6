"""Floor 2. The report of one benchmark run as a single HTML file that opens without a network.

The tables are written by the template; `page.js` only sorts them and drives the viewer. Names
come from outside, so all text is escaped and the page's content policy lets nothing else run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from restore.errors import DataError, Problem, printable
from restore.reports.records import ImageRow, SetScore, replace_text


@dataclass(frozen=True)
class ImageViews:
    """What one image can be seen as. Files are POSIX paths relative to the page's folder.

    `width` and `height` are those of restored and target; `lq` may be smaller and is shown scaled
    up. `zoom` is x, y, w, h of the region first shown enlarged, in target pixels.
    """

    set: str
    image: str
    lq: str
    baseline: str
    restored: str
    target: str | None
    width: int
    height: int
    zoom: tuple[int, int, int, int]


@dataclass(frozen=True)
class Page:
    """One run: what it was (`facts`), its scores, its images. `baseline_name`: bicubic or input."""

    title: str
    facts: Sequence[tuple[str, str]]
    scores: Sequence[SetScore]
    rows: Sequence[ImageRow]
    views: Sequence[ImageViews]
    baseline_name: str


@dataclass(frozen=True)
class Cell:
    """One figure as the reader sees it and as the page sorts it (empty: unknown, always last)."""

    text: str
    key: str
    tone: str = ""


@dataclass(frozen=True)
class Line:
    """One line of the table of images; `view` is its place in the viewer's list, if it has one."""

    set: str
    image: str
    view: int | None
    gain: float
    cells: tuple[Cell, ...]


def write_page(folder: Path, page: Page) -> Path:
    """Write `folder/index.html`, replaced whole, and return its path.

    Raises DataError for a view's file that is not relative to the page's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    replace_text(path, render(page))
    return path


def render(page: Page) -> str:
    """The page as HTML text."""
    script = _package_text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    baseline = printable(page.baseline_name)
    rows = {(row.set, row.image): row for row in page.rows}
    return environment.from_string(_package_text("template.html.j2")).render(
        title=printable(page.title),
        facts=[(printable(name), printable(value), _is_hash(value)) for name, value in page.facts],
        scores=_score_lines(page),
        lines=_image_lines(page),
        sets=[printable(name) for name in dict.fromkeys(x.set for x in (*page.rows, *page.views))],
        layers={"lq": "LQ", "baseline": _headed(baseline), "restored": "Restored", "target": "GT"},
        baseline=baseline,
        views=_as_script_data([_view_data(v, rows.get((v.set, v.image))) for v in page.views]),
        style=_package_text("page.css"),
        script=script,
        script_digest=digest,
    )


def _score_lines(page: Page) -> list[tuple[str, str, int, tuple[Cell, ...]]]:
    """Set, protocol, images, cells; a set seen only without targets has no figures."""
    seen = {view.set for view in page.views}
    scored = {view.set for view in page.views if view.target is not None}
    known = [score.set in scored or score.set not in seen for score in page.scores]
    best = _best(score.gain for score, has in zip(page.scores, known, strict=True) if has)
    return [
        (
            printable(score.set),
            printable(score.protocol),
            score.images,
            _cells(score if has else None, best),
        )
        for score, has in zip(page.scores, known, strict=True)
    ]


def _image_lines(page: Page) -> list[Line]:
    """One line an image, largest gain first, unknown gains last; views without a row included."""
    place = {(view.set, view.image): index for index, view in enumerate(page.views)}
    found: list[tuple[str, str, ImageRow | None]] = []
    for row in page.rows:
        index = place.get((row.set, row.image))
        blind = index is not None and page.views[index].target is None
        found.append((row.set, row.image, None if blind else row))
    listed = {(row.set, row.image) for row in page.rows}
    found += [(*key, None) for key in place if key not in listed]

    best = _best(row.gain for _, _, row in found if row is not None)
    lines = [
        Line(
            set=printable(set_name),
            image=printable(image),
            view=place.get((set_name, image)),
            gain=math.nan if row is None else row.gain,
            cells=_cells(row, best),
        )
        for set_name, image, row in found
    ]
    return sorted(lines, key=lambda line: (math.isnan(line.gain), -line.gain))


def _cells(score: ImageRow | SetScore | None, best: float) -> tuple[Cell, ...]:
    """PSNR, SSIM, the baseline's PSNR and SSIM, gain."""
    if score is None:
        return (Cell("–", "", "unknown"),) * 5
    gain = score.gain
    shown = _number(gain, 2)
    if gain > 0 and shown != "0.00":
        shown = "+" + shown
    tones = {"best": gain == best, "worse": gain < 0, "unknown": math.isnan(gain)}
    tone = next((name for name, holds in tones.items() if holds), "")
    return (
        Cell(_number(score.psnr, 2), _sort_key(score.psnr)),
        Cell(_number(score.ssim, 4), _sort_key(score.ssim)),
        Cell(_number(score.input_psnr, 2), _sort_key(score.input_psnr)),
        Cell(_number(score.input_ssim, 4), _sort_key(score.input_ssim)),
        Cell(shown, _sort_key(gain), tone),
    )


def _best(gains: Iterable[float]) -> float:
    """The largest gain, if it is one; otherwise NaN, which equals no gain."""
    return max((gain for gain in gains if gain > 0), default=math.nan)


def _number(value: float, digits: int) -> str:
    """`value` with a true minus sign; – for NaN, ∞ for infinity, no minus before 0.00."""
    if math.isnan(value):
        return "–"
    size = "∞" if math.isinf(value) else f"{abs(value):.{digits}f}"
    return "−" + size if value < 0 and size.strip("0.") else size


def _sort_key(value: float) -> str:
    """`value` as JavaScript's Number() reads it; empty for NaN."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(float(value))


def _view_data(view: ImageViews, row: ImageRow | None) -> dict[str, object]:
    """What the viewer needs of one image. An input that is its own baseline is shown once."""
    names = {
        "lq": None if view.lq == view.baseline else view.lq,
        "baseline": view.baseline,
        "restored": view.restored,
        "target": view.target,
    }
    notes = {}
    if row is not None and view.target is not None:
        psnr, ssim, input_psnr, input_ssim, gain = (cell.text for cell in _cells(row, math.nan))
        notes = {
            "baseline": f"{input_psnr} dB / {input_ssim}",
            "restored": f"{psnr} dB / {ssim}",
            "gain": f"{gain} dB",
        }
    return {
        "set": printable(view.set),
        "image": printable(view.image),
        "files": {k: None if name is None else _link(view, name) for k, name in names.items()},
        "width": view.width,
        "height": view.height,
        "zoom": view.zoom,
        "notes": notes,
    }


def _link(view: ImageViews, path: str) -> str:
    """`path` as a relative URL; bytes that are no UTF-8 keep their value."""
    if not path or PurePosixPath(path).is_absolute():
        raise DataError(
            Problem(
                code="IMG",
                what="a report links only files near it",
                where=f"{view.set}/{view.image}",
                got=repr(path),
                expected="a POSIX path relative to the report's folder",
                fix="write the images below the report's folder",
            )
        )
    return quote(path, errors="surrogateescape")


def _as_script_data(value: object) -> str:
    """`value` as JSON that cannot end the script element it stands in."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _is_hash(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{7,64}", text) is not None


def _headed(name: str) -> str:
    return name[:1].upper() + name[1:]


def _package_text(name: str) -> str:
    return files("restore.reports.page").joinpath(name).read_text(encoding="utf-8")
