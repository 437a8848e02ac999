// Many tokens: tokens are the lanes, weights are broadcast. For translation units of one
// instruction set (see ops/simd/vec.h); linear_kernels.h has the layouts.
#pragma once

#include <string.h>

#include "ops/linear_units_vec.h"

namespace mmcore::ops::simd {
namespace {

constexpr int64_t kPanel = 2 * kLanes;
constexpr int64_t kGroup = kLanes == 16 ? 12 : 6;  // 24 of 32 or 12 of 16 registers accumulate
constexpr int64_t kStrip = 48;                     // a multiple of kGroup and of kLanes
constexpr int64_t kBlockUnits = 192;  // packed weights: with a panel's part they fit the L1 cache
constexpr int64_t kRunUnits = 2048;   // weights in memory: the longer, the better they stream

constexpr int64_t panel_width(int64_t tokens) { return tokens > kLanes ? kPanel : kLanes; }

template <class M>
void pack_panel(const LinearProblem& p, int64_t first, int64_t count, float* panel) {
  using T = typename M::Element;
  const int64_t units = units_of<M>(p.k);
  const int64_t width = panel_width(count);
  for (int64_t t = 0; t < width; t += kLanes) {
    const T* from[kLanes];  // lanes without a token repeat the last one
    for (int64_t j = 0; j < kLanes; ++j) from[j] = x_row<T>(p, first + least(t + j, count - 1));
    for (int64_t u = 0; u < units; u += kLanes) {
      Vec rows[kLanes];
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) rows[j] = load_units<M>(from[j], u, p.k);
      transpose(rows);
      const int64_t n = units - u;
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) {
        if (j < n) rows[j].store(panel + (u + j) * width + t);
      }
    }
  }
}

/// acc [kGroup][kVecs * kLanes] (+)= weights times a panel, over `count` units. Weight row r begins
/// at w + r * stride bytes; kStride, unless 0, is that stride. Meanwhile the same part of the rows
/// at `next` is asked for, unless null.
template <class M, int kVecs, int64_t kStride>
[[gnu::noinline]] void tile(const char* w, int64_t stride, const float* x, int64_t count,
                            float* acc, bool first, const char* next) {
  if (kStride != 0) stride = kStride;
  Vec c[kGroup][kVecs];
#pragma GCC unroll 16
  for (int r = 0; r < kGroup; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVecs; ++v) c[r][v] = Vec::zero();
  }
  if (!first) {
#pragma GCC unroll 16
    for (int r = 0; r < kGroup; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) c[r][v] = Vec::load(acc + (r * kVecs + v) * kLanes);
    }
  }
  // One pointer for three rows: there are too few registers for twelve.
  const char* base[kGroup / 3];
#pragma GCC unroll 4
  for (int i = 0; i < kGroup / 3; ++i) base[i] = w + 3 * i * stride;
  constexpr int64_t kLine = 64 / sizeof(float);
  const auto step = [&]() __attribute__((always_inline)) {
    Vec xs[kVecs];
#pragma GCC unroll 2
    for (int v = 0; v < kVecs; ++v) xs[v] = Vec::load(x + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kGroup; ++r) {
      float unit;
      memcpy(&unit, base[r / 3] + r % 3 * stride, sizeof(unit));
      const Vec ws = Vec::all(unit);
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) c[r][v] = M::mul_add(ws, xs[v], c[r][v]);
    }
    x += kVecs * kLanes;
#pragma GCC unroll 4
    for (int i = 0; i < kGroup / 3; ++i) base[i] += sizeof(float);
  };
  for (; count >= kLine; count -= kLine) {
    if (next != nullptr) {
      const char* line = next;
      for (int r = 0; r < kGroup; ++r, line += stride) _mm_prefetch(line, _MM_HINT_T1);
      next += 64;
    }
    for (int64_t i = 0; i < kLine; ++i) step();
  }
  for (; count > 0; --count) step();
#pragma GCC unroll 16
  for (int r = 0; r < kGroup; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVecs; ++v) c[r][v].store(acc + (r * kVecs + v) * kLanes);
  }
}

/// Turns acc, [end - begin][width] of one panel, round into rows of out.
template <class M>
void finish_panel(const LinearProblem& p, const float* acc, int64_t first, int64_t count,
                  int64_t begin, int64_t end) {
  using T = typename M::Element;
  const int64_t width = panel_width(count);
  for (int64_t t = 0; t < count; t += kLanes) {
    const int64_t tokens = least(kLanes, count - t);
    T* out[kLanes];
    for (int64_t j = 0; j < tokens; ++j) out[j] = out_row<T>(p, first + t + j);
    for (int64_t n = begin; n < end; n += kLanes) {
      Vec rows[kLanes];
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) rows[j] = Vec::load(acc + (n - begin + j) * width + t);
      transpose(rows);
      if (p.act == Activation::kNone && p.bias == nullptr && tokens == kLanes &&
          n + kLanes <= end) {
#pragma GCC unroll 16
        for (int64_t j = 0; j < kLanes; ++j) M::store(rows[j], out[j] + n);
        continue;
      }
      float columns[kLanes][kLanes];
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) rows[j].store(columns[j]);
      for (int64_t j = 0; j < tokens; ++j) finish<M>(p, Vec::load(columns[j]), out[j], n, end);
    }
  }
}

