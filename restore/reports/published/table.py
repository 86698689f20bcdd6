"""Floor 2. Published figures as data: what a paper or a README says a network scores.

A file holds a list of rows, each one variant on one task under one protocol from one source:

    - family: SPAN            whose network
      variant: SPAN           which of its sizes
      task: SRx4              what for; SPAN/SPAN/SRx4 is its name on the command line
      protocol: sr-y          the rule it was scored under; left out where the source does not say
      evidence: image         text, image (read off a picture of a table) or second-hand
      source: …
      options: …              the test file that `restore reproduce` takes sets and network from
      note: …
      figures: {Set14: {psnr: 28.66}}

A figure that no source at hand confirms is not in these files.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

Evidence = Literal["text", "image", "second-hand"]
Measure = Literal["psnr", "ssim", "mae", "lpips"]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Figures(_Strict):
    """What one source says of one set: PSNR in dB, SSIM, mean absolute error in [0, 1], LPIPS."""

    psnr: Annotated[float, Field(gt=5, lt=70)] | None = None
    ssim: Fraction | None = None
    mae: Fraction | None = None
    lpips: Fraction | None = None

    def given(self) -> dict[Measure, float]:
        """The figures that the source gives."""
        return self.model_dump(exclude_none=True)  # pyright: ignore[reportReturnType]


class Published(_Strict):
    """One variant on one task, from one source."""

    family: str
    variant: str
    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
    protocol: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = None
    evidence: Evidence
    source: str
    options: Annotated[str, Field(pattern=r"^test_[\w+-]+\.yml$")] | None = None
    note: str | None = None
    figures: Annotated[dict[str, Figures], Field(min_length=1)]

    @property
    def name(self) -> str:
        """`family/variant/task`."""
        return f"{self.family}/{self.variant}/{self.task}"


def parse_published(text: str) -> tuple[Published, ...]:
    """The rows of one file's text. Raises pydantic's ValidationError, or ValueError for text that
    is no list or says nothing of a set."""
    values: Any = yaml.safe_load(text)
    if not isinstance(values, list):
        raise ValueError("a file of published figures is a list of rows")
    rows = tuple(Published.model_validate(value) for value in values)
    empty = [row.name for row in rows for figures in row.figures.values() if not figures.given()]
    if empty:
        raise ValueError(f"a set without figures: {empty[0]}")
    return rows


@cache
def published() -> tuple[Published, ...]:
    """All rows of all files, no figure twice. Raises ValueError."""
    found: list[Published] = []
    seen: set[tuple[str, str, str]] = set()
    for file in sorted(files("restore.reports.published").iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".yml"):
            continue
        for row in parse_published(file.read_text(encoding="utf-8")):
            for data, figures in row.figures.items():
                for measure in figures.given():
                    if (row.name, data, measure) in seen:
                        raise ValueError(f"{file.name}: {row.name}: {measure} of {data} twice")
                    seen.add((row.name, data, measure))
            found.append(row)
    return tuple(found)


def published_as(name: str) -> tuple[Published, ...]:
    """The rows called `family/variant/task` (one per source); letter case aside."""
    return tuple(row for row in published() if row.name.lower() == name.lower())
