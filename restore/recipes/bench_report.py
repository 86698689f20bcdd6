"""Floor 6. A filled matrix as a folder: rows per contender, tables for papers, and the page."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restore.recipes.bench import Filled, by_contender
from restore.recipes.bench_trees import BenchTree
from restore.recipes.experiment import Experiment
from restore.recipes.gallery import TABLES, folder_name, share, training_curves, view_of
from restore.recipes.pictures import PAIR, chosen
from restore.reports.comparison import Comparison, Contender, Quoted, compare_all, spreads
from restore.reports.page.page import ImageViews, Page, write_page
from restore.reports.papers import count, duration, write_tables
from restore.reports.provenance import commit, versions
from restore.reports.published.table import published_as
from restore.reports.records import manner, write_results
from restore.reports.tables import number, spread_table, text_table


@dataclass(frozen=True)
class BenchReport:
    """What a command prints: the tables as text, the failures, where the page is."""

    text: str
    failures: tuple[str, ...]
    left_out: tuple[str, ...]
    page: Path


def write_report(tree: BenchTree, filled: Sequence[Filled]) -> BenchReport:
    """Write `results/` and `report/` of the matrix' experiment, each replaced whole."""
    folder = Experiment(tree.path.experiments_root, tree.name).folder
    contenders = contenders_of(filled)
    _write_rows(folder, filled, contenders)
    baseline = "bicubic" if tree.scale > 1 else "input"
    failures = tuple(f"{f.planned.cell}: {f.error}" for f in filled if f.error)
    left_out = tuple(f"{f.planned.cell}: {f.left_out}" for f in filled if f.left_out)
    quoted = quoted_rows(tree.published)
    comparisons = compare_all(contenders, baseline, quoted)
    working, final = folder / ".report.tmp", folder / "report"
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    write_tables(working, comparisons)
    page = Page(
        title=tree.name,
        facts=_facts(tree, filled, contenders),
        contenders=contenders,
        baseline_name=baseline,
        views=_views(folder / "cells", working, filled),
        quoted=quoted,
        curves=training_curves({n: about.weights for n, about in tree.networks.by_name().items()}),
        failures=failures,
        files=TABLES,
        protocols={
            rule.stamp: rule.about
            for cell in tree.cells()
            for rule, _ in cell.tree.val.rules(tree.scale)
        },
        left_out=left_out,
    )
    write_page(working, page)
    shutil.rmtree(final, ignore_errors=True)
    working.rename(final)
    tables = [*map(comparison_text, comparisons), spread_table(spreads(contenders))]
    text = "\n\n".join(filter(None, tables))
    return BenchReport(text, failures, left_out, final / "index.html")


def contenders_of(filled: Sequence[Filled]) -> list[Contender]:
    """Every network under every variant that has at least one cell."""
    return [
        Contender(name, cells[0].about["parameters"], [row for cell in cells for row in cell.rows])
        for name, cells in by_contender(filled).items()
    ]


def quoted_rows(names: Sequence[str]) -> list[Quoted]:
    """Published rows by name, those of one name and several sources as one line."""
    found = []
    for name in names:
        rows = published_as(name)
        for protocol in dict.fromkeys(row.protocol for row in rows if row.protocol is not None):
            of_rule = [row for row in rows if row.protocol == protocol]
            scores: dict[str, tuple[float, float]] = {}
            for row in of_rule:
                for data, figures in row.figures.items():
                    psnr, ssim = figures.psnr, figures.ssim
                    scores[data] = (
                        math.nan if psnr is None else psnr,
                        math.nan if ssim is None else ssim,
                    )
            sources = "; ".join(dict.fromkeys(row.source for row in of_rule))
            found.append(Quoted(of_rule[0].variant, protocol, sources, scores))
    return found


