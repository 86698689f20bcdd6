"""Floor 6. A benchmark run: every set scored, images kept for the page, results at the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from restore import images
from restore.evaluation.evaluator import Provenance, Seen
from restore.recipes.build import TestRun
from restore.recipes.experiment import begin
from restore.recipes.gallery import TABLES, folder_name, training_curves, view_of
from restore.recipes.pictures import chosen, save_pair, save_restored
from restore.recipes.trees import TestTree
from restore.reports.comparison import Contender, compare_all
from restore.reports.page.page import ImageViews, Page, write_page
from restore.reports.papers import write_tables
from restore.reports.provenance import commit, versions
from restore.reports.records import ImageRow, SetScore, summarise, write_results
from restore.reports.sinks import progress
from restore.reports.tables import number, score_table
from restore.world import World


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
            views += keeper.views(_name(tree), rows[-count:])
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
    network = str(getattr(tree.network_g, "type", ""))
    network += f" ×{tree.scale}" if tree.scale > 1 else ""
    return network if tree.val.ensemble == 1 else f"{network}, self-ensemble of {tree.val.ensemble}"


def _write(
    tree: TestTree, run: TestRun, rows: list[ImageRow], views: list[ImageViews], results: Path
) -> None:
    rule, border = tree.val.rule(tree.scale)
    about: dict[str, object] = {
        "network": _name(tree),
        "parameters_deployed": run.parameters,
        "weights": tree.path.pretrain_network_g,
        "weights_sha256": run.weights_sha256,
        "border": border,
        "commit": commit(),
        "versions": versions(),
    }
    write_results(results, rows, about)
    contender = Contender(_name(tree), run.parameters, rows)
    write_tables(results / "report", compare_all([contender], _baseline(tree)))
    page = Page(
        title=tree.name,
        facts=[
            ("network", f"{_name(tree)}, {run.parameters:,} parameters deployed"),
            ("weights", str(tree.path.pretrain_network_g)),
            ("weights sha256", run.weights_sha256),
            ("protocol", f"{rule.stamp}, border {border}: {rule.about}"),
            *_own_figures(summarise(rows)),
            ("code", f"restore {versions()['restore']} {commit()}".strip()),
        ],
        contenders=[contender],
        baseline_name=_baseline(tree),
        views=views,
        curves=training_curves({_name(tree): tree.path.pretrain_network_g or ""}),
        files=TABLES,
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
        self._shown = chosen(count, tree.val.report_images)

    def each(self, done: Callable[[], object]) -> Callable[[int, Seen], None]:
        """The evaluator's callback; `done` is called after every image."""
        shown, folder = set(self._shown), self._results / "report" / self._folder

        def keep(index: int, seen: Seen) -> None:
            if self._tree.val.save_img:
                self._save_restored(seen)
            if index in shown:
                save_pair(folder, index, seen)
                save_restored(folder, index, seen.restored)
            done()

        return keep

    def _save_restored(self, seen: Seen) -> None:
        folder = self._results / "visualization" / folder_name(seen.set)
        folder.mkdir(parents=True, exist_ok=True)
        suffix = self._tree.val.suffix or self._tree.name
        images.write(folder / f"{seen.pair.name}_{suffix}.png", seen.restored)

    def views(self, contender: str, rows: list[ImageRow]) -> list[ImageViews]:
        """The views of the shown images, whichever rank saved them."""
        folder = self._results / "report" / self._folder
        found = []
        for index in self._shown:
            stem = f"{self._folder}/{index:05d}"
            restored = {contender: f"{stem}_restored.png"}
            view = view_of(folder, index, rows[index], stem, restored)
            if view is not None:
                found.append(view)
                (folder / f"{index:05d}.zoom").unlink()
        return found
