"""Floor 6. The benchmark matrix: every cell once, whatever was interrupted, on any number of ranks.

A cell's key is the hash of all that moves its digits: weights, network, set, protocol, inference.
Its rows lie in `cells/<key>.jsonl`, written whole when the last image is scored, and are taken from
there when the same cell is wanted again. A cell that fails is noted, and the rest goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.data.fingerprint import FileHashes, fingerprint
from restore.errors import RestoreError, WeightsError
from restore.evaluation.evaluator import Provenance, Seen
from restore.recipes.bench_trees import SCORING, BenchTree, Cell
from restore.recipes.build import build_test, channels_of, open_sets, weights_file
from restore.recipes.experiment import Experiment, begin
from restore.recipes.pictures import chosen, save_pair, save_restored
from restore.reports.provenance import commit
from restore.reports.records import ImageRow, mean, read_rows, replace_text
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
    """A cell with its rows, or with what went wrong. `about`: parameters, images, hashes."""

    planned: Planned
    rows: tuple[ImageRow, ...]
    about: dict[str, Any]
    error: str


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
    for number, planned in enumerate(plan, start=1):
        there = (cells / f"{planned.key}.jsonl").exists()
        if not planned.error and not there:
            _compute(planned, cells, world)
        world.barrier()  # every rank has looked, and left what it found
        if world.first:
            result = _collect(planned, cells, world)
            filled.append(result)
            log.info("%d/%d %s: %s", number, len(plan), planned.cell, _said(result, there))
        world.barrier()  # the cell's file is there before anybody looks for the next one's
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
    plan = json.loads((cells / "plan.json").read_text(encoding="utf-8"))
    return [Planned(cell, **entry) for cell, entry in zip(tree.cells(), plan, strict=True)]


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
    rule, border = tree.val.rule(tree.scale)
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


# ---- one cell ----


def _compute(planned: Planned, cells: Path, world: World) -> None:
    """This rank's share of a cell, left in a file: rows, or the error in their place."""
    part = _part(cells, planned.key, world.rank)
    try:
        found = _score(planned, cells, world)
    except Exception as error:  # whatever fails, the other cells are still wanted
        if isinstance(error, RestoreError):
            text = str(error)
        else:
            log.debug("%s", planned.cell, exc_info=True)
            text = f"{type(error).__name__}: {error}"
        found = {"error": text}
        if world.device.type == "cuda":
            torch.cuda.empty_cache()
    replace_text(part, json.dumps(found) + "\n")


def _score(planned: Planned, cells: Path, world: World) -> dict[str, Any]:
    tree = planned.cell.tree
    run = build_test(tree, _Share(world.rank, world.size, world.local_rank, world.device))
    (evaluator,) = run.evaluators
    count = len(evaluator.source)
    mine = range(world.rank, count, world.size)
    shown = set(chosen(count, tree.val.report_images))
    provenance = Provenance(planned.cell.contender, run.weights_sha256, commit())
    with progress(len(mine), 0, str(planned.cell), shown=world.first) as bar:
        each = _keeper(cells, planned, shown, bar.update)
        rows = evaluator.run(run.predictor, provenance, each)
    return {
        "rows": {index: asdict(rows[index]) for index in mine},
        "about": {"parameters": run.parameters, "images": count, "data_sha256": planned.data},
    }


def _keeper(
    cells: Path, planned: Planned, shown: set[int], done: Callable[[], object]
) -> Callable[[int, Seen], None]:
    """What keeps a cell's pictures; the pairs of a set are shared by all cells."""

    def keep(index: int, seen: Seen) -> None:
        if index in shown:
            save_pair(cells / planned.data[:16], index, seen)
            save_restored(cells / planned.key, index, seen.restored)
        done()

    return keep


def _collect(planned: Planned, cells: Path, world: World) -> Filled:
    """The cell's file from the ranks' parts, if it is not there; then its rows."""
    file, about_file = cells / f"{planned.key}.jsonl", cells / f"{planned.key}.json"
    if planned.error:
        return Filled(planned, (), {}, planned.error)
    if not file.exists():
        parts = [_part(cells, planned.key, rank) for rank in range(world.size)]
        found = [json.loads(part.read_text(encoding="utf-8")) for part in parts]
        for part in parts:
            part.unlink()
        errors = [part["error"] for part in found if "error" in part]
        if errors:
            return Filled(planned, (), {}, errors[0])
        rows = {int(index): row for part in found for index, row in part["rows"].items()}
        replace_text(about_file, json.dumps(found[0]["about"]) + "\n")
        lines = [json.dumps(rows[index]) + "\n" for index in sorted(rows)]
        replace_text(file, "".join(lines))  # last: it says that the cell is whole
    about = json.loads(about_file.read_text(encoding="utf-8"))
    cell = planned.cell  # names of today: a cell outlives its network's name in an option file
    rows = tuple(replace(row, network=cell.contender, set=cell.set) for row in read_rows(file))
    return Filled(planned, rows, about, "")


def _part(cells: Path, key: str, rank: int) -> Path:
    return cells / f".{key}.rank{rank}.json"


def _said(filled: Filled, there: bool) -> str:
    if filled.error:
        return f"failed: {filled.error.splitlines()[0]}"
    psnr = mean(row.psnr for row in filled.rows)
    return f"{psnr:.2f} dB{', as computed before' if there else ''}"


def by_contender(filled: Sequence[Filled]) -> dict[str, list[Filled]]:
    """Contender -> its cells that were filled, in order."""
    found: dict[str, list[Filled]] = {}
    for cell in filled:
        if not cell.error:
            found.setdefault(cell.planned.cell.contender, []).append(cell)
    return found
