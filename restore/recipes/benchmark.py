"""Floor 6. A benchmark run: every set scored, images kept for the page, results at the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from restore import images
from restore.errors import DataError
from restore.evaluation.evaluator import Evaluator, Seen, Survey
from restore.recipes.build import TestRun
from restore.recipes.experiment import begin
from restore.recipes.gallery import TABLES, folder_name, training_curves, view_of
from restore.recipes.pictures import chosen, save_pair, save_restored
from restore.recipes.trees import TestTree
from restore.reports.comparison import Contender, compare_all, spreads
from restore.reports.page.page import ImageViews, Page, write_page
from restore.reports.papers import write_tables
from restore.reports.provenance import versions
from restore.reports.records import ImageRow, SetScore, manner, summarise, write_results
from restore.reports.sinks import progress
from restore.reports.tables import number, score_table, spread_table
from restore.world import World


def run_benchmark(tree: TestTree, run: TestRun, world: World) -> str:
    """Score all sets, write the results folder, and return the table with the page's path."""
    working, final = run.experiment.unfinished_results, run.experiment.results
    if world.first:
        begin(working, tree, afresh=True)
    world.barrier()
    rows: list[ImageRow] = []
    left_out: list[str] = []
    views: list[ImageViews] = []
    for place, evaluator in enumerate(run.evaluators, start=1):
        count = len(evaluator.source)
        keeper = _Keeper(tree, working, place, count)
        mine = len(range(world.rank, count, world.size))
        with progress(mine, 0, evaluator.name, shown=world.first) as bar:
            found = _scored(tree, run, evaluator, keeper.each(bar.update))
        rows += found.rows
        left_out += [f"{rule} on {evaluator.name}: {why}" for rule, why in found.refused.items()]
        if world.first:  # the evaluator has waited for all ranks: every picture is there
            views += keeper.views(run.provenance.network, found.rows[:count])
    if not world.first:
        return ""
    _write(tree, run, rows, views, left_out, working)
    shutil.rmtree(final, ignore_errors=True)
    working.rename(final)
    contender = Contender(run.provenance.network, run.parameters, rows)
    said = [score_table(summarise(rows), _baseline(tree)), spread_table(spreads([contender]))]
    said += ["\n".join(f"left out: {line}" for line in left_out)]
    said += [f"page: {final / 'report/index.html'}\nrows: {final / 'rows.jsonl'}"]
    return "\n\n".join(filter(None, said))


def _scored(
    tree: TestTree, run: TestRun, evaluator: Evaluator, each: Callable[[int, Seen], None]
) -> Survey:
    """One set. A protocol that was named has to fit; of `all`, those that do not are left out."""
    if tree.val.named:
        return Survey(evaluator.run(run.predictor, run.provenance, each), {})
    survey = evaluator.survey(run.predictor, run.provenance, each)
    if survey.refused and not survey.rows:
        raise DataError.of(
            "DAT32",
            "no protocol fits this set",
            evaluator.name,
            next(iter(survey.refused.values())),
            "images that at least one protocol can score",
            "see docs/protocols.md",
        )
    return survey


def _baseline(tree: TestTree) -> str:
    return "bicubic" if tree.scale > 1 else "input"


def network_name(tree: TestTree) -> str:
    """What the tables call a test's network: with all that was asked for beyond a plain pass."""
    network = str(getattr(tree.network_g, "type", ""))
    network += f" ×{tree.scale}" if tree.scale > 1 else ""
    return ", ".join([network, *tree.val.said])


def _write(
    tree: TestTree,
    run: TestRun,
    rows: list[ImageRow],
    views: list[ImageViews],
    left_out: list[str],
    results: Path,
) -> None:
    name, tested = run.provenance.network, run.provenance
    about: dict[str, object] = {
        "network": name,
        "parameters_deployed": run.parameters,
        "weights": tree.path.pretrain_network_g,
        "weights_sha256": tested.weights_sha256,
        "left_out": left_out,
        "commit": tested.commit,
        "versions": versions(),
    }
    write_results(results, rows, about)
    contender = Contender(name, run.parameters, rows)
    write_tables(results / "report", compare_all([contender], _baseline(tree)))
    page = Page(
        title=tree.name,
        facts=[
            ("network", f"{name}, {run.parameters:,} parameters deployed"),
            ("weights", str(tree.path.pretrain_network_g)),
            ("weights sha256", tested.weights_sha256),
            ("restored", manner(rows)),
            *_own_figures(summarise(rows)),
            ("code", f"restore {versions()['restore']} {tested.commit}".strip()),
        ],
        contenders=[contender],
        baseline_name=_baseline(tree),
        views=views,
        curves=training_curves({name: tree.path.pretrain_network_g or ""}),
        protocols={rule.stamp: rule.about for rule, _ in tree.val.rules(tree.scale)},
        left_out=left_out,
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
