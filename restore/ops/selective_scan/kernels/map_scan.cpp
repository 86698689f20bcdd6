// Selective scans along K paths over one map, read and written at its pixels through `order`.
//
// A row of `projected` is one pixel and direction: the low-rank step (R), B (N), C (N).
#include "threads.h"
#include "tile.h"

namespace {

struct Shape {
  long batch, pixels, channels, directions, rank, states;
  long row() const { return rank + 2 * states; }
};

struct Inputs {
  const float *x, *projected, *step_weight, *step_bias, *A, *D;
  const int64_t* order;
};

// One batch element, one direction, some channels.
struct Path {
  const Shape& s;
  const Inputs& in;
  long b, k;
  Blocks blocks;
  LanesArray A2, weight;      // [block][state], [block][rank]
  std::vector<float> packed;  // [T][row], the rows of the current tile in the order of the path
  const int64_t* pixel;       // of the current tile
  Lanes u[T], dt[T], du[T], slope[T];

  Path(const Shape& shape, const Inputs& inputs, long b_, long k_, Blocks part)
      : s(shape), in(inputs), b(b_), k(k_), blocks(part), packed(T * s.row()) {
    const long first = k * s.channels;
    A2 = lanes_of_table(in.A + first * s.states, s.states, blocks, 1.44269504089f);
    weight = lanes_of_table(in.step_weight + first * s.rank, s.rank, blocks, 1.f);
  }

  long tiles() const { return divide_up(s.pixels, T); }
  int steps_of(long tile) const { return int(std::min<long>(T, s.pixels - tile * T)); }
  long at_x(int t, long block) const {
    return (b * s.pixels + pixel[t]) * s.channels + blocks.start(block);
  }
  long at_y(int t, long block) const {
    return ((b * s.pixels + pixel[t]) * s.directions + k) * s.channels + blocks.start(block);
  }
  long at_row(int t) const { return ((b * s.pixels + pixel[t]) * s.directions + k) * s.row(); }
  long at_channel(long block) const { return k * s.channels + blocks.start(block); }

  Rows enter(long tile) {
    pixel = in.order + k * s.pixels + tile * T;
    for (int t = 0; t < steps_of(tile); t++)
      std::memcpy(&packed[t * s.row()], in.projected + at_row(t), s.row() * sizeof(float));
    const float* B = packed.data() + s.rank;
    return {B, B + s.states, s.row(), 1};
  }

  void read(long block, int steps) {
    const int width = blocks.width(block);
    const Lanes bias = load(in.step_bias + at_channel(block), width);
    const Lanes* w = &weight[block * s.rank];
    for (int t = 0; t < steps; t++) {
      Lanes v = bias;
      for (long r = 0; r < s.rank; r++) v += w[r] * packed[t * s.row() + r];
      u[t] = load(in.x + at_x(t, block), width);
      dt[t] = softplus_lanes(v, &slope[t]);
      du[t] = dt[t] * u[t];
    }
  }