/// Floats for the results of so many weight rows and tokens, and for a group's part of k.
inline int64_t block_scratch(int64_t rows, int64_t tokens) {
  return kGroup * kBlockUnits + round_up(rows, kStrip) * round_up(tokens, kPanel);
}

template <class M>
struct Block {
  using T = typename M::Element;
  static constexpr int64_t kUnitBytes = sizeof(float);
  static constexpr int64_t kPackedStride = kBlockUnits * kUnitBytes;

  const LinearProblem& p;
  const float* panels;
  int64_t count;  // tokens
  int64_t begin;  // weight rows
  int64_t end;
  bool in_memory;  // whole groups of weights are read where they are
  float* packed;   // [kGroup][kBlockUnits] weights
  float* acc;      // [panel][weight row][width]

  int64_t panel_floats() const { return round_up(end - begin, kStrip) * kPanel; }
  const char* weights(int64_t n, int64_t u) const {
    return reinterpret_cast<const char*>(w_row<T>(p, n) + u * M::kPair);
  }

  /// Units [u0, u0 + steps) of the group of weight rows from n on, times one panel of all.
  template <int64_t kStride>
  void multiply(const char* w, int64_t stride, int64_t n, int64_t u0, int64_t steps, int64_t t,
                const char* next) const {
    const int64_t width = panel_width(count - t);
    const float* x = panels + t * units_of<M>(p.k) + u0 * width;
    float* c = acc + t / kPanel * panel_floats() + (n - begin) * width;
    if (width == kPanel) {
      tile<M, 2, kStride>(w, stride, x, steps, c, u0 == 0, next);
    } else {
      tile<M, 1, kStride>(w, stride, x, steps, c, u0 == 0, next);
    }
  }

  void multiply_in_memory(int64_t n, int64_t u0, int64_t steps) const {
    const int64_t stride = p.w_stride * static_cast<int64_t>(sizeof(T));
    const char* next = n + 2 * kGroup <= p.n ? weights(n + kGroup, u0) : nullptr;
    for (int64_t t = 0; t < count; t += kPanel)
      multiply<0>(weights(n, u0), stride, n, u0, steps, t, next);
  }

  void multiply_packed(int64_t n, int64_t u0, int64_t steps) const {
    // A row that stands in for one beyond the end is computed and not stored.
    for (int64_t r = 0; r < kGroup; ++r)
      copy_units<M>(w_row<T>(p, least(n + r, end - 1)), p.k, u0, steps, packed + r * kBlockUnits);
    const int64_t n_panels = (count + kPanel - 1) / kPanel;
    for (int64_t i = 0; i < n_panels; ++i) {
      prefetch(n + kGroup + kGroup * i / n_panels, n + kGroup + kGroup * (i + 1) / n_panels, u0,
               steps);
      multiply<kPackedStride>(reinterpret_cast<const char*>(packed), 0, n, u0, steps, i * kPanel,
                              nullptr);
    }
  }

  /// Asks for units [u0, u0 + steps) of weight rows [from, to), which are packed next.
  void prefetch(int64_t from, int64_t to, int64_t u0, int64_t steps) const {
    const int64_t bytes = least(steps * M::kPair, p.k - u0 * M::kPair) * int64_t{sizeof(T)};
    for (int64_t n = from; n < least(to, end); ++n) {
      for (int64_t b = 0; b < bytes; b += 64) _mm_prefetch(weights(n, u0) + b, _MM_HINT_T0);
    }
  }

  void run() const {
    const int64_t units = units_of<M>(p.k);
    const int64_t whole = in_memory ? begin + (end - begin) / kGroup * kGroup : begin;
    for (int64_t u = 0; u < units; u += kRunUnits) {
      for (int64_t n = begin; n < whole; n += kGroup)
        multiply_in_memory(n, u, least(kRunUnits, units - u));
    }
    for (int64_t u = 0; u < units; u += kBlockUnits) {
      for (int64_t n = whole; n < end; n += kGroup)
        multiply_packed(n, u, least(kBlockUnits, units - u));
    }
  }
};

template <class M>
void run_block(const LinearProblem& p, const float* panels, int64_t first, int64_t count,
               int64_t begin, int64_t end, float* scratch) {
  // Weights that meet one panel only are not worth a copy.
  const Block<M> block{.p = p,
                       .panels = panels,
                       .count = count,
                       .begin = begin,
                       .end = end,
                       .in_memory = M::kInMemory && count <= kPanel && p.k % M::kPair == 0,
                       .packed = scratch,
                       .acc = scratch + kGroup * kBlockUnits};
  block.run();
  for (int64_t t = 0; t < count; t += kPanel)
    finish_panel<M>(p, block.acc + t / kPanel * block.panel_floats(), first + t,
                    least(kPanel, count - t), begin, end);
}

}  // namespace
}  // namespace mmcore::ops::simd
