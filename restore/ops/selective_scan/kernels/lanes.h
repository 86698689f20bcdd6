// W channels side by side in one vector: exp, softplus, transposition, sums over the lanes.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
constexpr int W = 16;
#else
constexpr int W = 8;
#endif

typedef float Lanes __attribute__((vector_size(W * 4)));
typedef int32_t Ints __attribute__((vector_size(W * 4)));

// The first `width` lanes of a row in memory; the others are zero.
static inline Lanes load(const float* row, int width) {
  Lanes v = {};
  if (width == W) std::memcpy(&v, row, sizeof v);
  else std::memcpy(&v, row, width * sizeof(float));
  return v;
}

static inline void store(float* row, Lanes v, int width) {
  if (width == W) std::memcpy(row, &v, sizeof v);
  else std::memcpy(row, &v, width * sizeof(float));
}

// x, but at least `low` and at most `high`; NaN stays NaN.
static inline Lanes clamp(Lanes x, float low, float high) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  __m256 v = _mm256_max_ps(_mm256_set1_ps(low), (__m256)x);
  return (Lanes)_mm256_min_ps(_mm256_set1_ps(high), v);
#else
  x = x < low ? (Lanes{} + low) : x;
  return x > high ? (Lanes{} + high) : x;
#endif
}

// 2^f for |f| <= 1/2 to 1e-7 relative; 2^0 is exactly 1.
static inline Lanes exp2_of_fraction(Lanes f) {
  Lanes p = 1.3264726299e-3f * f + 9.6715130100e-3f;
  p = p * f + 5.5507337491e-2f;
  p = p * f + 2.4022242079e-1f;
  p = p * f + 6.9314697759e-1f;
  return p * f + 1.f;
}

// 2^x to 1e-7 relative; 0 or 2^-125 where it would be smaller; NaN stays NaN.
static inline Lanes exp2_lanes(Lanes x) {
#ifdef __AVX512F__
  __m512 whole = _mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
  return (Lanes)_mm512_scalef_ps((__m512)exp2_of_fraction(x - (Lanes)whole), whole);
#else
  const float round = 12582912.f;  // 1.5 * 2^23: the sum's low bits are the nearest integer
  x = clamp(x, -125.f, 127.f);
  Lanes shifted = x + round;
  Lanes power = (Lanes)(((Ints)shifted + 127) << 23);
  return exp2_of_fraction(x - (shifted - round)) * power;
#endif
}

static inline Lanes exp_lanes(Lanes x) { return exp2_lanes(x * 1.44269504089f); }

// softplus(v) = log(1 + e^v), v itself above 20 as torch has it, and its derivative.
static inline Lanes softplus_lanes(Lanes v, Lanes* slope) {
  Lanes size = v < 0.f ? -v : v;
  Lanes w = exp_lanes(-size);
  Lanes s = w / (2.f + w), s2 = s * s;  // log1p(w) = 2 atanh(w / (2 + w))
  Lanes p = 2.8178643081e-1f * s2 + 2.7960545595e-1f;
  p = p * s2 + 4.0024913473e-1f;
  p = p * s2 + 6.6666314629e-1f;
  p = p * s2 + 2.0000000079f;
  if (slope) *slope = v > 20.f ? (Lanes{} + 1.f) : (v < 0.f ? w : (Lanes{} + 1.f)) / (1.f + w);
  return v > 20.f ? v : (v < 0.f ? (Lanes{}) : v) + p * s;
}

template <int S, size_t... I>
static inline Lanes low_of(Lanes a, Lanes b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, ((I & S) ? W + int(I) - S : int(I))...);
}

template <int S, size_t... I>
static inline Lanes high_of(Lanes a, Lanes b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, ((I & S) ? W + int(I) : int(I) + S)...);
}

using Order = std::make_index_sequence<W>;

template <int S>
static inline void swap_blocks(Lanes* rows) {
  for (int i = 0; i < W; i++) {
    if (i & S) continue;
    Lanes a = rows[i], b = rows[i + S];
    rows[i] = low_of<S>(a, b, Order{});
    rows[i + S] = high_of<S>(a, b, Order{});
  }
}

// rows[i][j] <-> rows[j][i]
static inline void transpose(Lanes* rows) {
  swap_blocks<1>(rows);
  swap_blocks<2>(rows);
  swap_blocks<4>(rows);
  if constexpr (W == 16) swap_blocks<8>(rows);
}

template <int S>
static inline void add_pairs(Lanes* rows, int pairs) {
  for (int i = 0; i < pairs; i++) {
    Lanes a = rows[2 * i], b = rows[2 * i + 1];
    rows[i] = low_of<S>(a, b, Order{}) + high_of<S>(a, b, Order{});
  }
}

// Lane i of the result is the sum over the lanes of rows[i]; the rows are used up.
static inline Lanes sums_of_rows(Lanes* rows) {
  add_pairs<1>(rows, W / 2);
  add_pairs<2>(rows, W / 4);
  add_pairs<4>(rows, W / 8);
  if constexpr (W == 16) add_pairs<8>(rows, 1);
  return rows[0];
}

static inline float sum_of(Lanes v) {
  float total = 0;
  for (int i = 0; i < W; i++) total += v[i];
  return total;
}
