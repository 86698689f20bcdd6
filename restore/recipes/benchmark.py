"""Floor 6. A benchmark run: every set scored, images kept for the page, results at the end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from restore import images
from restore.evaluation.evaluator import Provenance, Seen
from restore.recipes.build import TestRun
from restore.recipes.experiment import begin
from restore.recipes.trees import TestTree
from restore.reports.page.page import ImageViews, Page, write_page
from restore.reports.provenance import commit, versions
from restore.reports.records import ImageRow, SetScore, summarise, write_results
from restore.reports.sinks import progress
from restore.reports.tables import number, score_table
from restore.world import World

ZOOM = 64  # side of the region shown enlarged


def run_benchmark(tree: TestTree, run: TestRun, world: World) -> str:
    """Score all sets, write the results folder, and return the table with the page's path."""
    working, final = run.experiment.unfinished_results, run.experiment.results
    if world.first:
        begin(working, tree, afresh=True)
    world.barrier()
    provenance = Provenance(_name(tree), run.weights_sha256, commit())
    rows: list[ImageRow] = []
    views: list[ImageViews] = []
    for place, evaluator in enumerate(run.evaluators, start=1):
        count = len(evaluator.source)
        keeper = _Keeper(tree, working, place, count)
        mine = len(range(world.rank, count, world.size))
        with progress(mine, 0, evaluator.name, shown=world.first) as bar:
            rows += evaluator.run(run.predictor, provenance, keeper.each(bar.update))
        if world.first:  # the evaluator has waited for all ranks: every picture is there
            views += keeper.views(evaluator.source.name, rows[-count:])
    if not world.first:
        return ""
    _write(tree, run, rows, views, working)
    shutil.rmtree(final, ignore_errors=True)
    working.rename(final)
    table = score_table(summarise(rows), _baseline(tree))
    return f"{table}\n\npage: {final / 'report/index.html'}\nrows: {final / 'rows.jsonl'}"


def _baseline(tree: TestTree) -> str:
    return "bicubic" if tree.scale > 1 else "input"


def _name(tree: TestTree) -> str:
    network = f"{getattr(tree.network_g, 'type', '')} ×{tree.scale}"
    return network if tree.val.ensemble == 1 else f"{network}, self-ensemble of {tree.val.ensemble}"


def _write(
    tree: TestTree, run: TestRun, rows: list[ImageRow], views: list[ImageViews], results: Path
) -> None:
    rule, border = tree.val.rule(tree.scale)
    about = {
        "network": _name(tree),
        "parameters_deployed": run.parameters,
        "weights": tree.path.pretrain_network_g,
        "weights_sha256": run.weights_sha256,
        "border": border,
        "commit": commit(),
        "versions": versions(),
    }
    write_results(results, rows, about)
    page = Page(
        title=tree.name,
        facts=[
            ("network", f"{_name(tree)}, {run.parameters:,} parameters deployed"),
            ("weights", str(tree.path.pretrain_network_g)),
            ("weights sha256", run.weights_sha256),
            ("protocol", f"{rule.name}, border {border}: {rule.about}"),
            *_own_figures(summarise(rows)),
            ("code", f"restore {versions()['restore']} {commit()}".strip()),
        ],
        scores=summarise(rows),
        rows=rows,
        views=views,
        baseline_name=_baseline(tree),
    )
    write_page(results / "report", page)


def _own_figures(scores: list[SetScore]) -> list[tuple[str, str]]:
    """The user's own metrics as facts of the page: (name, its mean over each set)."""
    names = scores[0].further if scores else {}
    return [
        (name, ", ".join(f"{s.set} {number(s.further[name], 4)}" for s in scores)) for name in names
    ]


class _Keeper:
    """Saves what the page and the user want to see of one set."""

    def __init__(self, tree: TestTree, results: Path, place: int, count: int) -> None:
        self._tree, self._results = tree, results
        self._folder = f"images/{place:02d}"
        shown = min(count, tree.val.report_images)
        self._shown = {number * count // shown for number in range(shown)}

    def each(self, done: Callable[[], object]) -> Callable[[int, Seen], None]:
        """The evaluator's callback; `done` is called after every image."""

        def keep(index: int, seen: Seen) -> None:
            if self._tree.val.save_img:
                self._save_restored(seen)
            if index in self._shown:
                self._save_views(index, seen)
            done()

        return keep

    def _save_restored(self, seen: Seen) -> None:
        folder = self._results / "visualization" / _folder_name(seen.set)
        folder.mkdir(parents=True, exist_ok=True)
        suffix = self._tree.val.suffix or self._tree.name
        images.write(folder / f"{seen.pair.name}_{suffix}.png", seen.restored)

    def _save_views(self, index: int, seen: Seen) -> None:
        folder = self._results / "report" / self._folder
        folder.mkdir(parents=True, exist_ok=True)
        baseline = seen.baseline()
        layers = {"lq": seen.pair.view, "baseline": baseline, "restored": seen.restored}
        if seen.pair.gt is not None:
            layers["gt"] = seen.pair.gt
            zoom = _worst_region(baseline, seen.pair.gt)
            (folder / f"{index:05d}.zoom").write_text(" ".join(map(str, zoom)))
        for name, image in layers.items():
            images.write(folder / f"{index:05d}_{name}.png", image)

    def views(self, name_of: Callable[[int], str], rows: list[ImageRow]) -> list[ImageViews]:
        """The views of the shown images, whichever rank saved them."""
        folder = self._results / "report" / self._folder
        found = []
        for index in sorted(self._shown):
            row, stem = rows[index], f"{self._folder}/{index:05d}"
            side = min(ZOOM, row.width, row.height)
            zoom = ((row.width - side) // 2, (row.height - side) // 2, side, side)
            note = folder / f"{index:05d}.zoom"
            target = None
            if note.exists():
                x, y, width, height = map(int, note.read_text().split())
                zoom, target = (x, y, width, height), f"{stem}_gt.png"
                note.unlink()
            found.append(
                ImageViews(
                    set=row.set,
                    image=name_of(index),
                    lq=f"{stem}_lq.png",
                    baseline=f"{stem}_baseline.png",
                    restored=f"{stem}_restored.png",
                    target=target,
                    width=row.width,
                    height=row.height,
                    zoom=zoom,
                )
            )
        return found


def _folder_name(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".") or "set"


def _worst_region(baseline: np.ndarray, target: np.ndarray) -> tuple[int, int, int, int]:
    """(x, y, w, h) of the square in which the baseline is farthest from the target."""
    height, width = target.shape[:2]
    side = min(ZOOM, height, width)
    error = np.square(baseline.astype(np.float64) - target.astype(np.float64))
    error = error.reshape(height, width, -1).sum(axis=2)
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    y, x = np.meshgrid(
        np.arange(0, height - side + 1, 8), np.arange(0, width - side + 1, 8), indexing="ij"
    )
    within = sums[y + side, x + side] - sums[y, x + side] - sums[y + side, x] + sums[y, x]
    row, column = np.unravel_index(int(within.argmax()), within.shape)
    return int(x[row, column]), int(y[row, column]), side, side
