"""Floor 2. Triton kernels of the merge of the directions: LayerNorm(Σ gate · y) · SiLU(z).

y, dy: (B, L, K, E); gate: (B, K, E); z, out, dz: (B, L, E); weight, bias: (E). A program holds
ROWS pixels with all their channels, so y, z and out cross the memory bus once.
"""

# Only triton.jit gives tl.range and the like a meaning; for a type checker they never return.
# pyright: reportGeneralTypeIssues=false, reportMissingParameterType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def normalised(
    y_ptr, gate_ptr, b, at, inside, e, K, eps,
    E: tl.constexpr, ROWS: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """(ROWS, BE) of the gated sum, normalised over E, and 1 / its standard deviation (ROWS)."""
    total = tl.zeros([ROWS, BE], tl.float32)
    for k in range(K):
        gate = tl.load(gate_ptr + (b * K + k) * E + e, mask=e < E, other=0.0)
        y = tl.load(y_ptr + (at * K + k)[:, None] * E + e[None, :], mask=inside, other=0.0)
        total += gate[None, :] * y
    centred = tl.where(inside, total - (tl.sum(total, 1) / E)[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / E + eps)
    return centred * scale[:, None], scale


@triton.jit
def merge_kernel(
    y_ptr, gate_ptr, z_ptr, weight_ptr, bias_ptr, out_ptr, L, K, eps, E: tl.constexpr,
    ROWS: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """out of one tile of pixels."""
    tiles = tl.cdiv(L, ROWS)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = (tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS)
    e = tl.arange(0, BE)
    at = b * L + pixel
    inside = (pixel < L)[:, None] & (e < E)[None, :]
    n, scale = normalised(y_ptr, gate_ptr, b, at, inside, e, K, eps, E, ROWS, BE)
    weight = tl.load(weight_ptr + e, mask=e < E, other=0.0)
    bias = tl.load(bias_ptr + e, mask=e < E, other=0.0)
    spot = at[:, None] * E + e[None, :]
    z = tl.load(z_ptr + spot, mask=inside, other=0.0)
    out = (n * weight[None, :] + bias[None, :]) * (z / (1.0 + tl.exp(-z)))
    tl.store(out_ptr + spot, out, mask=inside)


@triton.jit
def merge_gradient_kernel(
    dout_ptr, y_ptr, gate_ptr, z_ptr, weight_ptr, bias_ptr,
    dy_ptr, dgate_ptr, dz_ptr, dweight_ptr, dbias_ptr, L, K, eps, parts, E: tl.constexpr,
    ROWS: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Gradients of every `parts`-th tile of pixels of one batch item.

    Written of each part: dgate (B, parts, K, E), which comes in as zeros; dweight and dbias
    (B, parts, E).
    """
    part = tl.program_id(0) % parts
    b = (tl.program_id(0) // parts).to(tl.int64)
    e = tl.arange(0, BE)
    weight = tl.load(weight_ptr + e, mask=e < E, other=0.0)
    bias = tl.load(bias_ptr + e, mask=e < E, other=0.0)
    dweight = tl.zeros([BE], tl.float32)
    dbias = tl.zeros([BE], tl.float32)
    of_part = b * parts + part
    for tile in range(part, tl.cdiv(L, ROWS), parts):
        pixel = tile * ROWS + tl.arange(0, ROWS)
        at = b * L + pixel
        inside = (pixel < L)[:, None] & (e < E)[None, :]
        n, scale = normalised(y_ptr, gate_ptr, b, at, inside, e, K, eps, E, ROWS, BE)
        spot = at[:, None] * E + e[None, :]
        z = tl.load(z_ptr + spot, mask=inside, other=0.0)
        dout = tl.load(dout_ptr + spot, mask=inside, other=0.0)
        sigmoid = 1.0 / (1.0 + tl.exp(-z))
        dz = dout * (n * weight[None, :] + bias[None, :]) * sigmoid * (1.0 + z * (1.0 - sigmoid))
        tl.store(dz_ptr + spot, dz, mask=inside)
        dnorm = dout * z * sigmoid
        dweight += tl.sum(dnorm * n, 0)
        dbias += tl.sum(dnorm, 0)
        dnorm *= weight[None, :]
        along = (tl.sum(dnorm * n, 1) / E)[:, None]
        dtotal = (dnorm - (tl.sum(dnorm, 1) / E)[:, None] - n * along) * scale[:, None]
        for k in range(K):
            gate = tl.load(gate_ptr + (b * K + k) * E + e, mask=e < E, other=0.0)
            row = (at * K + k)[:, None] * E + e[None, :]
            y = tl.load(y_ptr + row, mask=inside, other=0.0)
            tl.store(dy_ptr + row, gate[None, :] * dtotal, mask=inside)
            slot = dgate_ptr + (of_part * K + k) * E + e
            known = tl.load(slot, mask=e < E, other=0.0)
            dgate = known + tl.sum(y * dtotal, 0)
            tl.debug_barrier()  # a slot is read by all before it is written, and before the next
            tl.store(slot, dgate, mask=e < E)
        tl.debug_barrier()
    tl.store(dweight_ptr + of_part * E + e, dweight, mask=e < E)
    tl.store(dbias_ptr + of_part * E + e, dbias, mask=e < E)
