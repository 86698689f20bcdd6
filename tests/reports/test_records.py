"""Rows in words and in files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

from restore.reports.comparison import Contender, spreads
from restore.reports.records import ImageRow, manner, read_rows, write_results
from restore.reports.tables import spread_table

ROW = ImageRow(
    set="Set5", image="a", protocol="sr-y@1", border=2, psnr=31.0, ssim=0.9, input_psnr=30.0,
    input_ssim=0.8, width=96, height=64, seconds=0.1, network="SPAN", weights_sha256="ab",
    commit="", device="cpu",
)  # fmt: skip
TILED = replace(
    ROW, image="b", tiling="blend", tiles=6, tile=96, overlap=16, precision="bf16", ensemble=8,
    compiled=True, device="cuda", backend="triton",
)  # fmt: skip


def test_how_images_were_restored_in_words() -> None:
    assert manner([ROW]) == "fp32, whole, on cpu"
    assert manner([TILED, replace(TILED, image="c", tile=80)]) == (
        "bf16, self-ensemble of 8, tiles (blend) of 80 to 96, overlapping by 16, compiled, "
        "on cuda, scan backend triton"
    )
    mixed = [ROW, replace(ROW, image="b", tiling="mair", tiles=4, tile=120, overlap=12)]
    under_two = [*mixed, *(replace(row, protocol="rgb@1") for row in mixed)]
    assert manner(under_two) == manner(mixed)
    assert (
        manner(mixed) == "fp32, 1 of 2 images whole, tiles (mair) of 120, overlapping by 12, on cpu"
    )


def test_results_say_how_they_were_made(tmp_path: Path) -> None:
    """Nothing of a row is missing from the table, and the summary says it in words."""
    write_results(tmp_path, [TILED], {"network": "SPAN"})
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        (line,) = csv.DictReader(file)
    asked = {"precision": "bf16", "ensemble": "8", "tiling": "blend", "tiles": "6", "tile": "96"}
    asked |= {"overlap": "16", "compiled": "True", "device": "cuda", "backend": "triton"}
    assert asked.items() <= line.items()
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["restored"] == manner([TILED]) and summary["sets"]["Set5"]["border"] == 2
    assert repr(read_rows(tmp_path / "rows.jsonl")) == repr([TILED])


def test_names_that_are_no_unicode_can_be_written(tmp_path: Path) -> None:
    odd = replace(ROW, image="a\udcff")
    write_results(tmp_path, [odd], {})
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        assert [line["image"] for line in csv.DictReader(file)] == ["a\\udcff"]
    assert read_rows(tmp_path / "rows.jsonl")[0].image == odd.image


def test_rows_older_than_a_column_can_be_read(tmp_path: Path) -> None:
    new = ("compiled", "device", "backend")
    old = {key: value for key, value in vars(ROW).items() if key not in new}
    (tmp_path / "rows.jsonl").write_text(json.dumps(old) + "\n")
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert (row.compiled, row.device, row.backend) == (False, "", "")
    assert manner([row]) == "fp32, whole"


def test_how_far_protocols_are_apart() -> None:
    rows = [ROW, replace(ROW, image="b", psnr=33.0)]
    rows += [replace(row, protocol="rgb@1", psnr=row.psnr - 2, ssim=0.95) for row in rows]
    (found,) = spreads([Contender("SPAN", 1, rows)])
    assert found.psnr == (30.0, "rgb@1", 32.0, "sr-y@1")
    assert found.ssim == (0.9, "sr-y@1", 0.95, "rgb@1") and found.protocols == 2
    assert spread_table([found]).splitlines()[-1].split() == [
        *("SPAN,", "Set5", "2", "30.00", "rgb@1", "32.00", "sr-y@1", "2.00"),
        *("0.9000", "sr-y@1", "0.9500", "rgb@1", "0.0500"),
    ]
    assert spreads([Contender("SPAN", 1, rows[:2])]) == [] and spread_table([]) == ""
