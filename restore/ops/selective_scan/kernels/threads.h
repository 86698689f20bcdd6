// Work shared over threads: items taken in turn. Which thread does an item never changes a number.
#pragma once
#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "lanes.h"

using LanesArray = std::vector<Lanes>;

template <typename Work>
static void share(long items, int threads, const Work& work) {
  threads = int(std::min<long>(threads, items));
  std::atomic<long> next{0};
  auto take = [&] {
    for (long item = next++; item < items; item = next++) work(item);
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; i++) helpers.emplace_back(take);
  take();
  for (auto& helper : helpers) helper.join();
}

static inline long divide_up(long a, long b) { return (a + b - 1) / b; }

// Channels [first, last) of a group, in blocks of W.
struct Blocks {
  long first, last;
  long count() const { return divide_up(last - first, W); }
  long start(long block) const { return first + block * W; }
  int width(long block) const { return int(std::min<long>(W, last - start(block))); }
};

// Part `part` of `parts` of `channels` channels, cut at multiples of W.
static inline Blocks part_of(long channels, long part, long parts) {
  long blocks = divide_up(channels, W);
  return {std::min(channels, blocks * part / parts * W),
          std::min(channels, blocks * (part + 1) / parts * W)};
}

// A of a range of channels: table (channels, states) -> [block][state] lanes, times `factor`.
static inline LanesArray lanes_of_table(const float* table, long states, Blocks blocks,
                                        float factor) {
  LanesArray out(blocks.count() * states, Lanes{});
  for (long c = 0; c < blocks.count(); c++)
    for (int i = 0; i < blocks.width(c); i++)
      for (long n = 0; n < states; n++)
        out[c * states + n][i] = factor * table[(blocks.start(c) + i) * states + n];
  return out;
}

static inline void table_of_lanes(float* table, long states, Blocks blocks, const LanesArray& in) {
  for (long c = 0; c < blocks.count(); c++)
    for (int i = 0; i < blocks.width(c); i++)
      for (long n = 0; n < states; n++)
        table[(blocks.start(c) + i) * states + n] = in[c * states + n][i];
}
