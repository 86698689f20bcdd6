// LayerNorm(sum over the directions of gate * y) * SiLU(z) at every pixel, and its gradients.
#include <cmath>

#include "threads.h"

namespace {

constexpr long PIXELS = 64;  // taken at a time

struct Shape {
  long batch, pixels, directions, channels;
  float eps;
  long blocks() const { return divide_up(channels, W); }
  int width(long c) const { return int(std::min<long>(W, channels - c * W)); }
};

struct Inputs {
  const float *y, *gate, *z, *weight, *bias;
};

// The normalised sum of one pixel, [block] lanes; lanes past the last channel are zero.
struct Pixel {
  LanesArray norm;
  float reciprocal_deviation = 0;

  explicit Pixel(const Shape& s) : norm(s.blocks()) {}

  void read(const Shape& s, const Inputs& in, long b, long l) {
    Lanes total = {}, squares = {};
    for (long c = 0; c < s.blocks(); c++) {
      Lanes sum = {};
      for (long k = 0; k < s.directions; k++) {
        const long at = k * s.channels + c * W, of_batch = s.directions * s.channels;
        sum += load(in.gate + b * of_batch + at, s.width(c)) *
               load(in.y + (b * s.pixels + l) * of_batch + at, s.width(c));
      }
      norm[c] = sum;
      total += sum;
    }
    const float mean = sum_of(total) / float(s.channels);
    for (long c = 0; c < s.blocks(); c++) {
      if (s.width(c) == W) norm[c] -= mean;
      else for (int i = 0; i < s.width(c); i++) norm[c][i] -= mean;
      squares += norm[c] * norm[c];
    }
    reciprocal_deviation = 1.f / std::sqrt(sum_of(squares) / float(s.channels) + s.eps);
    for (long c = 0; c < s.blocks(); c++) norm[c] *= reciprocal_deviation;
  }
};

void forward(const Shape& s, const Inputs& in, long b, long first, long last, float* out) {
  Pixel pixel(s);
  for (long l = first; l < last; l++) {
    pixel.read(s, in, b, l);
    for (long c = 0; c < s.blocks(); c++) {
      const int width = s.width(c);
      const long at = (b * s.pixels + l) * s.channels + c * W;
      const Lanes z = load(in.z + at, width);
      const Lanes scaled =
          pixel.norm[c] * load(in.weight + c * W, width) + load(in.bias + c * W, width);
      store(out + at, scaled * z / (1.f + exp_lanes(-z)), width);
    }
  }
}

struct Grads {
  float *y, *z;               // as y and z
  float *gate;                // (parts, batch, directions, channels), summed over parts
  float *weight, *bias;       // (parts, channels), likewise
};

// [first, last) of the pixels of every batch element.
void backward(const Shape& s, const Inputs& in, const float* dout, long part, long first,
              long last, const Grads& g) {
  const long of_batch = s.directions * s.channels, blocks = s.blocks();
  LanesArray dgate(s.batch * s.directions * blocks, Lanes{}), dweight(blocks, Lanes{}),
      dbias(blocks, Lanes{}), dnorm(blocks, Lanes{});
  Pixel pixel(s);
  for (long b = 0; b < s.batch; b++)
    for (long l = first; l < last; l++) {
      pixel.read(s, in, b, l);
      Lanes sum = {}, sum_of_products = {};
      for (long c = 0; c < blocks; c++) {
        const int width = s.width(c);
        const long at = (b * s.pixels + l) * s.channels + c * W;
        const Lanes z = load(in.z + at, width), of_out = load(dout + at, width);
        const Lanes weight = load(in.weight + c * W, width);
        const Lanes scaled = pixel.norm[c] * weight + load(in.bias + c * W, width);
        const Lanes sigmoid = 1.f / (1.f + exp_lanes(-z));
        store(g.z + at, of_out * scaled * sigmoid * (1.f + z * (1.f - sigmoid)), width);
        const Lanes of_scaled = of_out * z * sigmoid;
        dweight[c] += of_scaled * pixel.norm[c];
        dbias[c] += of_scaled;
        dnorm[c] = of_scaled * weight;
        sum += dnorm[c];
        sum_of_products += dnorm[c] * pixel.norm[c];
      }
      const float mean = sum_of(sum) / float(s.channels);
      const float slope = sum_of(sum_of_products) / float(s.channels);
      for (long c = 0; c < blocks; c++) {
        const Lanes of_sum =
            (dnorm[c] - mean - pixel.norm[c] * slope) * pixel.reciprocal_deviation;
        for (long k = 0; k < s.directions; k++) {
          const long at = k * s.channels + c * W, of_pixel = (b * s.pixels + l) * of_batch + at;
          store(g.y + of_pixel, of_sum * load(in.gate + b * of_batch + at, s.width(c)),
                s.width(c));
          dgate[(b * s.directions + k) * blocks + c] += of_sum * load(in.y + of_pixel, s.width(c));
        }
      }
    }
  for (long c = 0; c < blocks; c++) {
    store(g.weight + part * s.channels + c * W, dweight[c], s.width(c));
    store(g.bias + part * s.channels + c * W, dbias[c], s.width(c));
    for (long bk = 0; bk < s.batch * s.directions; bk++)
      store(g.gate + (part * s.batch * s.directions + bk) * s.channels + c * W,
            dgate[bk * blocks + c], s.width(c));
  }
}

}  // namespace

extern "C" {

void merge_forward(int threads, long batch, long pixels, long directions, long channels, float eps,
                   const float* y, const float* gate, const float* z, const float* weight,
                   const float* bias, float* out) {
  const Shape s{batch, pixels, directions, channels, eps};
  const Inputs in{y, gate, z, weight, bias};
  const long strips = divide_up(pixels, PIXELS);
  share(batch * strips, threads, [&](long item) {
    const long first = item % strips * PIXELS;
    forward(s, in, item / strips, first, std::min(pixels, first + PIXELS), out);
  });
}

void merge_backward(int threads, long parts, long batch, long pixels, long directions,
                    long channels, float eps, const float* dout, const float* y,
                    const float* gate, const float* z, const float* weight, const float* bias,
                    float* dy, float* dgate, float* dz, float* dweight, float* dbias) {
  const Shape s{batch, pixels, directions, channels, eps};
  const Inputs in{y, gate, z, weight, bias};
  share(parts, threads, [&](long part) {
    backward(s, in, dout, part, pixels * part / parts, pixels * (part + 1) / parts,
             {dy, dz, dgate, dweight, dbias});
  });
}
}
