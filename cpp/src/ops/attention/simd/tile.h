// Many rows against packed tiles of keys: two small matrix products around the softmax.
#pragma once

#include "ops/attention/simd/finish.h"
#include "ops/attention/simd/pack.h"
#include "ops/attention/simd/softmax.h"

namespace mmcore::ops {
namespace {

/// Rows that are computed together, kGroupVecs vectors of each: as many as there are registers for.
/// The last rows of an item may be half as many.
inline constexpr int kGroupRows = 6;

/// How small products are summed: in floats.
struct FloatMath {
  using Operand = Vec;
  static constexpr int kUnit = 1;  // values of the summed axis in one 32-bit unit
  static Vec load(const float* p) { return Vec::load(p); }
  static Vec broadcast(const float* p) { return Vec::all(*p); }
  static Vec dot(Vec a, Vec b, Vec sum) { return simd::fma(a, b, sum); }
};

/// c[kRows, kVecs] = (rescale c, or 0) + a[kRows, depth] b[depth, kVecs], depth in units.
template <class Math, int kRows, int kVecs>
[[gnu::noinline]] void multiply_block(const float* a, int64_t a_stride, const float* b, int depth,
                                      float* c, int64_t c_stride, const float* rescale) {
  Vec sums[kRows][kVecs];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) {
      sums[r][i] = rescale == nullptr
                       ? Vec::zero()
                       : Vec::load(c + r * c_stride + i * Vec::kLanes) * Vec::all(rescale[r]);
    }
  }
  for (int k = 0; k < depth; ++k) {
    typename Math::Operand right[kVecs];
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) right[i] = Math::load(b + k * kPanel + i * Vec::kLanes);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const typename Math::Operand left = Math::broadcast(a + r * a_stride + k);
#pragma GCC unroll 4
      for (int i = 0; i < kVecs; ++i) sums[r][i] = Math::dot(left, right[i], sums[r][i]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) sums[r][i].store(c + r * c_stride + i * Vec::kLanes);
  }
}

/// Likewise for a group of `rows` rows and `vecs` vectors of a panel.
template <class Math, int kVecs = kGroupVecs>
void multiply(int rows, int vecs, const float* a, int64_t a_stride, const float* b, int depth,
              float* c, int64_t c_stride, const float* rescale) {
  if constexpr (kVecs > 1) {
    if (vecs < kVecs) {
      return multiply<Math, kVecs - 1>(rows, vecs, a, a_stride, b, depth, c, c_stride, rescale);
    }
  }
  constexpr int kHalf = kGroupRows / 2;
  const auto block =
      rows > kHalf ? multiply_block<Math, kGroupRows, kVecs> : multiply_block<Math, kHalf, kVecs>;
  block(a, a_stride, b, depth, c, c_stride, rescale);
}

/// Vectors for `n` columns of a panel.
inline int vectors(int n) { return n >= kPanel ? kGroupVecs : (n + Vec::kLanes - 1) / Vec::kLanes; }

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

/// A tile's two products in registers. What attend_by_tiles() needs of a Mode: the rows of a group
/// and what an item's rows are padded to, score(), sum(), and the weights of softmax.h.
template <class Math, class Weights>
struct RegisterTile : Weights {
  static constexpr int kRows = kGroupRows;
  static constexpr int kPadding = kGroupRows / 2;

  /// s.scores [rows, kTileKeys] of rows from `row` on, for the columns that any of them sees.
  static void score(const AttentionProblem& p, const Scratch& s, int row, int rows,
                    Columns columns) {
    const int dim = padded_dim(p.head_dim);
    const int units = p.head_dim / Math::kUnit;
    for (int at = columns.begin / kPanel * kPanel; at < columns.end; at += kPanel) {
      multiply<Math>(rows, vectors(columns.end - at), s.q + int64_t{row} * dim, dim,
                     s.keys + int64_t{at} * units, units, s.scores + at, kTileKeys, nullptr);
    }
  }

