"""Floor 2. A report as one HTML file in a folder that opens without a network.

The tables and charts are written by the template; `page.js` only sorts, filters and drives the
viewer. Names come from outside, so all text is escaped and the page's content policy lets nothing
else run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from restore.errors import DataError, printable
from restore.reports.comparison import Contender, Quoted, compare_all
from restore.reports.curves import Series
from restore.reports.page.tables import (
    best_gain,
    curve_charts,
    difference_lines,
    image_table,
    score_tables,
    shown_number,
    spread_lines,
)
from restore.reports.records import ImageRow, replace_text

OPEN_TABLES = 3  # protocols whose tables are open at first


@dataclass(frozen=True)
class ImageViews:
    """What one image can be seen as. Files are POSIX paths relative to the page's folder.

    `restored`: contender -> file. `width` and `height` are those of restored and target; `lq` may
    be smaller and is shown scaled up. `zoom` is x, y, w, h of the region first shown enlarged, in
    target pixels. `thumb`: a small picture for the strip.
    """

    set: str
    image: str
    lq: str
    baseline: str
    restored: dict[str, str]
    target: str | None
    thumb: str | None
    width: int
    height: int
    zoom: tuple[int, int, int, int]


_Placed = tuple[int, ImageRow]
"""A row and the place of its contender."""


@dataclass(frozen=True)
class Page:
    """What was measured (`facts`), who was (`contenders`), what failed, and what can be seen.

    `baseline_name`: bicubic or input. `files`: (label, path) of what lies beside the page.
    `protocols`: what a protocol (name and version) compares. `left_out`: those that did not fit.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    contenders: Sequence[Contender]
    baseline_name: str
    views: Sequence[ImageViews]
    quoted: Sequence[Quoted] = ()
    curves: Sequence[Series] = ()
    failures: Sequence[str] = ()
    files: Sequence[tuple[str, str]] = ()
    protocols: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()


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
    layers = {"lq": "LQ", "baseline": _headed(baseline)}
    layers |= {f"r{k}": printable(c.name) for k, c in enumerate(page.contenders)}
    layers["target"] = "GT"
    comparisons = compare_all(page.contenders, page.baseline_name, page.quoted)
    rows = _rows_by_image(page.contenders)
    views = [_view_data(page, v, rows.get((v.set, v.image), [])) for v in page.views]
    table = image_table(page.contenders, [(view.set, view.image) for view in page.views])
    return environment.from_string(_package_text("template.html.j2")).render(
        title=printable(page.title),
        facts=[(printable(name), printable(value), _is_hash(value)) for name, value in page.facts],
        failures=[printable(failure) for failure in page.failures],
        files=[(printable(label), quote(path)) for label, path in page.files],
        left_out=[printable(line) for line in page.left_out],
        scores=score_tables(comparisons, page.protocols),
        open_tables=OPEN_TABLES,
        spreads=spread_lines(page.contenders),
        differences=difference_lines(page.contenders),
        reference=printable(page.contenders[0].name) if page.contenders else "",
        curves=curve_charts(page.curves),
        names=[printable(c.name) for c in page.contenders],
        table=table,
        layers=layers,
        baseline=baseline,
        views=_as_script_data(views),
        thumbs=[None if view.thumb is None else _link(view, view.thumb) for view in page.views],
        shown=[(printable(v.image), printable(v.set), v.width, v.height) for v in page.views],
        style=_package_text("page.css"),
        script=script,
        script_digest=digest,
    )


def _view_data(page: Page, view: ImageViews, rows: Sequence[_Placed]) -> dict[str, object]:
    """What the viewer needs of one image. An input that is its own baseline is shown once."""
    names: dict[str, str | None] = {
        "lq": None if view.lq == view.baseline else view.lq,
        "baseline": view.baseline,
    }
    names |= {f"r{k}": view.restored.get(c.name) for k, c in enumerate(page.contenders)}
    names["target"] = view.target
    return {
        "set": printable(view.set),
        "image": printable(view.image),
        "files": {k: None if name is None else _link(view, name) for k, name in names.items()},
        "width": view.width,
        "height": view.height,
        "zoom": view.zoom,
        "notes": {} if view.target is None else _notes(rows),
    }


def _rows_by_image(contenders: Sequence[Contender]) -> dict[tuple[str, str], list[_Placed]]:
    """(set, image) -> its rows, each with its contender's place."""
    found: dict[tuple[str, str], list[_Placed]] = {}
    for place, contender in enumerate(contenders):
        for row in contender.rows:
            found.setdefault((row.set, row.image), []).append((place, row))
    return found


def _notes(rows: Sequence[_Placed]) -> dict[str, dict[str, str]]:
    """Protocol -> the figures of each layer of one image, and the best gain, as text."""
    notes: dict[str, dict[str, str]] = {}
    for protocol in dict.fromkeys(row.protocol for _, row in rows):
        of_rule = [(place, row) for place, row in rows if row.protocol == protocol]
        texts = {f"r{place}": _note(row.psnr, row.ssim) for place, row in of_rule}
        texts["baseline"] = _note(of_rule[0][1].input_psnr, of_rule[0][1].input_ssim)
        gain = best_gain([row for _, row in of_rule])
        if not math.isnan(gain):
            texts["gain"] = f"{shown_number(gain, 2, sign=True)} dB"
        notes[printable(protocol)] = texts
    return notes


def _note(psnr: float, ssim: float) -> str:
    return f"{shown_number(psnr, 2)} dB / {shown_number(ssim, 4)}"


def _link(view: ImageViews, path: str) -> str:
    """`path` as a relative URL; bytes that are no UTF-8 keep their value."""
    if not path or PurePosixPath(path).is_absolute():
        raise DataError.of(
            "IMG14",
            "a report links only files near it",
            f"{view.set}/{view.image}",
            repr(path),
            "a POSIX path relative to the report's folder",
            "write the images below the report's folder",
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
