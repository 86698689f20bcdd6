"""Write docs/recipes.md: one row for each network and task that has option files.

  python scripts/write_recipes.py            write it
  python scripts/write_recipes.py --check    exit code 1 when the page differs

Task and network are said by the headers of options/*.yml, sets and scale by the files themselves,
figures by restore/reports/published/*.yml.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path
from typing import Any

from restore.options import read_document
from restore.reports.published.table import Published, published

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "recipes.md"
OPTIONS = ROOT / "options"
FAMILIES = {"SPAN": "SPAN", "MIRNet_v2": "MIRNet-v2", "MIMOUNet": "MIMO-UNet", "MaIR": "MaIR"}
FAMILIES["GRL"] = "GRL"
EVIDENCE = {"text": "", "image": " ⁱ", "second-hand": " ²"}
HEAD = """\
# Recipes

Written by `python scripts/write_recipes.py`; do not edit.

One row for each network and task: `python train.py -opt options/train_….yml`, then
`python test.py -opt options/test_….yml`. A file's header says what it promises, on which hardware,
from which data, and which values nobody could verify. Published figures are PSNR in dB / SSIM, of
the published weights and under the source's own rule ([protocols](protocols.md)), **not ours**:
none of these files has been trained to its end here. ⁱ: read off a picture of a table. ²:
second-hand. "not published": no source at hand gives or confirms a figure. A training file in
brackets belongs to another row; it makes the network that is tested.
"""
COLUMNS = ["network", "task", "at", "trained on", "tested on", "published", "files `options/…`"]


def main() -> int:
    """Write or compare the page."""
    parser = argparse.ArgumentParser(description="the table of option files")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check, text = parser.parse_args().check, page()
    if not check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE}: out of date; run python scripts/write_recipes.py", file=sys.stderr)
        return 1
    return 0


def page() -> str:
    """The whole page."""
    files = sorted(OPTIONS.glob("*.yml"), key=lambda file: file.name)
    small = [file for file in files if "demo" in file.stem or file.stem.startswith("bench")]
    tests = [file for file in files if file not in small and file.stem.startswith("test")]
    parts = [HEAD]
    for family, title in FAMILIES.items():
        rows = [_row(file) for file in tests if _stem(file).startswith(family)]
        parts.append(f"## {title}\n\n{_table(COLUMNS, rows)}")
    rows = [[f"`{file.name}`", _title(file)] for file in small]
    parts.append(f"## Demos and comparisons\n\n{_table(['file', 'what'], rows)}")
    return "\n".join(parts)


def _row(test: Path) -> list[str]:
    values = _values(test)
    training = OPTIONS / f"{Path(values['path']['pretrain_network_g'] or '').name}.yml"
    own = training.stem.removeprefix("train_") == _stem(test)
    names, described = [f"`{test.name}`"], training if training.exists() else test
    trained = "–"
    if training.exists():
        names.insert(0, f"`{training.name}`" if own else f"(`{training.name}`)")
        trained = _sets(training)[0]
    task = _title(described).partition(", ")[2].partition(":")[0].rstrip(".")
    tested = ", ".join(_sets(test))
    network = _stem(test).rpartition("_")[0]
    return [network, task, _at(values), trained, tested, _figures(test.name), " ".join(names)]


def _stem(file: Path) -> str:
    return file.stem.partition("_")[2]


@cache
def _values(file: Path) -> Any:
    return read_document(file).values


def _title(file: Path) -> str:
    """The first sentence of a file's header, which stands before `Paper:`."""
    lines = file.read_text(encoding="utf-8").partition("# Paper:")[0].splitlines()
    return " ".join(line.lstrip("# ") for line in lines[1:]).strip()


def _sets(file: Path) -> list[str]:
    return [about.get("name", key) for key, about in _values(file)["datasets"].items()]


def _at(values: Any) -> str:
    """Scale, noise level or quality."""
    if values["scale"] > 1:
        return f"×{values['scale']}"
    about = next(iter(values["datasets"].values())).get("degradation", {})
    levels = {"sigma": "σ", "quality": "q"}
    return next((f"{sign} {about[key]}" for key, sign in levels.items() if key in about), "")


def _figures(name: str) -> str:
    rows = [row for row in published() if row.options == name]
    return "; ".join(map(_said, rows)) or "not published"


def _said(row: Published) -> str:
    said = []
    for data, figures in row.figures.items():
        ssim = "" if figures.ssim is None else f" / {figures.ssim:g}".replace(" 0.", " .")
        said.append(f"{data} {figures.psnr:.2f}{ssim}")
    whose = f"{row.variant}: " if row.note and "--set" in row.note else ""
    return whose + ", ".join(said) + EVIDENCE[row.evidence]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
