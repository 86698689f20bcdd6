"""Floor 2. Triton kernels of the selective scan, backward. Layouts as in `triton_kernels`.

With dh the gradient that the state after step l has from the steps after it,
    g[l] = C[l] dy[l] + dh[l],    dh[l - 1] = exp(Δ[l] A) g[l].
What a sum over channels needs is added up over the 32 channels of a program and written to a slice
of its block; what a sum over steps needs, to a slice of its segment. torch adds the slices: no
atomics, the same bits every time.
"""

# Only triton.jit gives tl.range and the like a meaning; for a type checker they never return.
# pyright: reportGeneralTypeIssues=false, reportMissingParameterType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import triton
import triton.language as tl

from restore.ops.selective_scan.triton_kernels import (
    place,
    raw_steps,
    rows_of,
    steps_of,
    then,
)

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def then_after(kept, added, kept0, added0, next_kept, next_added, next_kept0, next_added0):
    """As `then`; the last two of each: the same without its last step."""
    return (
        next_kept * kept,
        next_kept * added + next_added,
        next_kept0 * kept,
        next_kept0 * added + next_added0,
    )


@triton.jit
def reversed_in_time(x, T: tl.constexpr, BE: tl.constexpr):
    """(T, BE), last row first. Rows lie in registers, so this only renames them.

    (A scan with reverse=True turns the lanes round as well, with shuffles, and back.)
    """
    tl.static_assert(T == 16)
    x = tl.reshape(x, [2, 2, 2, 2, BE])
    for _axis in tl.static_range(4):
        first, second = tl.split(tl.permute(x, (1, 2, 3, 4, 0)))
        x = tl.permute(tl.join(second, first), (0, 1, 2, 4, 3))  # this axis last but BE
    return tl.reshape(x, [T, BE])


@triton.jit
def dy_of(dy_ptr, dmean, row, e, live, E):
    """(T, BE) gradient of y, with what each pixel has from the mean."""
    inside = live[:, None] & (e < E)[None, :]
    dy = tl.load(dy_ptr + row[:, None] * E + e[None, :], mask=inside, other=0.0)
    return tl.where(inside, dy + dmean[None, :], 0.0)


