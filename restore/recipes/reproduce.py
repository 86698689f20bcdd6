"""Floor 6. Published figures against measured ones (no torch: the matrix is filled elsewhere)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from restore.errors import OptionError
from restore.recipes.bench_trees import (
    BenchNetwork,
    BenchNetworks,
    BenchPaths,
    BenchTree,
    Cell,
)
from restore.recipes.trees import TestSets, TestTree, set_name
from restore.reports.published.table import Published
from restore.reports.records import ImageRow, mean

TOLERANCE = {"psnr": 0.01, "ssim": 0.0005}
"""What counts as the same figure: a paper's last digit, and the libraries' round-off."""
_SLACK = 1e-9  # a difference of 0.01 is not 0.01 in binary


class _HasCell(Protocol):
    @property
    def cell(self) -> Cell: ...


class Measured(Protocol):
    """A cell of the matrix with its rows, none where it failed."""

    @property
    def planned(self) -> _HasCell: ...
    @property
    def rows(self) -> Sequence[ImageRow]: ...


@dataclass(frozen=True)
class Verdict:
    """One published figure and ours; `measured` is None where the set could not be scored."""

    set: str
    measure: str
    published: float
    measured: float | None

    @property
    def gap(self) -> float:
        """Measured less published."""
        assert self.measured is not None
        return self.measured - self.published

    @property
    def holds(self) -> bool:
        """Whether the figure is reproduced."""
        return self.measured is not None and abs(self.gap) <= TOLERANCE[self.measure] + _SLACK

    @property
    def said(self) -> str:
        """The verdict in words."""
        if self.measured is None:
            return "not measured"
        return "reproduced" if self.holds else "differs"


def matrix_of(
    test: TestTree, rows: Sequence[Published], weights: str, only: Sequence[str] | None
) -> BenchTree:
    """The matrix that measures published rows: the network, sets and inference of a test file.

    Raises OptionError OPT45 where the file has none of the sets that figures are of.
    """
    first = rows[0]
    wanted = {name for row in rows for name in row.figures if only is None or name in only}
    there = test.datasets.evaluated()
    sets = {key: data for key, data in there.items() if set_name(key, data) in wanted}
    if not sets:
        known = ", ".join(set_name(key, data) for key, data in there.items())
        figures = ", ".join(name for row in rows for name in row.figures)
        raise OptionError.of(
            "OPT45",
            "no set to reproduce",
            first.name,
            ", ".join(only or sorted(wanted)),
            f"a set of the test file ({known}) that has published figures ({figures})",
            "change --sets, or name a test file with --opt",
        )
    network = BenchNetwork(
        network_g=test.network_g,
        weights=weights,
        strict_load_g=test.path.strict_load_g,
        param_key_g=test.path.param_key_g,
    )
    val = test.val.model_copy(
        update={"protocol": first.protocol, "metrics": None, "crop_border": None}
    )
    return BenchTree(
        name="reproduce_" + re.sub(r"[^A-Za-z0-9._+-]", "_", first.name),
        scale=test.scale,
        num_gpu=test.num_gpu,
        num_threads=test.num_threads,
        manual_seed=test.manual_seed,
        networks=BenchNetworks(**{first.variant: network}),
        datasets=TestSets(**sets),  # pyright: ignore[reportArgumentType]
        published=(first.name,),
        val=val,
        path=BenchPaths(experiments_root=test.path.experiments_root),
        dist_params=test.dist_params,
    )


def verdicts(
    rows: Sequence[Published], filled: Sequence[Measured], only: Sequence[str] | None
) -> list[Verdict]:
    """One verdict per published PSNR and SSIM of the sets asked for."""
    scored = {cell.planned.cell.set: cell.rows for cell in filled if cell.rows}
    found = []
    for row in rows:
        for name, figures in row.figures.items():
            if only is not None and name not in only:
                continue
            for measure, value in figures.given().items():
                if measure in TOLERANCE:
                    images = scored.get(name)
                    ours = mean(getattr(i, measure) for i in images) if images else None
                    found.append(Verdict(name, measure, value, ours))
    return found
