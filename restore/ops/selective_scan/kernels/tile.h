// The recurrence on one tile: up to T steps of W channels, the state in registers.
//
//   h[t] = exp(dt[t] A) h[t-1] + dt[t] u[t] B[t]      y[t] = sum over n of C[t] h[t]
//
// B and C lie at [t * st + n * sn] of their pointers. A2 = A * log2(e), so that exp is 2^x.
#pragma once
#include "lanes.h"

constexpr int T = 64;

struct Rows {  // B and C of one tile
  const float *B, *C;
  long st, sn;
};

template <int NB>
static inline void advance(int steps, int n, const Lanes* dt, const Lanes* du, Rows rows,
                           const Lanes* A2, Lanes* state, Lanes* y) {
  Lanes a2[NB], h[NB];
  for (int i = 0; i < NB; i++) a2[i] = A2[n + i], h[i] = state[n + i];
  for (int t = 0; t < steps; t++) {
    const float* B = rows.B + t * rows.st + n * rows.sn;
    const float* C = rows.C + t * rows.st + n * rows.sn;
    Lanes d = dt[t], s = du[t], out = y[t];
    for (int i = 0; i < NB; i++) {
      h[i] = exp2_lanes(d * a2[i]) * h[i] + s * B[i * rows.sn];
      out += h[i] * C[i * rows.sn];
    }
    y[t] = out;
  }
  for (int i = 0; i < NB; i++) state[n + i] = h[i];
}

// Adds the states' part to y[0..steps) and moves `state` on.
static void forward_tile(int steps, int states, const Lanes* dt, const Lanes* du, Rows rows,
                         const Lanes* A2, Lanes* state, Lanes* y) {
  int n = 0;
  for (; n + 4 <= states; n += 4) advance<4>(steps, n, dt, du, rows, A2, state, y);
  for (; n < states; n++) advance<1>(steps, n, dt, du, rows, A2, state, y);
}

template <int NB>
static inline void advance_state(int steps, int n, const Lanes* dt, const Lanes* du, Rows rows,
                                 const Lanes* A2, Lanes* state) {
  Lanes a2[NB], h[NB];
  for (int i = 0; i < NB; i++) a2[i] = A2[n + i], h[i] = state[n + i];
  for (int t = 0; t < steps; t++) {
    const float* B = rows.B + t * rows.st + n * rows.sn;
    Lanes d = dt[t], s = du[t];
    for (int i = 0; i < NB; i++) h[i] = exp2_lanes(d * a2[i]) * h[i] + s * B[i * rows.sn];
  }
  for (int i = 0; i < NB; i++) state[n + i] = h[i];
}

// Moves `state` over the tile without its outputs.
static void state_tile(int steps, int states, const Lanes* dt, const Lanes* du, Rows rows,
                       const Lanes* A2, Lanes* state) {
  int n = 0;
  for (; n + 4 <= states; n += 4) advance_state<4>(steps, n, dt, du, rows, A2, state);
  for (; n < states; n++) advance_state<1>(steps, n, dt, du, rows, A2, state);
}

struct TileGrads {
  Lanes du[T];      // of dt * u
  Lanes ddt[T];     // of dt, by way of exp(dt A) alone
  Lanes* dA;        // [states], added to
  float* rows;      // [2 * states][T], sums over the lanes of B's gradient, then C's; added to
};

// Adds the sums over the lanes of `steps` vectors to `row`; uses the vectors up.
static inline void add_lane_sums(int steps, Lanes* values, float* row) {
  for (int t = steps; t < (steps + W - 1) / W * W; t++) values[t] = Lanes{};
  for (int t = 0; t < steps; t += W) store(row + t, load(row + t, W) + sums_of_rows(values + t), W);
}

template <int NB>
static inline void retreat(int steps, int states, int n, const Lanes* dt, const Lanes* du,
                           const Lanes* dy, Rows rows, const Lanes* A, const Lanes* A2,
                           const Lanes* state, Lanes* carry, TileGrads& g) {
  Lanes kept[NB][T], decayed[NB][T], per_step[NB][T];
  const float *B = rows.B + n * rows.sn, *C = rows.C + n * rows.sn;
  Lanes h[NB], adjoint[NB], dA[NB];
  for (int i = 0; i < NB; i++) h[i] = state[n + i], adjoint[i] = carry[n + i], dA[i] = Lanes{};
  for (int t = 0; t < steps; t++)
    for (int i = 0; i < NB; i++) {
      kept[i][t] = exp2_lanes(dt[t] * A2[n + i]);
      decayed[i][t] = kept[i][t] * h[i];
      h[i] = decayed[i][t] + du[t] * B[t * rows.st + i * rows.sn];
      per_step[i][t] = dy[t] * h[i];
    }
  for (int i = 0; i < NB; i++) add_lane_sums(steps, per_step[i], g.rows + (states + n + i) * T);
  for (int t = steps - 1; t >= 0; t--) {
    Lanes of_du = g.du[t], of_dt = g.ddt[t];
    for (int i = 0; i < NB; i++) {
      adjoint[i] += dy[t] * C[t * rows.st + i * rows.sn];
      per_step[i][t] = adjoint[i] * du[t];
      of_du += adjoint[i] * B[t * rows.st + i * rows.sn];
      Lanes through = adjoint[i] * decayed[i][t];
      of_dt += through * A[n + i];
      dA[i] += through * dt[t];
      adjoint[i] *= kept[i][t];
    }
    g.du[t] = of_du, g.ddt[t] = of_dt;
  }
  for (int i = 0; i < NB; i++) {
    add_lane_sums(steps, per_step[i], g.rows + (n + i) * T);
    carry[n + i] = adjoint[i], g.dA[n + i] += dA[i];
  }
}

// Adjoint of forward_tile. `state` is the state before the tile; `carry` is exp(dt A) g of the
// first step after it, and becomes that of the tile's own first step.
static void backward_tile(int steps, int states, const Lanes* dt, const Lanes* du,
                          const Lanes* dy, Rows rows, const Lanes* A, const Lanes* A2,
                          const Lanes* state, Lanes* carry, TileGrads& g) {
  for (int t = 0; t < steps; t++) g.du[t] = g.ddt[t] = Lanes{};
  int n = 0;
  for (; n + 2 <= states; n += 2)
    retreat<2>(steps, states, n, dt, du, dy, rows, A, A2, state, carry, g);
  for (; n < states; n++)
    retreat<1>(steps, states, n, dt, du, dy, rows, A, A2, state, carry, g);
}
