"""Floor 3. Progressive learning: which patch and batch a step trains with, decided before decoding.

MIRNet-v2 trains small patches in large batches first and large patches in small batches last. Its
official code decodes the largest batch at the largest size and cuts most of it away; here a stage
decides what is read at all. The stream position of a step follows from the stages, so a run resumed
anywhere needs the step alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Stage:
    """From step `first` (0-based) on: `batch` GT crops of `gt_size` × `gt_size` on each rank."""

    first: int
    batch: int
    gt_size: int


@dataclass(frozen=True)
class Share:
    """How a global batch is dealt out: rank `rank` of `ranks` takes `parts` batches of each step.

    The recipe is written for `recipe_ranks` ranks, whose batches are the stages'; on fewer ranks
    a step has several parts, on more the batches are smaller.
    """

    rank: int = 0
    ranks: int = 1
    parts: int = 1
    recipe_ranks: int = 1

    @staticmethod
    def of(rank: int, ranks: int, batches: Sequence[int], global_batch: int | None) -> Share | None:
        """The share of `rank`; None where the global batch cannot be dealt out evenly.

        `batches`: the batch of each stage. `global_batch`: samples of a step of the first stage
        over all ranks; None for one batch on each rank.
        """
        if global_batch is None:
            return Share(rank, ranks, 1, ranks)
        recipe, rest = divmod(global_batch, batches[0])
        if rest == 0 and recipe % ranks == 0:
            return Share(rank, ranks, recipe // ranks, recipe)
        if rest == 0 and ranks % recipe == 0 and all(b % (ranks // recipe) == 0 for b in batches):
            return Share(rank, ranks, 1, recipe)
        return None

    def size(self, stage: Stage) -> int:
        """Samples of one batch of one rank."""
        return stage.batch * self.recipe_ranks // (self.ranks * self.parts)

    def first(self, stage: Stage, part: int) -> int:
        """Where the batch of `part` begins in the samples of a step."""
        return (self.rank * self.parts + part) * self.size(stage)


class Stages:
    """The stages of a run, the last one without end."""

    def __init__(
        self, steps: Sequence[int], batches: Sequence[int], gt_sizes: Sequence[int]
    ) -> None:
        """`steps[k]` steps with `batches[k]` crops of `gt_sizes[k]`; equally many of each."""
        firsts = [0, *accumulate(steps)][:-1]
        self._stages = [Stage(*s) for s in zip(firsts, batches, gt_sizes, strict=True)]
        self._firsts = firsts

    @staticmethod
    def single(batch: int, gt_size: int) -> Stages:
        """One stage: the same patch and batch throughout."""
        return Stages([1], [batch], [gt_size])

    def __iter__(self) -> Iterator[Stage]:
        return iter(self._stages)

    def at(self, step: int) -> Stage:
        """The stage of 0-based `step`."""
        return self._stages[bisect_right(self._firsts, step) - 1]

    def position(self, step: int) -> int:
        """Samples that one rank has taken before `step`."""
        taken = 0
        for stage, following in zip(self._stages, [*self._firsts[1:], step], strict=True):
            taken += stage.batch * max(0, min(following, step) - stage.first)
        return taken
