// Many rows against packed tiles of keys: two small matrix products around the softmax.
#pragma once

#include "ops/attention/simd/finish.h"
#include "ops/attention/simd/pack.h"
#include "ops/attention/simd/softmax.h"

namespace mmcore::ops {
namespace {

/// Rows that share one pass over a panel: as many as registers hold sums for.
inline constexpr int kGroupRows = Vec::kLanes == 16 ? 8 : 6;

inline int padded_rows(int rows) { return (rows + kGroupRows - 1) / kGroupRows * kGroupRows; }

struct FloatTile : WeightsAsFloat {
  using Operand = Vec;
  static constexpr int kUnit = 1;  // values of the summed axis in one 32-bit unit
  static Vec load(const float* p) { return Vec::load(p); }
  static Vec broadcast(const float* p) { return Vec::all(*p); }
  static Vec dot(Vec a, Vec b, Vec sum) { return simd::fma(a, b, sum); }
};

/// c[kGroupRows, kVecs] = (rescale c, or 0) + a[kGroupRows, depth] b[depth, kVecs], depth in units.
template <class Mode, int kVecs>
[[gnu::noinline]] void multiply(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                                int depth, float* c, int64_t c_stride, const float* rescale) {
  Vec sums[kGroupRows][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kGroupRows; ++r) {
#pragma GCC unroll 2
    for (int i = 0; i < kVecs; ++i) {
      sums[r][i] = rescale == nullptr
                       ? Vec::zero()
                       : Vec::load(c + r * c_stride + i * Vec::kLanes) * Vec::all(rescale[r]);
    }
  }
  for (int k = 0; k < depth; ++k) {
    typename Mode::Operand right[kVecs];
#pragma GCC unroll 2
    for (int i = 0; i < kVecs; ++i) right[i] = Mode::load(b + k * b_stride + i * Vec::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kGroupRows; ++r) {
      const typename Mode::Operand left = Mode::broadcast(a + r * a_stride + k);
#pragma GCC unroll 2
      for (int i = 0; i < kVecs; ++i) sums[r][i] = Mode::dot(left, right[i], sums[r][i]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kGroupRows; ++r) {
#pragma GCC unroll 2
    for (int i = 0; i < kVecs; ++i) sums[r][i].store(c + r * c_stride + i * Vec::kLanes);
  }
}

/// Columns of a tile, clipped to it.
struct Columns {
  int begin;
  int end;
};

inline Columns clip(KeyRange keys, int32_t tile, int count) {
  const int begin = keys.begin - tile;
  const int end = keys.end - tile;
  return {begin < 0 ? 0 : begin, end > count ? count : end};
}

template <class Mode>
void score_tile(const AttentionProblem& p, const Scratch& s, int row, Columns columns) {
  const int units = p.head_dim / Mode::kUnit;
  const int dim = padded_dim(p.head_dim);
  for (int panel = columns.begin / kPanel; panel * kPanel < columns.end; ++panel) {
    multiply<Mode, 2>(s.q + int64_t{row} * dim, dim, s.keys + int64_t{panel} * units * kPanel,
                      kPanel, units, s.scores + row * kTileKeys + panel * kPanel, kTileKeys,
                      nullptr);
  }
}

template <class Mode>
void sum_tile(const AttentionProblem& p, const Scratch& s, int row, Columns columns) {
  const int dim = padded_dim(p.head_dim);
  const int first = columns.begin / Mode::kUnit;
  const int depth = (columns.end + Mode::kUnit - 1) / Mode::kUnit - first;
  const float* weights = s.scores + row * kTileKeys + first;
  const float* values = s.values + int64_t{first} * dim;
  float* sums = s.sums + int64_t{row} * dim;
  int d = 0;
  for (; d + Vec::kLanes < p.head_dim; d += kPanel) {
    multiply<Mode, 2>(weights, kTileKeys, values + d, dim, depth, sums + d, dim, s.rescale + row);
  }
  if (d < p.head_dim) {
    multiply<Mode, 1>(weights, kTileKeys, values + d, dim, depth, sums + d, dim, s.rescale + row);
  }
}

/// `pack_keys(rows, count, head_dim, to)` and `pack_values` fill a tile; s.q is filled.
template <class Mode, class KV, class PackKeys, class PackValues>
void attend_by_tiles(const AttentionProblem& p, const AttentionItem& item, const Scratch& s,
                     PackKeys pack_tile_keys, PackValues pack_tile_values) {
  const int rows = item.queries * item.heads;
  const int32_t kv_head = item.head / (p.heads / p.kv_heads);
  const ScoreMap map(p);
  for (int r = 0; r < rows; ++r) start_row(s, r);
  const int64_t sums = int64_t{padded_rows(rows)} * padded_dim(p.head_dim);
  for (int64_t i = 0; i < sums; i += Vec::kLanes) Vec::zero().store(s.sums + i);
  const auto keys_of = [&](int row) {
    return visible_keys(p, item.sequence, item.query + row / item.heads);
  };
  const KV** addresses = reinterpret_cast<const KV**>(s.rows);
  for (int32_t tile = item.key_begin; tile < item.key_end; tile += kTileKeys) {
    const int count = item.key_end - tile < kTileKeys ? item.key_end - tile : kTileKeys;
    row_addresses(p, p.k, item.sequence, kv_head, tile, count, addresses);
    pack_tile_keys(addresses, count, p.head_dim, s.keys);
    row_addresses(p, p.v, item.sequence, kv_head, tile, count, addresses);
    pack_tile_values(addresses, count, p.head_dim, s.values);
    for (int row = 0; row < rows; row += kGroupRows) {
      // Both ends of what a query sees grow with its position.
      const int last = row + kGroupRows < rows ? row + kGroupRows - 1 : rows - 1;
      const Columns columns{clip(keys_of(row), tile, count).begin,
                            clip(keys_of(last), tile, count).end};
      if (columns.begin >= columns.end) continue;
      score_tile<Mode>(p, s, row, columns);
      for (int r = row; r <= last; ++r) {
        const Columns own = clip(keys_of(r), tile, count);
        weigh_row<Mode>(s, r, own.begin, own.end, map);
      }
      sum_tile<Mode>(p, s, row, columns);
    }
  }
}

}  // namespace
}  // namespace mmcore::ops
