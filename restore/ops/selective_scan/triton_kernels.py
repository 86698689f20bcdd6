"""Floor 2. Triton kernels of the selective scan, forward. Needs triton; see `triton_backend`.

B batch, L steps or pixels, K directions (or groups), E channels of a direction, N states, R rank.
Layouts, all contiguous: y, dy, delta and a direction's own u (B, L, K, E); a shared u (B, L, E);
projected (B, L, K, R + 2N); order (K, L); A times log2(e) (K, N, E); the step's weight (K, R, E);
its bias and D (K, E).

One program is one warp: 32 neighbouring channels of one direction, one channel a lane, so that a
row of B and C serves 32 channels and every row of u and y is one 128-byte access. It walks through
one segment of the sequence in tiles of T steps; for each state n, the T steps of a tile are one
scan inside the lane. The state between tiles lies in memory that only this program touches.
"""

# Only triton.jit gives tl.range and the like a meaning; for a type checker they never return.
# pyright: reportGeneralTypeIssues=false, reportMissingParameterType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def then(kept, added, next_kept, next_added):
    """Two steps h -> kept · h + added, one after the other, as one."""
    return next_kept * kept, next_kept * added + next_added


@triton.jit
def place(blocks, K, parts, BE: tl.constexpr):
    """This program's batch item, part, direction and block of channels, and the channels."""
    pid = tl.program_id(0)
    block = pid % blocks
    k = (pid // blocks) % K
    part = (pid // (blocks * K)) % parts
    b = pid // (blocks * K * parts)
    return b.to(tl.int64), part, k, block, block * BE + tl.arange(0, BE)


@triton.jit
def rows_of(order_ptr, k, steps, L, K, ORDERED: tl.constexpr, WIDE: tl.constexpr):
    """Row numbers in (L) and in (L, K) of the pixels visited at these steps.

    Past the end: those of the last step, so that reading needs no mask.
    """
    steps = tl.minimum(steps, L - 1).to(tl.int64)
    if ORDERED:
        pixel = tl.load(order_ptr + k.to(tl.int64) * L + steps)
    else:
        pixel = steps
    pixel = pixel if WIDE else pixel.to(tl.int32)
    return pixel, pixel * K + k


@triton.jit
def softplus(v):
    """log(1 + exp(v)), v itself above 20 as in torch; exact to a few units in the last place."""
    t = tl.exp(tl.where(v > 20.0, 0.0, v))
    w = 1.0 + t
    rounded = w == 1.0
    log1p = tl.log(w) * (t / tl.where(rounded, 1.0, w - 1.0))  # Kahan: cancels the rounding of w
    return tl.where(v > 20.0, v, tl.where(rounded, t, log1p))


@triton.jit
def raw_steps(
    delta_ptr, projected_ptr, weight_ptr, bias, row, wide_row, k, e, E,
    RANK: tl.constexpr, T: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """(T, BE) step sizes before softplus: read, or formed from the low-rank step."""
    inner = e < E
    if RANK == 0:
        spot = row[:, None] * E + e[None, :]
        raw = tl.load(delta_ptr + spot, mask=inner[None, :], other=0.0)
    else:
        raw = tl.zeros([T, BE], tl.float32)
        for r in range(RANK):
            low = tl.load(projected_ptr + r + wide_row)
            weight = tl.load(weight_ptr + (k * RANK + r) * E + e, mask=inner, other=0.0)
            raw += low[:, None] * weight[None, :]
    return raw + bias[None, :]


@triton.jit
def steps_of(raw, live, SOFTPLUS: tl.constexpr):
    """Δ: zero past the end, where a step must leave the state as it is."""
    return tl.where(live[:, None], softplus(raw) if SOFTPLUS else raw, 0.0)


@triton.jit
def scan_kernel(
    u_ptr, delta_ptr, projected_ptr, order_ptr, weight_ptr, bias_ptr, a_ptr, d_ptr,
    states_ptr, time_ptr, y_ptr, mean_ptr, border_ptr, border_time_ptr,
    L, E, K, blocks, segments, tiles,
    RANK: tl.constexpr, STATES: tl.constexpr, SOFTPLUS: tl.constexpr,
    SHARED: tl.constexpr, ORDERED: tl.constexpr, WIDE: tl.constexpr,
    FROM_ZERO: tl.constexpr, OUTPUT: tl.constexpr, BORDERS: tl.constexpr,
    T: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """One segment, from the states in `states_ptr` (B, segments, K, N, E), which it advances.

    FROM_ZERO: from zero states, whatever lies there. OUTPUT: writes y at its pixels and its sum
    over the segment (B, segments, K, E). Without it: writes the segment's end states and its ΣΔ
    (B, segments, K, E). BORDERS: also the state before each tile (B, tiles in all, K, N, E) and ΣΔ
    of the segment up to there.
    """
    b, s, k, block, e = place(blocks, K, segments, BE)
    inner = e < E
    bias = tl.load(bias_ptr + k * E + e, mask=inner, other=0.0)
    D = tl.load(d_ptr + k * E + e, mask=inner, other=0.0)
    before_us = b * L * K  # rows of the batch items before
    u_ptr += b * L * E if SHARED else before_us * E
    delta_ptr += before_us * E
    projected_ptr += before_us * (RANK + 2 * STATES)
    y_ptr += before_us * E
    of_segment = (b * segments + s) * K + k
    states = states_ptr + of_segment * STATES * E + e
    elapsed = tl.zeros([BE], tl.float32)
    total = tl.zeros([BE], tl.float32)
    i = tl.arange(0, T)
    all_tiles = tl.cdiv(L, T)
    first, end = s * tiles, min((s + 1) * tiles, all_tiles)
    for tile in range(first, end):
        known = inner & (tile > first) if FROM_ZERO else inner
        wanted = inner & (tile + 1 < end) if OUTPUT else inner
        steps = tile * T + i
        live = steps < L
        pixel, row = rows_of(order_ptr, k, steps, L, K, ORDERED, WIDE)
        wide_row = row * (RANK + 2 * STATES)
        of_u = pixel if SHARED else row
        u = tl.load(u_ptr + of_u[:, None] * E + e[None, :], mask=inner[None, :], other=0.0)
        raw = raw_steps(
            delta_ptr, projected_ptr, weight_ptr, bias, row, wide_row, k, e, E, RANK, T, BE
        )
        dt = steps_of(raw, live, SOFTPLUS)
        dtu = dt * u
        y = D[None, :] * u
        of_border = (b * all_tiles + tile) * K + k
        if BORDERS:
            tl.store(border_time_ptr + of_border * E + e, elapsed, mask=inner)
        for n in range(STATES):
            A = tl.load(a_ptr + (k * STATES + n) * E + e, mask=inner, other=0.0)
            B = tl.load(projected_ptr + RANK + n + wide_row)
            before = tl.load(states + n * E, mask=known, other=0.0)
            if BORDERS:
                tl.store(border_ptr + (of_border * STATES + n) * E + e, before, mask=inner)
            kept = tl.exp2(dt * A[None, :])
            added = dtu * B[:, None]
            added = tl.where((i == 0)[:, None], kept * before[None, :] + added, added)
            decay, h = tl.associative_scan((kept, added), 0, then)
            last = tl.sum(tl.where((i == T - 1)[:, None], h, 0.0), 0)
            tl.store(states + n * E, last, mask=wanted)
            if OUTPUT:
                C = tl.load(projected_ptr + RANK + STATES + n + wide_row)
                y += h * C[:, None]
        tl.debug_barrier()  # the next tile reads the states stored here
        elapsed += tl.sum(dt, 0)
        if OUTPUT:
            inside = live[:, None] & inner[None, :]
            tl.store(y_ptr + row[:, None] * E + e[None, :], y, mask=inside)
            total += tl.sum(tl.where(inside, y, 0.0), 0)
    if OUTPUT:
        tl.store(mean_ptr + of_segment * E + e, total, mask=inner)
    else:
        tl.store(time_ptr + of_segment * E + e, elapsed, mask=inner)


@triton.jit
def start_kernel(
    end_ptr, time_ptr, a_ptr, start_ptr, E, K, blocks, segments,
    STATES: tl.constexpr, BACKWARDS: tl.constexpr, ROWS: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """What each segment starts from, of what each would end with had it started from zero.

    end, start: (B, segments, K, N, E); time, the segments' ΣΔ: (B, segments, K, E).
    BACKWARDS: the last segment comes first. ROWS segments at once, one scan over them.
    """
    b, n, k, block, e = place(blocks, K, STATES, BE)
    inner = e < E
    A = tl.load(a_ptr + (k * STATES + n) * E + e, mask=inner, other=0.0)
    i = tl.arange(0, ROWS)
    carry = tl.zeros([BE], tl.float32)
    for first in range(0, segments, ROWS):
        turn = first + i
        s = segments - 1 - turn if BACKWARDS else turn
        row = (b * segments + s) * K + k
        inside = (turn < segments)[:, None] & inner[None, :]
        time = tl.load(time_ptr + row[:, None] * E + e[None, :], mask=inside, other=0.0)
        spot = (row * STATES + n)[:, None] * E + e[None, :]
        end = tl.load(end_ptr + spot, mask=inside, other=0.0)
        kept = tl.exp2(time * A[None, :])
        added = tl.where((i == 0)[:, None], kept * carry[None, :] + end, end)
        decay, after = tl.associative_scan((kept, added), 0, then)
        # The end of one is the start of the next, one row of (K, N, E) further on.
        step = -K * STATES * E if BACKWARDS else K * STATES * E
        has_next = (turn + 1 < segments)[:, None] & inner[None, :]
        tl.store(start_ptr + spot + step, after, mask=has_next)
        opening = (turn == 0)[:, None] & inner[None, :]
        tl.store(start_ptr + spot, tl.zeros([ROWS, BE], tl.float32), mask=opening)
        carry = tl.sum(tl.where((i == ROWS - 1)[:, None], after, 0.0), 0)