  /// Adds their weights times values to their sums.
  static void sum(const AttentionProblem& p, const Scratch& s, int row, int rows, Columns columns) {
    const int dim = padded_dim(p.head_dim);
    const int first = columns.begin / Math::kUnit;
    const int depth = (columns.end + Math::kUnit - 1) / Math::kUnit - first;
    for (int d = 0; d < p.head_dim; d += kPanel) {
      multiply<Math>(rows, vectors(p.head_dim - d), s.scores + first, kTileKeys,
                     s.values + int64_t{d} * kTileKeys + first * kPanel, depth,
                     s.sums + int64_t{row} * dim + d, dim, s.rescale + row);
    }
  }
};

using FloatTile = RegisterTile<FloatMath, FloatWeights>;

inline int round_up(int n, int step) { return (n + step - 1) / step * step; }

/// `pack_keys(rows, count, head_dim, to)` and `pack_values` fill a tile; s.q is filled.
template <class Mode, class KV, class PackKeys, class PackValues>
void attend_by_tiles(const AttentionProblem& p, const AttentionItem& item, const Scratch& s,
                     PackKeys pack_tile_keys, PackValues pack_tile_values) {
  const int rows = item.queries * item.heads;
  const int32_t kv_head = item.head / (p.heads / p.kv_heads);
  const ScoreMap map(p);
  for (int r = 0; r < rows; ++r) start_row(s, r);
  const int64_t sums = int64_t{round_up(rows, Mode::kPadding)} * padded_dim(p.head_dim);
  for (int64_t i = 0; i < sums; i += Vec::kLanes) Vec::zero().store(s.sums + i);
  const auto keys_of = [&](int row) {
    return visible_keys(p, item.sequence, item.query + row / item.heads);
  };
  const KV** keys = reinterpret_cast<const KV**>(s.addresses);
  const KV** values = keys + kTileKeys;
  const auto find = [&](int32_t tile) {
    const int count = item.key_end - tile < kTileKeys ? item.key_end - tile : kTileKeys;
    row_addresses(p, p.k, item.sequence, kv_head, tile, count, keys);
    row_addresses(p, p.v, item.sequence, kv_head, tile, count, values);
    for (int j = count; j < kTileKeys; ++j) {
      keys[j] = keys[count - 1];
      values[j] = values[count - 1];
    }
    return count;
  };
  int next_count = item.key_begin < item.key_end ? find(item.key_begin) : 0;
  for (int32_t tile = item.key_begin; tile < item.key_end; tile += kTileKeys) {
    const int count = next_count;
    pack_tile_keys(keys, count, p.head_dim, s.keys);
    pack_tile_values(values, count, p.head_dim, s.values);
    if (tile + kTileKeys < item.key_end) next_count = find(tile + kTileKeys);
    int fetched = 0;
    for (int row = 0; row < rows; row += Mode::kRows) {
      const int end = row + Mode::kRows < rows ? row + Mode::kRows : rows;
      // Both ends of what a query sees grow with its position.
      const Columns columns{clip(keys_of(row), tile, count).begin,
                            clip(keys_of(end - 1), tile, count).end};
      if (columns.begin < columns.end) {
        Mode::score(p, s, row, end - row, columns);
        for (int r = row; r < end; ++r) {
          const Columns own = clip(keys_of(r), tile, count);
          weigh_row<Mode>(s, r, s.scores + (r - row) * kTileKeys, own.begin, own.end, map);
        }
        Mode::sum(p, s, row, end - row, columns);
      }
      // The next tile on its way to L2 meanwhile: its rows are too far apart for the hardware.
      for (const int until = kTileKeys * end / rows; fetched < until; ++fetched) {
        prefetch_row(keys[fetched], p.head_dim);
        prefetch_row(values[fetched], p.head_dim);
      }
    }
  }
}

}  // namespace
}  // namespace mmcore::ops
