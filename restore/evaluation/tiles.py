"""Floor 4. Where the tiles of an image lie, and how they become one image again.

Tiles are laid over what is there already, in reading order: where a tile enters with the weight w,
a pixel becomes old + w · (new - old). So the weights of all tiles sum to one at every pixel, equal
tiles leave no trace, and no image-sized buffer of weights or floats is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

RAMP = 8  # LQ pixels over which two tiles are mixed, in the middle of what they share
MAIR_SIDE = 200  # sections of the published evaluation of MaIR stay below this


class Piece(NamedTuple):
    """Pixels `start` to `stop` of one axis, in LQ pixels; `stop` may lie beyond the image."""

    start: int
    stop: int


@dataclass(frozen=True)
class Cut:
    """One axis of `length` pixels in overlapping pieces, in order, and how a piece enters.

    `ramp`: mixed over the middle of the overlap; `middle`: pasted up to the middle of it; `mean`:
    every piece counts the same.
    """

    length: int
    pieces: tuple[Piece, ...]
    entry: Literal["ramp", "middle", "mean"] = "ramp"

    def weights(self, index: int, scale: int) -> Tensor | None:
        """How much of piece `index` enters in the output pixels that it shares with those before
        it, which are its first; None where it shares none."""
        start = self.pieces[index].start
        shared = max((p.stop for p in self.pieces[:index]), default=start) - start
        if shared <= 0:
            return None
        if self.entry == "mean":
            pixels = torch.arange(start, start + shared)
            visits = torch.zeros(shared)
            for piece in self.pieces[: index + 1]:
                visits += (pixels >= piece.start) & (pixels < piece.stop)
            return (1 / visits).repeat_interleave(scale)
        width = min(RAMP, shared) if self.entry == "ramp" else 0
        place = (torch.arange(shared * scale) + 0.5) / scale - shared / 2
        return (place / width + 0.5).clamp(0, 1) if width else (place > 0).float()


def whole(length: int) -> Cut:
    """No cut."""
    return Cut(length, (Piece(0, length),))


def even_cut(length: int, tile: int, overlap: int, step: int = 1) -> Cut:
    """As few pieces of at most `tile` pixels as cover `length`, nearly even, `overlap` shared.

    All but the last are of one size. They begin at multiples of `step`, so that a network that
    halves the image meets the same grid in every tile; overlap and tile are rounded to it.
    """
    overlap = -(-overlap // step) * step
    tile = max(tile // step * step, overlap + step)
    if length <= tile:
        return whole(length)
    count = -(-(length - overlap) // (tile - overlap))
    stride = -(-(length - overlap) // (count * step)) * step
    starts = range(0, length - overlap, stride)
    return Cut(length, tuple(Piece(s, min(s + stride + overlap, length)) for s in starts))


def mair_cut(length: int) -> Cut:
    """MaIR's published evaluation: length // 200 + 1 sections of one size, the last mirrored beyond
    the edge, each seen with a tenth of its side around it and pasted without."""
    count = length // MAIR_SIDE + 1
    section = -(-length // count)
    margin = section // 10
    pieces = (
        Piece(max(k * section - margin, 0), min((k + 1) * section + margin, count * section))
        for k in range(count)
    )
    return Cut(length, tuple(pieces), "middle")


def grl_cut(length: int, tile: int, overlap: int) -> Cut:
    """GRL's published evaluation: tiles every tile - overlap pixels, the last flush with the edge,
    the plain mean where several lie."""
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    return Cut(length, tuple(Piece(s, s + tile) for s in starts), "mean")


class Plan(NamedTuple):
    """The cuts of an image's rows and columns."""

    rows: Cut
    columns: Cut

    @property
    def tiles(self) -> int:
        """How many tiles."""
        return len(self.rows.pieces) * len(self.columns.pieces)

    @property
    def side(self) -> int:
        """The longer side of the first tile, in LQ pixels; 0 for an image in one piece."""
        firsts = (cut.pieces[0] for cut in self)
        return 0 if self.tiles == 1 else max(p.stop - p.start for p in firsts)

    @property
    def overlap(self) -> int:
        """LQ pixels that the first two tiles share, along the axis that is cut."""
        shared = [c.pieces[0].stop - c.pieces[1].start for c in self if len(c.pieces) > 1]
        return max(shared, default=0)


def bands(
    plan: Plan, scale: int, restored: Callable[[Piece, Piece], Tensor]
) -> Iterator[tuple[int, Tensor]]:
    """The output from top to bottom, each row of it once: (first row, `(B, C, rows, width)`).

    `restored(rows, columns)` is the output of a tile, as large as the tile within the image, times
    the scale. One row of tiles is held at a time.
    """
    waiting: Tensor | None = None  # the rows that the next row of tiles still changes
    ends = [piece.start for piece in plan.rows.pieces[1:]] + [plan.rows.length]
    for index, (row, end) in enumerate(zip(plan.rows.pieces, ends, strict=True)):
        band = _row_of_tiles(plan.columns, scale, lambda column, row=row: restored(row, column))
        weights = plan.rows.weights(index, scale)
        if waiting is not None and weights is not None:
            _enter(band[..., : len(weights), :], waiting, weights.to(band).unsqueeze(1))
        done = (end - row.start) * scale
        yield row.start * scale, band[..., :done, :]
        waiting = band[..., done:, :].clone()
        del band  # before the next one is made


def _enter(new: Tensor, old: Tensor, weights: Tensor) -> None:
    """`new` becomes what is seen where it is laid over `old` with `weights`."""
    new.copy_(torch.lerp(old, new, weights))


def _row_of_tiles(cut: Cut, scale: int, restored: Callable[[Piece], Tensor]) -> Tensor:
    if len(cut.pieces) == 1:
        return restored(cut.pieces[0])
    band: Tensor | None = None
    for index, piece in enumerate(cut.pieces):
        tile = restored(piece)
        if band is None:
            band = tile.new_empty(*tile.shape[:-1], cut.length * scale)
        place = band[..., piece.start * scale :][..., : tile.shape[-1]]
        weights = cut.weights(index, scale)
        shared = 0 if weights is None else len(weights)
        if weights is not None:
            place[..., :shared].lerp_(tile[..., :shared], weights.to(tile))
        place[..., shared:].copy_(tile[..., shared:])
    assert band is not None
    return band