  Lanes skip(long block) const { return load(in.D + at_channel(block), blocks.width(block)); }
};

void forward(Path& p, float* y, float* mean) {
  const long N = p.s.states, count = p.blocks.count();
  LanesArray state(count * N, Lanes{});
  std::vector<double> totals(count * W, 0.);
  Lanes out[T];
  for (long tile = 0; tile < p.tiles(); tile++) {
    const Rows rows = p.enter(tile);
    const int steps = p.steps_of(tile);
    for (long c = 0; c < count; c++) {
      p.read(c, steps);
      const Lanes skip = p.skip(c);
      for (int t = 0; t < steps; t++) out[t] = skip * p.u[t];
      forward_tile(steps, N, p.dt, p.du, rows, &p.A2[c * N], &state[c * N], out);
      Lanes total = {};
      for (int t = 0; t < steps; t++) {
        total += out[t];
        store(y + p.at_y(t, c), out[t], p.blocks.width(c));
      }
      for (int i = 0; i < W; i++) totals[c * W + i] += total[i];
    }
  }
  for (long c = 0; c < count; c++)
    for (int i = 0; i < p.blocks.width(c); i++)
      mean[p.b * p.s.directions * p.s.channels + p.at_channel(c) + i] =
          float(totals[c * W + i] / double(p.s.pixels));
}

struct Grads {
  float* x;                        // (batch, pixels, channels)
  float* projected;                // (parts, batch, pixels, directions, row), summed over parts
  float *step_weight, *step_bias;  // (batch, directions, channels, rank), (batch, directions, …)
  float *A, *D;                    // likewise, with states; all to be summed over batch
};

LanesArray states_before_tiles(Path& p) {
  const long N = p.s.states, size = p.blocks.count() * N;
  LanesArray before(p.tiles() * size, Lanes{});
  for (long tile = 0; tile + 1 < p.tiles(); tile++) {
    const Rows rows = p.enter(tile);
    std::copy_n(&before[tile * size], size, &before[(tile + 1) * size]);
    for (long c = 0; c < p.blocks.count(); c++) {
      p.read(c, p.steps_of(tile));
      state_tile(p.steps_of(tile), N, p.dt, p.du, rows, &p.A2[c * N],
                 &before[(tile + 1) * size + c * N]);
    }
  }
  return before;
}

// [row][T] sums -> the rows of the tile's pixels.
void write_rows(const Path& p, int steps, const std::vector<float>& sums, float* projected) {
  for (long j = 0; j < p.s.row(); j += W) {
    const int width = int(std::min<long>(W, p.s.row() - j));
    for (int t = 0; t < steps; t += W) {
      Lanes block[W] = {};
      for (int i = 0; i < width; i++) block[i] = load(&sums[(j + i) * T + t], W);
      transpose(block);
      for (int i = 0; i < std::min(W, steps - t); i++)
        store(projected + p.at_row(t + i) + j, block[i], width);
    }
  }
}

// What every channel block adds up over a path.
struct Totals {
  LanesArray A, weight, D, bias;
  Totals(long count, long states, long rank)
      : A(count * states, Lanes{}), weight(count * rank, Lanes{}), D(count, Lanes{}),
        bias(count, Lanes{}) {}
};

// From the gradients of dt * u and dt to those of x, the step's weight and its low rank.
void step_grads(Path& p, long c, int steps, const Lanes* dy, TileGrads& g, Totals& totals,
                float* dx, float* sums) {
  const int width = p.blocks.width(c);
  const Lanes skip = p.skip(c);
  Lanes of_step[T], products[T];
  for (int t = 0; t < steps; t++) {
    of_step[t] = (g.ddt[t] + g.du[t] * p.u[t]) * p.slope[t];
    totals.D[c] += dy[t] * p.u[t];
    totals.bias[c] += of_step[t];
    Lanes of_x = skip * dy[t] + g.du[t] * p.dt[t];
    float* to = dx + p.at_x(t, c);
    store(to, p.k == 0 ? of_x : load(to, width) + of_x, width);
  }
  for (long r = 0; r < p.s.rank; r++) {
    Lanes weight = p.weight[c * p.s.rank + r], of_weight = {};
    for (int t = 0; t < steps; t++) {
      of_weight += of_step[t] * p.packed[t * p.s.row() + r];
      products[t] = of_step[t] * weight;
    }
    totals.weight[c * p.s.rank + r] += of_weight;
    add_lane_sums(steps, products, sums + r * T);
  }
}

void backward(Path& p, const float* dy, const float* dmean, long part, Grads out) {
  const long N = p.s.states, count = p.blocks.count(), size = count * N;
  LanesArray before = states_before_tiles(p), carry(size, Lanes{});
  const long first = p.k * p.s.channels;
  const LanesArray A = lanes_of_table(p.in.A + first * N, N, p.blocks, 1.f);
  Totals totals(count, N, p.s.rank);
  std::vector<float> sums(p.s.row() * T);
  Lanes grad[T];
  TileGrads g;
  g.rows = sums.data() + p.s.rank * T;
  for (long tile = p.tiles() - 1; tile >= 0; tile--) {
    const Rows rows = p.enter(tile);
    const int steps = p.steps_of(tile);
    std::fill(sums.begin(), sums.end(), 0.f);
    for (long c = 0; c < count; c++) {
      p.read(c, steps);
      const long at = p.b * p.s.directions * p.s.channels + p.at_channel(c);
      const Lanes of_mean = load(dmean + at, p.blocks.width(c)) / float(p.s.pixels);
      for (int t = 0; t < steps; t++)
        grad[t] = load(dy + p.at_y(t, c), p.blocks.width(c)) + of_mean;
      g.dA = &totals.A[c * N];
      backward_tile(steps, N, p.dt, p.du, grad, rows, &A[c * N], &p.A2[c * N],
                    &before[tile * size + c * N], &carry[c * N], g);
      step_grads(p, c, steps, grad, g, totals, out.x, sums.data());
    }
    const long of_part = p.s.batch * p.s.pixels * p.s.directions * p.s.row();
    write_rows(p, steps, sums, out.projected + part * of_part);
  }
  const long of_direction = (p.b * p.s.directions + p.k) * p.s.channels;
  table_of_lanes(out.A + of_direction * N, N, p.blocks, totals.A);
  table_of_lanes(out.step_weight + of_direction * p.s.rank, p.s.rank, p.blocks, totals.weight);
  table_of_lanes(out.D + of_direction, 1, p.blocks, totals.D);
  table_of_lanes(out.step_bias + of_direction, 1, p.blocks, totals.bias);
}

}  // namespace

extern "C" {

void map_scan_forward(int threads, long parts, long batch, long pixels, long channels,
                      long directions, long rank, long states, const float* x,
                      const float* projected, const int64_t* order, const float* step_weight,
                      const float* step_bias, const float* A, const float* D, float* y,
                      float* mean) {
  const Shape s{batch, pixels, channels, directions, rank, states};
  const Inputs in{x, projected, step_weight, step_bias, A, D, order};
  share(batch * directions * parts, threads, [&](long item) {
    Path path(s, in, item / parts / directions, item / parts % directions,
              part_of(channels, item % parts, parts));
    forward(path, y, mean);
  });
}

// One item takes all directions of its channels in turn, for they add up in dx.
void map_scan_backward(int threads, long parts, long batch, long pixels, long channels,
                       long directions, long rank, long states, const float* dy,
                       const float* dmean, const float* x, const float* projected,
                       const int64_t* order, const float* step_weight, const float* step_bias,
                       const float* A, const float* D, float* dx, float* dprojected,
                       float* dstep_weight, float* dstep_bias, float* dA, float* dD) {
  const Shape s{batch, pixels, channels, directions, rank, states};
  const Inputs in{x, projected, step_weight, step_bias, A, D, order};
  const Grads out{dx, dprojected, dstep_weight, dstep_bias, dA, dD};
  share(batch * parts, threads, [&](long item) {
    for (long k = 0; k < directions; k++) {
      Path path(s, in, item / parts, k, part_of(channels, item % parts, parts));
      backward(path, dy, dmean, item % parts, out);
    }
  });
}
}
