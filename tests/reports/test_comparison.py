"""Tables for papers: who is best, what is printed, what is escaped."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restore.reports.comparison import Comparison, Contender, Quoted, compare_all
from restore.reports.page.charts import Curve, Point, lines, scatter
from restore.reports.papers import as_csv, count, duration, latex, markdown
from restore.reports.records import ImageRow

BASE = ImageRow("Set5", "a", "sr-y", 4, 0.0, 0.9, 28.0, 0.8, 8, 8, 0.1, "N", "ab", "c0")


def contender(name: str, scores: dict[str, list[tuple[float, float]]], seconds: float = 0.1):
    rows = [
        replace(BASE, set=data, image=str(k), psnr=psnr, ssim=ssim, seconds=seconds * (k + 1))
        for data, values in scores.items()
        for k, (psnr, ssim) in enumerate(values)
    ]
    return Contender(name, 1000 * len(name), rows)


@pytest.fixture
def comparison() -> Comparison:
    people = [
        contender("SPAN", {"Set5": [(32.204, 0.8953), (30.0, 0.91)], "B100": [(27.0, 0.7)]}),
        contender("MaIR_S & co", {"Set5": [(32.226, 0.8), (30.0, 0.91)]}),
        contender("tiny", {"Set5": [(20.0, 0.5), (20.0, 0.5)], "B100": [(math.inf, 1.0)]}),
    ]
    quoted = [Quoted("SwinIR", "sr-y", "its table", {"Set5": (40.0, math.nan)})]
    (found,) = compare_all(people, "bicubic", quoted)
    return found


def ranks(comparison: Comparison, data: str) -> dict[str, tuple[str, str]]:
    return {
        s.name: (s.scores[data].psnr_rank, s.scores[data].ssim_rank)
        for s in comparison.standings
        if data in s.scores
    }


def test_best_and_second_are_those_of_the_printed_figures(comparison: Comparison) -> None:
    assert ranks(comparison, "Set5") == {
        "bicubic": ("", ""), "SPAN": ("second", "best"), "MaIR_S & co": ("best", "second"),
        "tiny": ("", ""), "SwinIR": ("", ""),
    }  # fmt: skip
    assert ranks(comparison, "B100")["tiny"] == ("best", "best")
    assert [s.kind for s in comparison.standings] == ["baseline"] + ["measured"] * 3 + ["published"]


def test_equal_as_printed_share_the_place() -> None:
    people = [contender(n, {"Set5": [(p, 0.9)]}) for n, p in (("a", 31.001), ("b", 30.999))]
    (found,) = compare_all(people, "bicubic")
    assert [r[0] for r in ranks(found, "Set5").values()] == ["second", "best", "best"]


def test_each_protocol_has_its_table() -> None:
    one = contender("a", {"Set5": [(30.0, 0.9)]})
    rows = [*one.rows, *(replace(row, protocol="rgb@1", psnr=29.0) for row in one.rows)]
    found = compare_all([Contender("a", None, rows)], "input", [Quoted("q", "rgb", "s", {})])
    assert [c.protocol for c in found] == ["sr-y", "rgb@1"]
    assert [s.name for s in found[1].standings] == ["input", "a"]  # q says nothing of Set5


def test_markdown(comparison: Comparison) -> None:
    text = markdown(comparison).splitlines()
    assert text[0] == "Protocol sr-y, border 4; PSNR in dB / SSIM."
    assert text[2] == "| Network | Params | Time | Set5 | B100 |"
    assert len({line.count("|") for line in text[2:]}) == 1
    assert "| SPAN | 4.0 K | 100 ms | <u>31.10</u>/**0.9026** | 27.00/0.7000 |" in "\n".join(text)
    assert text[-1] == "| SwinIR (published) | – | – | 40.00/– | – |"


def test_latex_is_balanced_and_escaped(comparison: Comparison) -> None:
    text = latex(comparison)
    assert r"MaIR\_S \& co" in text and text.count(r"\midrule") == 3
    assert r"\textbf{31.11}" in text and r"\underline{31.10}" in text
    body = [
        line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    columns = len("lrr" + "rr" * 2)
    assert {line.replace(r"\&", "").count("&") for line in body} == {columns - 1}
    assert text.count("{") == text.count("}") and text.isascii()


def test_csv_holds_unrounded_figures(comparison: Comparison) -> None:
    table = list(csv.DictReader(io.StringIO(as_csv([comparison]))))
    (span,) = [r for r in table if (r["network"], r["set"]) == ("SPAN", "Set5")]
    assert float(span["psnr"]) == (32.204 + 30.0) / 2 and span["images"] == "2"
    (quoted,) = [r for r in table if r["kind"] == "published"]
    assert quoted["ssim"] == "" and quoted["seconds"] == ""


@pytest.mark.parametrize(
    "value, text", [(None, "–"), (4_000, "4.0 K"), (498_208, "498 K"), (19_591_959, "19.59 M")]
)
def test_parameters(value: int | None, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    "value, text", [(math.nan, "–"), (0.00123, "1.23 ms"), (0.9999, "1 s"), (2.345, "2.35 s")]
)
def test_durations(value: float, text: str) -> None:
    assert duration(value) == text


FIGURES = st.floats(0.001, 1000)


@given(st.lists(st.tuples(FIGURES, st.floats(5, 70)), min_size=2, max_size=9))
def test_points_lie_inside_their_chart(points: list[tuple[float, float]]) -> None:
    named = [Point(f"<{k}>", k, s, p, 10**k) for k, (s, p) in enumerate(points)]
    chart = scatter(named, "PSNR")
    assert chart is not None and "<0>" not in chart and chart.count("<circle") == len(points)
    for axis, most in (("cx", 480), ("cy", 290)):
        places = [float(part.split('"')[0]) for part in chart.split(f'{axis}="')[1:]]
        assert all(0 <= place <= most for place in places)


def test_charts_need_something_to_draw() -> None:
    assert scatter([Point("a", 0, 0.1, 30, None)], "PSNR") is None
    assert lines([Curve("a", 0, (1,), (2,))], "loss", "Loss") is None
    long = Curve("a", 0, tuple(range(10_000)), tuple(math.sin(k) for k in range(10_000)))
    chart = lines([long], "loss", "Loss")
    assert chart is not None and chart.count(",") < 600
