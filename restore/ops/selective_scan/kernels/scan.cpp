// Selective scan over rows in memory: u, delta, y (batch, channels, steps), forward and gradients.
#include "threads.h"
#include "tile.h"

namespace {

struct Shape {
  long batch, groups, channels, steps, states;  // channels of one group
};

struct Inputs {
  const float *u, *delta, *A, *B, *C, *D, *bias;  // D and bias may be null
  bool softplus;
};

// `steps` values of `width` rows of memory -> one vector a step, and back.
void load_rows(const float* first, long stride, int width, int steps, Lanes* out) {
  for (int t = 0; t < steps; t += W) {
    Lanes rows[W] = {};
    for (int i = 0; i < width; i++) rows[i] = load(first + i * stride + t, std::min(W, steps - t));
    transpose(rows);
    std::memcpy(out + t, rows, sizeof rows);
  }
}

void store_rows(float* first, long stride, int width, int steps, const Lanes* in) {
  for (int t = 0; t < steps; t += W) {
    Lanes rows[W];
    std::memcpy(rows, in + t, sizeof rows);
    transpose(rows);
    for (int i = 0; i < width; i++) store(first + i * stride + t, rows[i], std::min(W, steps - t));
  }
}

// One batch element and some channels of one group: what both directions of the pass share.
struct Strip {
  const Shape& s;
  const Inputs& in;
  long b, g;
  Blocks blocks;
  LanesArray A2;
  std::vector<float> packed;  // [2 * states][T]: B, then C, of the current tile
  Lanes u[T], dt[T], du[T], slope[T];

  Strip(const Shape& shape, const Inputs& inputs, long b_, long g_, long part, long parts)
      : s(shape), in(inputs), b(b_), g(g_), blocks(part_of(s.channels, part, parts)),
        packed(2 * s.states * T) {
    blocks.first += g * s.channels, blocks.last += g * s.channels;
    A2 = lanes_of_table(in.A, s.states, blocks, 1.44269504089f);
  }

  long tiles() const { return divide_up(s.steps, T); }
  int steps_of(long tile) const { return int(std::min<long>(T, s.steps - tile * T)); }
  long row(long block) const { return (b * s.groups * s.channels + blocks.start(block)) * s.steps; }
  long group_row(long n) const { return ((b * s.groups + g) * s.states + n) * s.steps; }

  Rows pack(long tile) {
    for (long n = 0; n < s.states; n++) {
      size_t bytes = steps_of(tile) * sizeof(float);
      std::memcpy(&packed[n * T], in.B + group_row(n) + tile * T, bytes);
      std::memcpy(&packed[(s.states + n) * T], in.C + group_row(n) + tile * T, bytes);
    }
    return {packed.data(), packed.data() + s.states * T, 1, T};
  }

  void read(long block, long tile) {
    int width = blocks.width(block), steps = steps_of(tile);
    load_rows(in.u + row(block) + tile * T, s.steps, width, steps, u);
    load_rows(in.delta + row(block) + tile * T, s.steps, width, steps, dt);
    Lanes bias = in.bias ? load(in.bias + blocks.start(block), width) : Lanes{};
    for (int t = 0; t < steps; t++) {
      Lanes v = dt[t] + bias;
      slope[t] = Lanes{} + 1.f;
      dt[t] = in.softplus ? softplus_lanes(v, &slope[t]) : v;
      du[t] = dt[t] * u[t];
    }
  }

