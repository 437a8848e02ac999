// Scores to weights, one row of a tile at a time, with the running maximum of online softmax.
// Scores are taken to base 2: weight = 2^(score log2 e - top).
#pragma once

#include "ops/attention/simd/scratch.h"

namespace mmcore::ops {
namespace {

inline constexpr float kLog2E = 1.44269504088896340736f;

/// From q.k to a base-2 score: factor x; with a soft cap, cap tanh(inner x), and factor 1.
struct ScoreMap {
  float factor;  // positive, or its product is taken first: masks are -infinity times it
  float inner;
  float cap;  // 0: none

  explicit ScoreMap(const AttentionProblem& p)
      : factor(p.soft_cap > 0 || p.scale <= 0 ? 1.0f : p.scale * kLog2E),
        inner(p.soft_cap > 0 ? p.scale / p.soft_cap : p.scale * kLog2E),
        cap(p.soft_cap * kLog2E) {}
  bool is_product() const { return cap == 0 && factor == inner; }
};

/// Weights as floats in the place of the scores; what a Mode below has to offer.
struct FloatWeights {
  static Vec exp2(Vec x) { return simd::exp2_softmax(x); }
  static void store_weights(float* scores, int i, Vec w) { w.store(scores + i * Vec::kLanes); }
};

inline void start_row(const Scratch& s, int row) {
  s.top[row] = -__builtin_inff();
  Vec::zero().store(s.lanes + row * Vec::kLanes);
}

/// Turns a tile's scores of row `row` into weights, 0 outside of columns [begin, end), and sets the
/// row's rescale.
template <class Mode, bool kProduct>
void weigh_row_as(const Scratch& s, int row, float* scores, int begin, int end, ScoreMap map) {
  constexpr int kVecs = kTileKeys / Vec::kLanes;
  const Vec nothing = Vec::all(-__builtin_inff());
  const bool whole = begin <= 0 && end >= kTileKeys;
  Vec t[kVecs];
  Vec top = nothing;
#pragma GCC unroll 8
  for (int i = 0; i < kVecs; ++i) {
    t[i] = Vec::load(scores + i * Vec::kLanes);
    if constexpr (!kProduct) {
      t[i] = t[i] * Vec::all(map.inner);
      if (map.cap > 0) t[i] = simd::tanh(t[i]) * Vec::all(map.cap);
    }
    if (!whole) {
      const auto lanes = [i](int column) {
        const int n = column - i * Vec::kLanes;
        return simd::first_lanes(n < 0 ? 0 : n > Vec::kLanes ? Vec::kLanes : n);
      };
      t[i] = simd::select(lanes(begin), nothing, simd::select(lanes(end), t[i], nothing));
    }
    top = simd::max(t[i], top);
  }
  const float before = s.top[row];
  const float tile_top = simd::max_lane(top) * map.factor;
  const float after = tile_top > before ? tile_top : before;
  s.top[row] = after;
  // Nothing seen so far: any finite reference makes all weights 0.
  const Vec reference = Vec::all(after == -__builtin_inff() ? 0.0f : after);
  Vec total = Vec::zero();
#pragma GCC unroll 8
  for (int i = 0; i < kVecs; ++i) {
    const Vec weight = Mode::exp2(simd::fma(t[i], Vec::all(map.factor), -reference));
    Mode::store_weights(scores, i, weight);
    total = total + weight;
  }
  float* lanes = s.lanes + row * Vec::kLanes;
  Vec factor = Vec::all(1.0f);
  if (before != after) factor = simd::exp2_softmax(Vec::all(before) - reference);
  simd::fma(Vec::load(lanes), factor, total).store(lanes);
  s.rescale[row] = simd::first(factor);
}

template <class Mode>
void weigh_row(const Scratch& s, int row, float* scores, int begin, int end, ScoreMap map) {
  if (map.is_product()) {
    weigh_row_as<Mode, true>(s, row, scores, begin, end, map);
  } else {
    weigh_row_as<Mode, false>(s, row, scores, begin, end, map);
  }
}

}  // namespace
}  // namespace mmcore::ops
