"""Floor 3. The nested S-shaped scan of MaIR: a map's pixels in the order that a Mamba reads them.

The map is cut into stripes; inside a stripe every step goes to a neighbour, so that what is near in
the image stays near in the sequence (arXiv 2412.20066, section 3.2). Four directions: the map, the
map turned by 180 degrees, the transposed map, and the transposed map turned by 180 degrees.
"""

# B batch, C channels, H x W pixels, L = H*W, K = 4 directions; pixel p = i*W + j is row i, column j

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

DIRECTIONS = 4
CACHED_SIZES = 16
"""Tables kept of each kind, the least recently used one leaving first; one takes 32 bytes a pixel.
A U-shaped network needs one for each of its levels."""


class NestedScan(nn.Module):
    """Maps to four sequences and back; holds no weights and leaves no keys in a state dict.

    `scan_len`: width of the stripes in pixels. `shift`: width of a narrower first stripe, in
    [0, scan_len), 0 for none; networks alternate it so that one block covers the seams between the
    other's stripes. Raises ValueError for other values.
    """

    def __init__(self, scan_len: int = 8, shift: int = 0) -> None:
        super().__init__()
        if scan_len < 1 or not 0 <= shift < scan_len:
            raise ValueError(f"scan_len {scan_len}, shift {shift}: need 0 <= shift < scan_len")
        self.scan_len, self.shift = scan_len, shift

    def orders(self, height: int, width: int, device: torch.device | None = None) -> Tensor:
        """`(4, L)` int64: direction k visits pixel `orders[k, m]` at its step m."""
        return _table(_orders, _cached_orders, self, height, width, device)

    def inverses(self, height: int, width: int, device: torch.device | None = None) -> Tensor:
        """`(4, L)` int64: direction k visits pixel p at its step `inverses[k, p]`."""
        return _table(_inverses, _cached_inverses, self, height, width, device)

    def scan(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` -> sequences `(B, 4, C, L)`."""
        batch, channels, height, width = x.shape
        order = self.orders(height, width, x.device)[None, :, None]
        pixels = x.flatten(2).unsqueeze(1).expand(-1, DIRECTIONS, -1, -1)
        # along the last axis torch gathers some twenty times faster than it index_selects
        return pixels.gather(3, order.expand(batch, -1, channels, -1))

    def unscan(self, y: Tensor, size: tuple[int, int]) -> Tensor:
        """Sequences `(B, 4, C, L)` of a map of `size` (H, W) -> maps `(B, 4, C, H, W)`."""
        batch, _, channels, _ = y.shape
        inverse = self.inverses(*size, y.device)[None, :, None]
        return y.gather(3, inverse.expand(batch, -1, channels, -1)).unflatten(3, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.scan(x)

    def extra_repr(self) -> str:
        return f"scan_len={self.scan_len}, shift={self.shift}"


def _ranks(height: int, width: int, scan_len: int, shift: int, device: torch.device) -> Tensor:
    """`(height, width)`: the step at which the path visits each cell of a grid.

    Stripes are walked from left to right, the first, third, … downwards, the others upwards; the
    first, third, … row that a stripe's walk meets is read from left to right, the others from right
    to left. Where the height is even, the path ends each stripe on its left side and jumps to the
    left side of the next one, as the published weights were trained with.
    """
    row = torch.arange(height, device=device).unsqueeze(1)
    column = torch.arange(width, device=device)
    before = -shift % scan_len  # columns of the first stripe that lie left of the grid
    stripe = (column + before) // scan_len
    start = (stripe * scan_len - before).clamp(min=0)
    end = torch.minimum((stripe + 1) * scan_len - before, column[-1] + 1)
    line = torch.where(stripe % 2 == 0, row, height - 1 - row)
    place = torch.where(line % 2 == 0, column - start, end - 1 - column)
    along = height * start + line * (end - start) + place
    # published so: a grid narrower than the first stripe is read line by line
    return torch.where(column[-1] + 1 < shift, row * width + column, along)


def _inverses(height: int, width: int, scan_len: int, shift: int, device: torch.device) -> Tensor:
    along = _ranks(height, width, scan_len, shift, device).flatten()
    across = _ranks(width, height, scan_len, shift, device).t().flatten()
    return torch.stack([along, along.flip(0), across, across.flip(0)])


def _orders(height: int, width: int, scan_len: int, shift: int, device: torch.device) -> Tensor:
    inverses = _inverses(height, width, scan_len, shift, device)
    pixels = torch.arange(height * width, device=device).expand_as(inverses)
    return torch.empty_like(inverses).scatter_(1, inverses, pixels)


Table = Callable[[int, int, int, int, torch.device], Tensor]


def _cached(build: Table) -> Table:
    @lru_cache(CACHED_SIZES)
    def table(height: int, width: int, scan_len: int, shift: int, device: torch.device) -> Tensor:
        with torch.inference_mode(False):  # else autograd would refuse it in a later training step
            return build(height, width, scan_len, shift, device)

    return table


_cached_orders, _cached_inverses = _cached(_orders), _cached(_inverses)


def _table(
    build: Table,
    cached: Table,
    scan: NestedScan,
    height: int,
    width: int,
    device: torch.device | None,
) -> Tensor:
    # a compiled or exported graph computes its tables: symbols and fake tensors must not be kept
    scripting = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    table = build if scripting or torch.compiler.is_compiling() else cached
    return table(height, width, scan.scan_len, scan.shift, device or torch.device("cpu"))
