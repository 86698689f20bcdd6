"""Floor 6. The benchmark matrix: every cell once, whatever was interrupted, on any number of ranks.

A cell's key is the hash of all that moves its digits: weights, network, set, protocol, inference.
Its rows lie in `cells/<key>.jsonl`, written whole when the last image is scored, and are taken from
there when the same cell is wanted again, unless they are damaged. Cells that differ in the protocol
alone are computed together, each image restored once. A cell that fails is noted, and the rest goes
on.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.data.fingerprint import FileHashes, fingerprint
from restore.errors import DataError, RestoreError, RunError, WeightsError
from restore.evaluation.evaluator import Seen
from restore.metrics.protocols import PROTOCOLS
from restore.recipes.bench_trees import SCORING, BenchTree, Cell, under_all
from restore.recipes.build import build_test, channels_of, open_sets, weights_file
from restore.recipes.experiment import Experiment, begin
from restore.recipes.gallery import share
from restore.recipes.pictures import chosen, save_pair, save_restored
from restore.reports.records import ImageRow, mean, read_object, read_rows, replace_text
from restore.reports.sinks import progress
from restore.world import World

log = logging.getLogger("restore")


@dataclass(frozen=True)
class Planned:
    """A cell, its key and its set's hash; or what keeps it from being computed."""

    cell: Cell
    key: str
    data: str
    error: str


@dataclass(frozen=True)
class Filled:
    """A cell with its rows, or with what went wrong. `about`: parameters, images, hashes.

    `left_out`: why a protocol that nobody asked for by name does not fit the set.
    """

    planned: Planned
    rows: tuple[ImageRow, ...]
    about: dict[str, Any]
    error: str = ""
    left_out: str = ""

    @property
    def done(self) -> bool:
        """Whether it has rows."""
        return not (self.error or self.left_out)


class _Share(World):
    """A rank's share of a cell, computed without waiting for the others: one that fails must not
    keep them."""

    def sum(self, values: Tensor) -> Tensor:
        return values

    def any(self, flag: bool) -> bool:
        return flag

    def barrier(self) -> None:
        """Nobody to wait for."""


def run_matrix(tree: BenchTree, world: World) -> list[Filled]:
    """Fill every cell, in the matrix's order. On ranks other than the first: an empty list."""
    experiment = Experiment(tree.path.experiments_root, tree.name)
    cells = experiment.folder / "cells"
    if world.first:
        begin(experiment.folder, tree, afresh=False)
        cells.mkdir(exist_ok=True)
        _write_plan(tree, cells, world)
    world.barrier()
    plan = _read_plan(tree, cells)
    filled = []
    for _, group in groupby(plan, key=lambda planned: planned.cell.place):
        together = list(group)
        missing = [p for p in together if not p.error and _read(cells, p) is None]
        if missing:
            _compute(missing, cells, world)
        world.barrier()  # every rank has looked, and left what it found
        if world.first:
            error = _gather(missing, cells, world) if missing else ""
            for planned in together:
                result = _collect(planned, cells, error if planned in missing else "")
                filled.append(result)
                said = _said(result, planned not in missing)
                log.info("%d/%d %s: %s", len(filled), len(plan), planned.cell, said)
        world.barrier()  # the cells' files are there before anybody looks for the next ones'
    return filled


# ---- keys ----


def _write_plan(tree: BenchTree, cells: Path, world: World) -> None:
    hashes = FileHashes(Path(tree.path.experiments_root) / ".file_hashes.json")
    known: dict[tuple[str, int], str] = {}
    plan = []
    for cell in tree.cells():
        try:
            data = _data_hash(cell, hashes, known)
            plan.append({"key": _key(cell, data, hashes, world), "data": data, "error": ""})
        except (RestoreError, OSError) as error:
            plan.append({"key": "", "data": "", "error": str(error)})
    hashes.save()
    replace_text(cells / "plan.json", json.dumps(plan, indent=1) + "\n")