@triton.jit
def adjoint_kernel(
    dy_ptr, dmean_ptr, delta_ptr, projected_ptr, order_ptr, weight_ptr, bias_ptr, a_ptr,
    adjoint_ptr,
    L, E, K, blocks, segments, tiles,
    RANK: tl.constexpr, STATES: tl.constexpr, SOFTPLUS: tl.constexpr,
    ORDERED: tl.constexpr, WIDE: tl.constexpr, T: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """dh before each segment had the segments after it given nothing: (B, segments, K, N, E)."""
    b, s, k, block, e = place(blocks, K, segments, BE)
    inner = e < E
    bias = tl.load(bias_ptr + k * E + e, mask=inner, other=0.0)
    dmean = tl.load(dmean_ptr + (b * K + k) * E + e, mask=inner, other=0.0)
    before_us = b * L * K  # rows of the batch items before
    dy_ptr += before_us * E
    delta_ptr += before_us * E
    projected_ptr += before_us * (RANK + 2 * STATES)
    adjoint = adjoint_ptr + ((b * segments + s) * K + k) * STATES * E + e
    i = tl.arange(0, T)
    end = min((s + 1) * tiles, tl.cdiv(L, T))
    for back in range(1, end - s * tiles + 1):
        known = inner & (back > 1)  # nothing was stored yet
        steps = (end - back) * T + T - 1 - i  # last step first
        live = steps < L
        pixel, row = rows_of(order_ptr, k, steps, L, K, ORDERED, WIDE)
        wide_row = row * (RANK + 2 * STATES)
        raw = raw_steps(
            delta_ptr, projected_ptr, weight_ptr, bias, row, wide_row, k, e, E, RANK, T, BE
        )
        dt = steps_of(raw, live, SOFTPLUS)
        dy = dy_of(dy_ptr, dmean, row, e, live, E)
        for n in range(STATES):
            A = tl.load(a_ptr + (k * STATES + n) * E + e, mask=inner, other=0.0)
            C = tl.load(projected_ptr + RANK + STATES + n + wide_row)
            after = tl.load(adjoint + n * E, mask=known, other=0.0)
            kept = tl.exp2(dt * A[None, :])
            g = dy * C[:, None]
            g = tl.where((i == 0)[:, None], g + after[None, :], g)
            decay, dh = tl.associative_scan((kept, kept * g), 0, then)
            first = tl.sum(tl.where((i == T - 1)[:, None], dh, 0.0), 0)
            tl.store(adjoint + n * E, first, mask=inner)
        tl.debug_barrier()  # the next tile reads what was stored here


@triton.jit
def gradient_kernel(
    dy_ptr, dmean_ptr, u_ptr, delta_ptr, projected_ptr, order_ptr, weight_ptr, bias_ptr,
    a_ptr, d_ptr, start_ptr, border_ptr, border_time_ptr, adjoint_ptr,
    du_ptr, ddelta_ptr, dprojected_ptr, dweight_ptr, dbias_ptr, da_ptr, dd_ptr,
    B, L, E, K, blocks, segments, tiles,
    RANK: tl.constexpr, STATES: tl.constexpr, SOFTPLUS: tl.constexpr,
    SHARED: tl.constexpr, ORDERED: tl.constexpr, WIDE: tl.constexpr,
    T: tl.constexpr, BE: tl.constexpr,
):  # fmt: skip
    """Every gradient of one segment, last tile first.

    start: the state before each segment; border, border_time: of `scan_kernel`, from zero states;
    adjoint: dh after each segment, carried along in place. Written: du (B, L, K, E); ddelta
    likewise if there is no rank; dprojected (blocks, B, L, K, R + 2N); of each segment dweight
    (B, segments, K, R, E), da (.., N, E), dbias and dd (.., E).
    """
    b, s, k, block, e = place(blocks, K, segments, BE)
    inner = e < E
    bias = tl.load(bias_ptr + k * E + e, mask=inner, other=0.0)
    D = tl.load(d_ptr + k * E + e, mask=inner, other=0.0)
    dmean = tl.load(dmean_ptr + (b * K + k) * E + e, mask=inner, other=0.0)
    before_us = b * L * K  # rows of the batch items before
    u_ptr += b * L * E if SHARED else before_us * E
    dy_ptr += before_us * E
    delta_ptr += before_us * E
    projected_ptr += before_us * (RANK + 2 * STATES)
    du_ptr += before_us * E
    ddelta_ptr += before_us * E
    dprojected_ptr += (block.to(tl.int64) * B * L * K + before_us) * (RANK + 2 * STATES)
    of_segment = (b * segments + s) * K + k
    by_state = of_segment * STATES * E + e
    dbias = tl.zeros([BE], tl.float32)
    dD = tl.zeros([BE], tl.float32)
    i = tl.arange(0, T)
    opens, closes = (i == 0)[:, None], (i == T - 1)[:, None]
    ones = tl.full([T, BE], 1.0, tl.float32)
    all_tiles = tl.cdiv(L, T)
    end = min((s + 1) * tiles, all_tiles)
    for back in range(1, end - s * tiles + 1):
        known = inner & (back > 1)  # no sums were stored yet
        tile = end - back
        steps = tile * T + i
        live = steps < L
        inside = live[:, None] & inner[None, :]
        pixel, row = rows_of(order_ptr, k, steps, L, K, ORDERED, WIDE)
        wide_row = row * (RANK + 2 * STATES)
        of_u = pixel if SHARED else row
        u = tl.load(u_ptr + of_u[:, None] * E + e[None, :], mask=inner[None, :], other=0.0)
        raw = raw_steps(
            delta_ptr, projected_ptr, weight_ptr, bias, row, wide_row, k, e, E, RANK, T, BE
        )
        dt = steps_of(raw, live, SOFTPLUS)
        dy = dy_of(dy_ptr, dmean, row, e, live, E)
        of_border = (b * all_tiles + tile) * K + k
        elapsed = tl.load(border_time_ptr + of_border * E + e, mask=inner, other=0.0)
        du = tl.zeros([T, BE], tl.float32)
        ddt = tl.zeros([T, BE], tl.float32)
        for n in range(STATES):
            A = tl.load(a_ptr + (k * STATES + n) * E + e, mask=inner, other=0.0)
            B_n = tl.load(projected_ptr + RANK + n + wide_row)
            C_n = tl.load(projected_ptr + RANK + STATES + n + wide_row)
            start = tl.load(start_ptr + by_state + n * E, mask=inner, other=0.0)
            border = tl.load(border_ptr + (of_border * STATES + n) * E + e, mask=inner, other=0.0)
            border += tl.exp2(elapsed * A) * start
            kept = tl.exp2(dt * A[None, :])
            dtu = dt * u
            added = dtu * B_n[:, None]
            added = tl.where(opens, kept * border[None, :] + added, added)
            earlier = tl.where(opens, border[None, :], 0.0)
            decay, h, decay0, h_before = tl.associative_scan(
                (kept, added, ones, earlier), 0, then_after
            )
            after = tl.load(adjoint_ptr + by_state + n * E, mask=inner, other=0.0)
            from_y = dy * C_n[:, None]
            later = tl.where(closes, after[None, :], 0.0)
            backwards = (
                reversed_in_time(kept, T, BE),
                reversed_in_time(kept * (from_y + later), T, BE),
                ones,
                reversed_in_time(later, T, BE),
            )
            decay, dh_before, decay0, dh = tl.associative_scan(backwards, 0, then_after)
            first = tl.sum(tl.where(closes, dh_before, 0.0), 0)
            tl.store(adjoint_ptr + by_state + n * E, first, mask=inner)
            g = from_y + reversed_in_time(dh, T, BE)
            tl.store(dprojected_ptr + RANK + n + wide_row, tl.sum(g * dtu, 1), mask=live)
            tl.store(dprojected_ptr + RANK + STATES + n + wide_row, tl.sum(dy * h, 1), mask=live)
            of_kept = g * kept * h_before
            ddt += of_kept * (A * LN_2)[None, :]
            du += g * B_n[:, None]
            dA = tl.load(da_ptr + by_state + n * E, mask=known, other=0.0)
            tl.store(da_ptr + by_state + n * E, dA + tl.sum(of_kept * dt, 0), mask=inner)
        ddt += du * u
        du = du * dt + D[None, :] * dy
        tl.store(du_ptr + row[:, None] * E + e[None, :], du, mask=inside)
        dD += tl.sum(dy * u, 0)
        if SOFTPLUS:
            t = tl.exp(tl.where(raw > 20.0, 0.0, raw))
            ddt *= tl.where(raw > 20.0, 1.0, t / (1.0 + t))
        dbias += tl.sum(ddt, 0)
        if RANK == 0:
            tl.store(ddelta_ptr + row[:, None] * E + e[None, :], ddt, mask=inside)
        for r in range(RANK):
            weight = tl.load(weight_ptr + (k * RANK + r) * E + e, mask=inner, other=0.0)
            tl.store(dprojected_ptr + r + wide_row, tl.sum(ddt * weight[None, :], 1), mask=live)
            low = tl.load(projected_ptr + r + wide_row)
            spot = dweight_ptr + (of_segment * RANK + r) * E + e
            dW = tl.load(spot, mask=known, other=0.0)
            tl.store(spot, dW + tl.sum(ddt * low[:, None], 0), mask=inner)
        tl.debug_barrier()  # the next tile reads what was stored here
    tl.store(dbias_ptr + of_segment * E + e, dbias, mask=inner)
    tl.store(dd_ptr + of_segment * E + e, dD, mask=inner)
