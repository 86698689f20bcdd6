"""Is A better than B? Paired over images: mean difference, 95 % interval, p, wins, largest losses.

  restore compare experiments/test_A/results experiments/test_B/results
  restore compare experiments/bench_SR_demo/results/SPAN experiments/bench_SR_demo/results/MaIR

A and B are results of `restore test` or `restore bench`: a folder with rows.jsonl, a run's folder
or the file itself. Only images scored under the same protocol and border are compared.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from restore.errors import DataError
from restore.reports.sinks import log_to_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `compare`."""
    parser.add_argument("a", metavar="A")
    parser.add_argument("b", metavar="B")
    parser.add_argument(
        "--worst", type=int, default=5, metavar="K", help="A's K largest losses (5)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    log_to_console(first_rank=True)
    from restore.reports.page.tables import p_value
    from restore.reports.records import read_rows
    from restore.reports.statistics import compare
    from restore.reports.tables import number, text_table

    a, b = (read_rows(_rows_file(path)) for path in (args.a, args.b))
    worst = max(args.worst, 0)
    found = [d for m in ("psnr", "ssim") for d in compare(a, b, m, worst) if d.images]
    if not found:
        raise DataError.of(
            "DAT29",
            "nothing to compare",
            f"{args.a} and {args.b}",
            "no image scored in both under one protocol and border",
            "two runs on the same set",
            "test both under the same protocol",
        )
    if args.json:
        values = [asdict(d) | {"win_rate": d.win_rate} for d in found]
        print(json.dumps({"a": args.a, "b": args.b, "differences": values}, indent=2))
        return 0
    print(f"A  {args.a}\nB  {args.b}\n")
    head = [
        "set",
        "protocol",
        "images",
        "measure",
        "A",
        "B",
        "A − B",
        "95 % interval",
        "p",
        "A wins",
    ]
    lines = []
    for d in found:
        digits = 2 if d.measure == "psnr" else 4
        interval = "–"
        if not math.isnan(d.interval.low):
            interval = f"{d.interval.low:+.{digits + 1}f} … {d.interval.high:+.{digits + 1}f}"
        figures = [number(d.mean_a, digits), number(d.mean_b, digits)]
        gap = f"{d.mean:+.{digits + 1}f}"
        share = f"{100 * d.win_rate:.0f} %"
        about = [d.set, d.protocol, str(d.images), d.measure.upper()]
        lines.append([*about, *figures, gap, interval, p_value(d.p), share])
    print(text_table(head, lines))
    for d in found:
        if d.measure == "psnr" and d.worst:
            print(f"\n{d.set}, {d.protocol}: A less B where A does worst, dB")
            width = max(len(name) for name, _ in d.worst)
            print("\n".join(f"  {name.ljust(width)}  {gap:+.3f}" for name, gap in d.worst))
    left_out = sum(d.left_out for d in found if d.measure == "psnr")
    if left_out:
        print(f"\n{left_out} image(s) without a finite score in both were left out")
    return 0


def _rows_file(path: str) -> Path:
    given = Path(path)
    places = (given, given / "rows.jsonl", given / "results" / "rows.jsonl")
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        several = sorted(f.parent.name for f in given.glob("results/*/rows.jsonl"))
        raise DataError.of(
            "DAT29",
            "no results here",
            path,
            f"results of {', '.join(several)}" if several else "no rows.jsonl",
            "a folder with rows.jsonl",
            f"name {given / 'results' / several[0]}" if several else "run restore test first",
        )
    return found