def comparison_text(comparison: Comparison) -> str:
    """A comparison for the terminal: best marked *, published rows bracketed."""
    head = [comparison.protocol, "params", "time"]
    head += [text for name in comparison.sets for text in (name, "SSIM")]
    lines = []
    for standing in comparison.standings:
        name = f"[{standing.name}]" if standing.kind == "published" else standing.name
        cells = [name, count(standing.parameters), duration(standing.seconds)]
        for data in comparison.sets:
            score = standing.scores.get(data)
            if score is None:
                cells += ["–", "–"]
                continue
            cells.append(number(score.psnr, 2) + ("*" if score.psnr_rank == "best" else " "))
            cells.append(number(score.ssim, 4) + ("*" if score.ssim_rank == "best" else " "))
        lines.append(cells)
    return text_table(head, lines)


def _write_rows(folder: Path, filled: Sequence[Filled], contenders: Sequence[Contender]) -> None:
    """`results/<contender>/`: what `restore compare` takes."""
    working, final = folder / ".results.tmp", folder / "results"
    shutil.rmtree(working, ignore_errors=True)
    groups = by_contender(filled)
    for contender in contenders:
        cells = groups[contender.name]
        path = cells[0].planned.cell.tree.path
        about: dict[str, object] = {
            "network": contender.name,
            "parameters_deployed": contender.parameters,
            "weights": path.pretrain_network_g,
            "weights_sha256": contender.rows[0].weights_sha256 if contender.rows else "",
            "cells": {str(f.planned.cell): f.planned.key for f in cells},
            "data_sha256": {f.planned.cell.set: f.planned.data for f in cells},
            "commit": commit(),
            "versions": versions(),
        }
        target = working / folder_name(contender.name)
        target.mkdir(parents=True, exist_ok=True)
        write_results(target, contender.rows, about)
    shutil.rmtree(final, ignore_errors=True)
    if working.exists():
        working.rename(final)


def _facts(
    tree: BenchTree, filled: Sequence[Filled], contenders: Sequence[Contender]
) -> list[tuple[str, str]]:
    done = [cell for cell in filled if cell.done]
    fitting = [cell for cell in filled if not cell.left_out]
    facts = [("matrix", f"{len(done)} of {len(fitting)} cells, ×{tree.scale}")]
    manners: dict[str, list[str]] = {}
    for contender in contenders:
        manners.setdefault(manner(contender.rows), []).append(contender.name)
    facts += [("restored", f"{' · '.join(names)}: {how}") for how, names in manners.items()]
    seen: set[str] = set()
    for contender in contenders:
        digest = contender.rows[0].weights_sha256 if contender.rows else ""
        if digest and digest not in seen:
            seen.add(digest)
            facts.append((f"{contender.name.partition(',')[0]} sha256", digest[:16]))
    return [*facts, ("code", f"restore {versions()['restore']} {commit()}".strip())]


def _views(cells: Path, report: Path, filled: Sequence[Filled]) -> list[ImageViews]:
    """The kept images of every set, under its first protocol, shared into the report's folder."""
    found = []
    done = [cell for cell in filled if cell.done]
    for data in dict.fromkeys(cell.planned.data for cell in done):
        group = [cell for cell in done if cell.planned.data == data]
        group = [c for c in group if c.planned.cell.protocol == group[0].planned.cell.protocol]
        shown = chosen(len(group[0].rows), group[0].planned.cell.tree.val.report_images)
        for index in shown:
            view = _view(cells, report, group, index)
            if view is not None:
                found.append(view)
    return found


def _view(cells: Path, report: Path, group: Sequence[Filled], index: int) -> ImageViews | None:
    pairs = cells / group[0].planned.data[:16]
    stem = f"images/{group[0].planned.data[:16]}/{index:05d}"
    restored = {}
    for cell in group:
        name = f"images/{cell.planned.key}/{index:05d}_restored.png"
        file = cells / cell.planned.key / f"{index:05d}_restored.png"
        if file.exists():
            share(file, report / name)
            restored[cell.planned.cell.contender] = name
    for name in PAIR:
        if (pairs / f"{index:05d}_{name}").exists():
            share(pairs / f"{index:05d}_{name}", report / f"{stem}_{name}")
    return view_of(pairs, index, group[0].rows[index], stem, restored)