  Lanes skip(long block) const {
    return in.D ? load(in.D + blocks.start(block), blocks.width(block)) : Lanes{};
  }
};

void forward(Strip& x, float* y) {
  LanesArray state(x.blocks.count() * x.s.states, Lanes{});
  Lanes out[T] = {};
  for (long tile = 0; tile < x.tiles(); tile++) {
    Rows rows = x.pack(tile);
    int steps = x.steps_of(tile);
    for (long c = 0; c < x.blocks.count(); c++) {
      x.read(c, tile);
      Lanes skip = x.skip(c);
      for (int t = 0; t < steps; t++) out[t] = skip * x.u[t];
      forward_tile(steps, x.s.states, x.dt, x.du, rows, &x.A2[c * x.s.states],
                   &state[c * x.s.states], out);
      store_rows(y + x.row(c) + tile * T, x.s.steps, x.blocks.width(c), steps, out);
    }
  }
}

struct Grads {
  float *u, *delta;     // (batch, channels, steps)
  float *A, *D, *bias;  // (batch, channels, states) and (batch, channels), to be summed over batch
  float *B, *C;         // (parts, batch, groups, states, steps), to be summed over parts
};

LanesArray states_before_tiles(Strip& x) {
  long size = x.blocks.count() * x.s.states;
  LanesArray before(x.tiles() * size, Lanes{});
  for (long tile = 0; tile + 1 < x.tiles(); tile++) {
    Rows rows = x.pack(tile);
    std::copy_n(&before[tile * size], size, &before[(tile + 1) * size]);
    for (long c = 0; c < x.blocks.count(); c++) {
      x.read(c, tile);
      state_tile(x.steps_of(tile), x.s.states, x.dt, x.du, rows, &x.A2[c * x.s.states],
                 &before[(tile + 1) * size + c * x.s.states]);
    }
  }
  return before;
}

void backward(Strip& x, const float* dy, long part, Grads out) {
  const long N = x.s.states, count = x.blocks.count(), size = count * N;
  LanesArray before = states_before_tiles(x), carry(size, Lanes{}), dA(size, Lanes{});
  LanesArray A = lanes_of_table(x.in.A, N, x.blocks, 1.f);
  LanesArray dD(count, Lanes{}), dbias(count, Lanes{});
  std::vector<float> sums(2 * N * T);
  Lanes grad[T];
  TileGrads g;
  g.rows = sums.data();
  for (long tile = x.tiles() - 1; tile >= 0; tile--) {
    Rows rows = x.pack(tile);
    const int steps = x.steps_of(tile);
    std::fill(sums.begin(), sums.end(), 0.f);
    for (long c = 0; c < count; c++) {
      x.read(c, tile);
      load_rows(dy + x.row(c) + tile * T, x.s.steps, x.blocks.width(c), steps, grad);
      g.dA = &dA[c * N];
      backward_tile(steps, N, x.dt, x.du, grad, rows, &A[c * N], &x.A2[c * N],
                    &before[tile * size + c * N], &carry[c * N], g);
      Lanes skip = x.skip(c);
      for (int t = 0; t < steps; t++) {
        Lanes of_step = (g.ddt[t] + g.du[t] * x.u[t]) * x.slope[t];
        dD[c] += grad[t] * x.u[t];
        dbias[c] += of_step;
        grad[t] = skip * grad[t] + g.du[t] * x.dt[t];
        g.ddt[t] = of_step;
      }
      store_rows(out.u + x.row(c) + tile * T, x.s.steps, x.blocks.width(c), steps, grad);
      store_rows(out.delta + x.row(c) + tile * T, x.s.steps, x.blocks.width(c), steps, g.ddt);
    }
    const long offset = part * x.s.batch * x.s.groups * N * x.s.steps + tile * T;
    for (long n = 0; n < N; n++) {
      std::memcpy(out.B + offset + x.group_row(n), &sums[n * T], steps * sizeof(float));
      std::memcpy(out.C + offset + x.group_row(n), &sums[(N + n) * T], steps * sizeof(float));
    }
  }
  const long channels = x.s.groups * x.s.channels;
  table_of_lanes(out.A + x.b * channels * N, N, x.blocks, dA);
  table_of_lanes(out.D + x.b * channels, 1, x.blocks, dD);
  table_of_lanes(out.bias + x.b * channels, 1, x.blocks, dbias);
}

}  // namespace

extern "C" {

int scan_lanes() { return W; }

void scan_forward(int threads, long parts, long batch, long groups, long channels, long steps,
                  long states, const float* u, const float* delta, const float* A, const float* B,
                  const float* C, const float* D, const float* bias, int softplus, float* y) {
  Shape s{batch, groups, channels, steps, states};
  Inputs in{u, delta, A, B, C, D, bias, softplus != 0};
  share(batch * groups * parts, threads, [&](long item) {
    Strip strip(s, in, item / parts / groups, item / parts % groups, item % parts, parts);
    forward(strip, y);
  });
}

void scan_backward(int threads, long parts, long batch, long groups, long channels, long steps,
                   long states, const float* dy, const float* u, const float* delta,
                   const float* A, const float* B, const float* C, const float* D,
                   const float* bias, int softplus, float* du, float* ddelta, float* dA, float* dB,
                   float* dC, float* dD, float* dbias) {
  Shape s{batch, groups, channels, steps, states};
  Inputs in{u, delta, A, B, C, D, bias, softplus != 0};
  share(batch * groups * parts, threads, [&](long item) {
    Strip strip(s, in, item / parts / groups, item / parts % groups, item % parts, parts);
    backward(strip, dy, item % parts, {du, ddelta, dA, dD, dbias, dB, dC});
  });
}
}