def _read_plan(tree: BenchTree, cells: Path) -> list[Planned]:
    """What the first rank planned. Raises RunError RUN05 where something else is there by now."""
    file = cells / "plan.json"
    try:
        plan = json.loads(file.read_bytes())
        return [Planned(cell, **entry) for cell, entry in zip(tree.cells(), plan, strict=True)]
    except (ValueError, TypeError, RecursionError):
        raise RunError.of(
            "RUN05",
            "the plan of this matrix cannot be read",
            str(file),
            "another content than this run has written",
            "one restore bench at a time of one name",
            "run it again: the plan is made anew, and cells that are filled are kept",
        ) from None


def _data_hash(cell: Cell, hashes: FileHashes, known: dict[tuple[str, int], str]) -> str:
    channels = channels_of(cell.tree.network_g)
    if (cell.set, channels) not in known:
        sets = cell.tree.datasets.evaluated()
        ((_, source),) = open_sets(sets, cell.tree.scale, channels)
        (options,) = sets.values()
        known[cell.set, channels] = fingerprint(source, options, hashes)
    return known[cell.set, channels]


def _key(cell: Cell, data: str, hashes: FileHashes, world: World) -> str:
    """The hash of what a cell's digits depend on, but for the code."""
    tree = cell.tree
    ((rule, border),) = tree.val.rules(tree.scale)
    path = tree.path
    assert path.pretrain_network_g is not None
    weights = weights_file(path.pretrain_network_g, path.param_key_g)
    if not weights.is_file():
        raise WeightsError.of(
            "WGT05",
            "weights not found",
            str(weights),
            "no such file",
            "a weights file or the folder of a run",
            "train first, or change networks.*.weights",
        )
    inference = {k: v for k, v in tree.val.model_dump().items() if k not in SCORING}
    depends: dict[str, Any] = {
        "weights": hashes.of(weights),
        "loaded": [path.param_key_g, path.strict_load_g],
        "network": tree.network_g.model_dump(),
        "scale": tree.scale,
        "data": data,
        "rule": [asdict(rule), border],
        "inference": inference,
        "device": world.device.type,
    }
    text = json.dumps(depends, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# ---- the cells of one restoration ----


def _compute(missing: Sequence[Planned], cells: Path, world: World) -> None:
    """This rank's share of some cells, left in a file: rows, or the error in their place."""
    try:
        found = _score(missing, cells, world)
    except Exception as error:  # whatever fails, the other cells are still wanted
        if isinstance(error, RestoreError):
            text = str(error)
        else:
            log.debug("%s", missing[0].cell.restoration, exc_info=True)
            text = f"{type(error).__name__}: {error}"
        found = {"error": text}
        if world.device.type == "cuda":
            torch.cuda.empty_cache()
    replace_text(_part(cells, missing, world.rank), json.dumps(found) + "\n")


def _score(missing: Sequence[Planned], cells: Path, world: World) -> dict[str, Any]:
    """By key: rows by index, or why the protocol does not fit; and what is known of the cells."""
    first = missing[0]
    tree = under_all([planned.cell for planned in missing])
    ours = _Share(world.rank, world.size, world.local_rank, world.device)
    run = build_test(tree, ours, first.cell.contender)
    (evaluator,) = run.evaluators
    count = len(evaluator.source)
    mine = range(world.rank, count, world.size)
    shown = set(chosen(count, tree.val.report_images))
    with progress(len(mine), 0, first.cell.restoration, shown=world.first) as bar:
        each = _keeper(cells, missing, shown, bar.update)
        survey = evaluator.survey(run.predictor, run.provenance, each)
    keys = {PROTOCOLS[planned.cell.protocol].stamp: planned.key for planned in missing}
    rows: dict[str, dict[int, dict[str, Any]]] = {key: {} for key in keys.values()}
    for place, row in enumerate(survey.rows):
        if place % count in mine:
            rows[keys[row.protocol]][place % count] = asdict(row)
    return {
        "rows": rows,
        "refused": {keys[stamp]: why for stamp, why in survey.refused.items()},
        "about": {"parameters": run.parameters, "images": count, "data_sha256": first.data},
    }


def _keeper(
    cells: Path, missing: Sequence[Planned], shown: set[int], done: Callable[[], object]
) -> Callable[[int, Seen], None]:
    """What keeps the pictures: the pairs of a set are shared by all cells, restored ones by those
    of one restoration."""
    first, *others = (cells / planned.key for planned in missing)

    def keep(index: int, seen: Seen) -> None:
        if index in shown:
            save_pair(cells / missing[0].data[:16], index, seen)
            picture = save_restored(first, index, seen.restored)
            for other in others:
                share(picture, other / picture.name)
        done()

    return keep


def _gather(missing: Sequence[Planned], cells: Path, world: World) -> str:
    """The cells' files from the ranks' parts; or the first rank's error, and no files."""
    parts = [_part(cells, missing, rank) for rank in range(world.size)]
    found = [json.loads(part.read_text(encoding="utf-8")) for part in parts]
    for part in parts:
        part.unlink()
    errors = [part["error"] for part in found if "error" in part]
    if errors:
        return errors[0]
    for planned in missing:
        refused = [part["refused"][planned.key] for part in found if planned.key in part["refused"]]
        about = found[0]["about"] | ({"refused": refused[0]} if refused else {})
        replace_text(_file(cells, planned).with_suffix(".json"), json.dumps(about) + "\n")
        shares = [] if refused else [part["rows"][planned.key] for part in found]
        rows = {int(index): row for rows in shares for index, row in rows.items()}
        lines = [json.dumps(rows[index]) + "\n" for index in sorted(rows)]
        replace_text(_file(cells, planned), "".join(lines))  # last: the cell is whole
    return ""


def _collect(planned: Planned, cells: Path, error: str) -> Filled:
    """The cell as its files hold it."""
    if planned.error or error:
        return Filled(planned, (), {}, planned.error or error)
    held = _read(cells, planned)
    if held is None:
        return Filled(planned, (), {}, f"{_file(cells, planned)}: cannot be read back")
    (about, rows), cell = held, planned.cell
    if "refused" in about:
        why = about["refused"]
        return Filled(planned, (), about, *((why, "") if cell.named else ("", why)))
    # names of today: a cell outlives its network's name in an option file
    rows = tuple(replace(row, network=cell.contender, set=cell.set) for row in rows)
    return Filled(planned, rows, about)


def _read(cells: Path, planned: Planned) -> tuple[dict[str, Any], list[ImageRow]] | None:
    """The cell's `about` and rows; None where they are missing or damaged, to be made anew."""
    file = _file(cells, planned)
    try:
        about, rows = read_object(file.with_suffix(".json")), read_rows(file)
    except (FileNotFoundError, DataError):
        return None
    images = 0 if "refused" in about else about.get("images")
    return (about, rows) if "parameters" in about and len(rows) == images else None


def _file(cells: Path, planned: Planned) -> Path:
    """The cell's rows; its `about` lies beside them."""
    return cells / f"{planned.key}.jsonl"


def _part(cells: Path, missing: Sequence[Planned], rank: int) -> Path:
    return cells / f".{missing[0].key}.rank{rank}.json"


def _said(filled: Filled, there: bool) -> str:
    if filled.error:
        return f"failed: {filled.error.splitlines()[0]}"
    if filled.left_out:
        return f"left out: {filled.left_out.splitlines()[0]}"
    psnr = mean(row.psnr for row in filled.rows)
    return f"{psnr:.2f} dB{', as computed before' if there else ''}"


def by_contender(filled: Sequence[Filled]) -> dict[str, list[Filled]]:
    """Contender -> its cells that were filled, in order."""
    found: dict[str, list[Filled]] = {}
    for cell in filled:
        if cell.done:
            found.setdefault(cell.planned.cell.contender, []).append(cell)
    return found
