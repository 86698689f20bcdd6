"""Floor 3. GRL's attention: cosine similarity, a learnt scale, a continuous position bias.

One module for windows, for anchors that ask and for tokens that ask; each has its own weights. The
softmax runs in torch's fused kernel, a few query rows at a time, so that neither the logits nor the
expanded bias ever stand in memory as a whole.
"""

# G batch · cells, h heads, N queries, M keys, d channels of a head, R offsets of an axis

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs.grl.tables import Mask, Pair, expanded
from restore.ops.devices import autocast_device

HIDDEN = 512
BIAS_RANGE = 16
LARGEST_LOG_SCALE = math.log(100)
CHUNK = {"cpu": 2**18}
"""Biases that are held at once: 1 MB, which stays in a core's cache."""
CHUNK_ELSEWHERE = 2**26
REMEMBERED = 8


class Part(NamedTuple):
    """Queries, keys and values `(G, h, N or M, d)` of neighbouring cells that share a mask."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Mask | None


class CosineAttention(nn.Module):
    """Softmax of `scale · cos(q, k) + bias + mask`, applied to v, for cells of any size."""

    def __init__(self, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10)))
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, heads, bias=False)
        )
        self.dropout = dropout
        self._memory = BiasMemory()

    def forward(
        self, parts: Sequence[Part], coordinates: Tensor, queries: Pair, keys: Pair
    ) -> list[Tensor]:
        """The result `(G, h, N, d)` of each part, at least in float32.

        `queries` and `keys` are the (rows, columns) of a cell's queries and keys, one of them in
        reverse order; `coordinates: (R, R', 2)` those of the sums of their positions. Similarities
        of up to 100 do not survive half precision, so autocast is left here.
        """
        first = parts[0].q
        precision = torch.promote_types(first.dtype, torch.float32)
        with torch.autocast(autocast_device(first), enabled=False):
            scale = self.logit_scale.to(precision).clamp(max=LARGEST_LOG_SCALE).exp()
            bias = self.bias(coordinates).to(precision)
            ready = [
                Part(
                    F.normalize(part.q.to(precision), dim=-1) * scale,
                    F.normalize(part.k.to(precision), dim=-1),
                    part.v.to(precision),
                    part.mask,
                )
                for part in parts
            ]
            # filled slice by slice: kept apart, the slices would leave holes of a megabyte each
            found = [torch.empty_like(part.q) for part in ready]
            for rows in _chunks(queries, keys, len(bias), first.device.type):
                biases = expanded(bias, queries, keys, rows)
                tokens = slice(rows.start * queries[1], rows.stop * queries[1])
                for part, out in zip(ready, found, strict=True):
                    out[:, :, tokens] = self._attended(part, biases, tokens)
        return found

    def _attended(self, part: Part, biases: Tensor, tokens: slice) -> Tensor:
        if part.mask is not None:
            biases = biases + part.mask.rows.index_select(0, part.mask.labels[tokens])
        dropout = self.dropout if self.training else 0.0
        q = part.q[:, :, tokens]
        return F.scaled_dot_product_attention(
            q, part.k, part.v, attn_mask=biases, dropout_p=dropout, scale=1.0
        )

    def bias(self, coordinates: Tensor) -> Tensor:
        """`(h, R, R')` biases of all offsets, each in (0, 16).

        Without gradients, on the CPU, those of the same weights and coordinates are remembered.
        Elsewhere comparing weights would wait for the device, which costs more than the product.
        """
        tracked = torch.is_grad_enabled() or torch.compiler.is_compiling()
        if tracked or coordinates.device.type != "cpu":
            return self._computed(coordinates)
        weights = list(self.cpb_mlp.parameters())
        known = self._memory.known(coordinates, weights)
        if known is None:
            with torch.inference_mode(False), torch.no_grad():
                known = torch.cat([self._computed(part) for part in coordinates.split(8)], dim=1)
            self._memory.keep(coordinates, weights, known)
        return known

    def _computed(self, coordinates: Tensor) -> Tensor:
        first, _, last = self.cpb_mlp
        hidden = F.relu(first(coordinates.to(cast(nn.Linear, first).weight.dtype)))
        return BIAS_RANGE * torch.sigmoid(last(hidden).permute(2, 0, 1)).contiguous()


class BiasMemory:
    """The biases of one module's present weights, for the sizes used last.

    Weights are compared value by value (3,000 numbers): loading, an optimiser's step, a swap with
    the average and a write past autograd's books are all noticed.
    """

    def __init__(self) -> None:
        self._weights: list[Tensor] = []
        self._kept: list[tuple[Tensor, Tensor]] = []

    def known(self, coordinates: Tensor, weights: Sequence[Tensor]) -> Tensor | None:
        """The biases of `coordinates`, if they were made with the same `weights`."""
        if len(weights) != len(self._weights) or not all(map(_same, weights, self._weights)):
            self._kept = []
            return None
        return next((bias for of, bias in self._kept if of is coordinates), None)

    def keep(self, coordinates: Tensor, weights: Sequence[Tensor], bias: Tensor) -> None:
        """Remember `bias`, at most a few of them."""
        if not self._kept:
            self._weights = [weight.detach().clone() for weight in weights]
        self._kept = [(coordinates, bias), *self._kept][:REMEMBERED]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def _chunks(queries: Pair, keys: Pair, heads: int, device: str) -> Iterator[slice]:
    """Query rows, in slices of about as many biases as are held at once."""
    per_row = heads * queries[1] * keys[0] * keys[1]
    step = max(CHUNK.get(device, CHUNK_ELSEWHERE) // per_row, 1)
    for start in range(0, queries[0], step):
        yield slice(start, min(start + step, queries[0]))
