"""Published figures: only what a source confirms, once, strictly read."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from restore.archs.table import PRESETS
from restore.metrics.protocols import PROTOCOLS
from restore.reports.published.table import parse_published, published, published_as

OURS = {"SPAN": 5, "MaIR": 33, "GRL": 189, "MIRNet_v2": 3, "MIMOUNet": 15}
ALL = 867

ROW = """\
- family: SPAN
  variant: SPAN
  task: SRx4
  protocol: sr-y
  evidence: image
  source: somewhere
  figures: {Set5: {psnr: 32.2, ssim: 0.8953}}
"""


def test_figures_of_each_family_are_counted() -> None:
    counts = Counter[str]()
    for row in published():
        counts[row.family] += sum(len(f.given()) for f in row.figures.values())
    assert {family: counts[family] for family in OURS} == OURS
    assert counts.total() == ALL


# Figures that the collection of facts marks with "?": recalled, confirmed by no source at hand.
UNCONFIRMED = [
    ("SPAN/SPAN/SRx4", "Set5"), ("SPAN/SPAN/SRx4", "B100"), ("SPAN/SPAN/SRx4", "Manga109"),
    ("SPAN/SPAN/SRx2", "Set5"), ("SPAN/SPAN-S/SRx4", "Set5"), ("MaIR/MaIR/SRx2", "B100"),
    ("MaIR/MaIR/SRx4", "Set5"), ("MaIR/MaIR+/SRx4", "Set14"), ("MaIR/MaIR-S/SRx3", "Set5"),
    ("MaIR/MaIR-T/SRx4", "Set5"), ("MaIR/MaIRUNet/GoPro", "GoPro"), ("MaIR/MaIR/ColorDN15", ""),
    ("MIRNet_v2/MIRNet-v2/RealDenoising", "DND"), ("MIRNet_v2/MIRNet-v2/EnhancementFiveK", ""),
    ("MIRNet_v2/MIRNet-v2/DefocusDualPixel", ""), ("MIRNet_v2/MIRNet-v2/SRx4", ""),
    ("MIMOUNet/MIMO-UNet+/RealBlur-GoPro", "RealBlur-J"), ("GRL/GRL-B/SRx3", ""),
]  # fmt: skip


@pytest.mark.parametrize("name, data", UNCONFIRMED)
def test_unconfirmed_figures_are_not_there(name: str, data: str) -> None:
    found = [figures for row in published_as(name) for figures in row.figures]
    assert data not in found if data else not found


def test_unconfirmed_halves_are_not_there() -> None:
    """PSNRs whose SSIM is only recalled."""
    halves = [("SPAN/SPAN/SRx4", "Set14"), ("MIRNet_v2/MIRNet-v2/RealDenoising", "SIDD-val")]
    halves += [("MaIR/MaIR/SRx2", s) for s in ("Set5", "Set14", "Urban100", "Manga109")]
    halves += [("MIMOUNet/MIMO-UNet+/RealBlur-GoPro", "RealBlur-R")]
    for name, data in halves:
        (figures,) = [row.figures[data] for row in published_as(name) if data in row.figures]
        assert figures.psnr is not None and figures.ssim is None
    assert not [row for row in published() if row.variant.lower() == "bicubic"]


def test_no_marked_figure_of_the_facts_is_there(shared: Path) -> None:
    """Every `12.34/.567 ?` of the collection of facts."""
    text = (shared / "facts/models.md").read_text(encoding="utf-8")
    marked = set(re.findall(r"(\d\d\.\d\d) ?/ ?(\.\d{3,4}) ?\?", text))
    assert len(marked) > 15
    ours = {
        (f"{f.psnr:.2f}", f"{f.ssim:g}".lstrip("0"))
        for row in published()
        for f in row.figures.values()
        if f.psnr is not None and f.ssim is not None
    }
    assert not marked & ours


def test_every_row_says_where_it_is_from() -> None:
    for row in published():
        assert row.source.strip() and re.fullmatch(r"[\w+-]+/[^/]+/[\w-]+", row.name), row.name
    assert {name.partition("_")[0] for name in PRESETS} >= {"SPAN", "MaIR-S"}


def test_protocols_are_ours() -> None:
    named = {row.protocol for row in published() if row.protocol is not None}
    if "gopro-rgb" not in PROTOCOLS:
        pytest.skip("the protocols of restoration are not in this checkout")
    assert named <= set(PROTOCOLS)


def test_names_are_found_whatever_their_case() -> None:
    assert published_as("span/span-s/SRX4") == published_as("SPAN/SPAN-S/SRx4") != ()
    assert published_as("SPAN/SPAN/SRx9") == ()


@pytest.mark.parametrize(
    "before, after",
    [
        ("  source: somewhere\n", ""),
        ("evidence: image", "evidence: hearsay"),
        ("psnr: 32.2", "psnr: '32.2'"),
        ("psnr: 32.2", "psnr: 3.22"),
        ("ssim: 0.8953", "ssim: 89.53"),
        ("ssim: 0.8953", "ssmi: 0.8953"),
        ("{psnr: 32.2, ssim: 0.8953}", "{}"),
        ("{Set5: {psnr: 32.2, ssim: 0.8953}}", "{}"),
        ("protocol: sr-y", "protocol: SR Y"),
        ("- family", "family"),
        ("task: SRx4", "task: super resolution"),
    ],
)
def test_wrong_rows_are_refused(before: str, after: str) -> None:
    assert parse_published(ROW)[0].figures["Set5"].given() == {"psnr": 32.2, "ssim": 0.8953}
    assert before in ROW
    with pytest.raises(Exception, match=r"(?s)."):
        parse_published(ROW.replace(before, after))
