// Few rows of a single query, a decode: keys and values are read where they are, once for all rows.
// Bound by memory when the cache is not in L2, so the rows of the next tile are prefetched.
#pragma once

#include "ops/attention/simd/finish.h"
#include "ops/attention/simd/softmax.h"

namespace mmcore::ops {
namespace {

inline constexpr int kMaxGroup = 4;  // rows that share one pass over a tile

/// q.k on values widened to float.
template <class KV>
struct WideDot {
  using Query = float;
  using Operand = Vec;
  static constexpr int kStep = Vec::kLanes;
  template <class E>
  static Vec load(const E* p) {
    return Vec::load(p);
  }
  template <class E>
  static Vec load(const E* p, int n) {
    return Vec::load(p, n);
  }
  static Vec dot(Vec a, Vec b, Vec sum) { return simd::fma(a, b, sum); }
};

/// Addresses of a tile's rows of one key/value head.
template <class KV>
struct TileRows {
  const KV* const* keys;  // of the item's first head
  const KV* const* values;
  int64_t key_offset;  // from there to this head
  int64_t value_offset;
};

/// Fetches the rows that come next while others are computed, into L1: they fit.
template <class KV>
struct Prefetcher {
  TileRows<KV> rows;
  int head_dim;
  int key = 0;  // the next one; kTileKeys: done

  void step() {
    if (key == kTileKeys) return;
    prefetch_row(rows.keys[key] + rows.key_offset, head_dim);
    prefetch_row(rows.values[key] + rows.value_offset, head_dim);
    ++key;
  }
};

/// scores[r, j] = q[r] . keys[j] for j < count rounded up to 4; `keys` repeats its last entry.
template <class Dot, class KV, int kRows>
void score_keys(const typename Dot::Query* q, int q_stride, const KV* const* keys, int64_t offset,
                int count, int head_dim, float* scores, Prefetcher<KV>& next) {
  for (int j = 0; j < count; j += 4) {
    Vec sums[kRows][4];
#pragma GCC unroll 16
    for (int i = 0; i < kRows * 4; ++i) sums[i / 4][i % 4] = Vec::zero();
    const auto add = [&](int d, auto load_key) {
      typename Dot::Operand k[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) k[i] = load_key(keys[j + i] + offset + d);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const typename Dot::Operand row = Dot::load(q + r * q_stride + d);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) sums[r][i] = Dot::dot(row, k[i], sums[r][i]);
      }
    };
    int d = 0;
    for (; d + Dot::kStep <= head_dim; d += Dot::kStep) {
      add(d, [](const KV* p) { return Dot::load(p); });
    }
    if (d < head_dim) {
      add(d, [n = head_dim - d](const KV* p) { return Dot::load(p, n); });
    }
    for (int i = 0; i < 4; ++i) next.step();
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      simd::store_sums(scores + r * kTileKeys + j, sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
    }
  }
}

/// sums[r] = rescale[r] sums[r] + weights[r] . values, for kVecs vectors of dims from `d` on, the
/// last with `tail` lanes.
template <class KV, int kRows, int kVecs>
void sum_values(const Scratch& s, int row, const KV* const* values, int64_t offset, int count,
                int d, int tail, int stride) {
  Vec sums[kRows][kVecs];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const Vec factor = Vec::all(s.rescale[row + r]);
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) {
      sums[r][i] = Vec::load(s.sums + (row + r) * stride + d + i * Vec::kLanes) * factor;
    }
  }
  const float* weights = s.scores;
  const auto add = [&](int j, auto load_last) {
    const KV* from = values[j] + offset + d;
    Vec v[kVecs];
#pragma GCC unroll 4
    for (int i = 0; i + 1 < kVecs; ++i) v[i] = Vec::load(from + i * Vec::kLanes);
    v[kVecs - 1] = load_last(from + (kVecs - 1) * Vec::kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Vec w = Vec::all(weights[r * kTileKeys + j]);
#pragma GCC unroll 4
      for (int i = 0; i < kVecs; ++i) sums[r][i] = simd::fma(w, v[i], sums[r][i]);
    }
  };
  if (tail == Vec::kLanes) {
    for (int j = 0; j < count; ++j) add(j, [](const KV* p) { return Vec::load(p); });
  } else {
    for (int j = 0; j < count; ++j) add(j, [tail](const KV* p) { return Vec::load(p, tail); });
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) {
      sums[r][i].store(s.sums + (row + r) * stride + d + i * Vec::kLanes);
    }
  }
}

/// Calls f.operator()<N>() for N = n, 1 to 4.
template <class F>
void with_count(int n, F&& f) {
  if (n == 1) return f.template operator()<1>();
  if (n == 2) return f.template operator()<2>();
  if (n == 3) return f.template operator()<3>();
  f.template operator()<4>();
}

/// kRows rows from `row` on against the first `count` keys of a tile.
template <class Dot, class KV, int kRows>
void attend_tile(const AttentionProblem& p, const Scratch& s, const typename Dot::Query* q,
                 int q_stride, int row, const TileRows<KV>& tile, int count, ScoreMap map,
                 Prefetcher<KV>& next) {
  // With 16 registers, half the dims at a time.
  constexpr int kVecsAtOnce = Vec::kLanes == 16 || kRows == 1 ? 4 : 2;
  score_keys<Dot, KV, kRows>(q + row * q_stride, q_stride, tile.keys, tile.key_offset, count,
                             p.head_dim, s.scores, next);
  for (int i = 0; i < kRows; ++i) {
    weigh_row<FloatWeights>(s, row + i, s.scores + i * kTileKeys, 0, count, map);
  }
  const int vecs = (p.head_dim + Vec::kLanes - 1) / Vec::kLanes;
  for (int v = 0; v < vecs; v += kVecsAtOnce) {
    const int rest = vecs - v;
    const int tail = rest > kVecsAtOnce ? Vec::kLanes : p.head_dim - (vecs - 1) * Vec::kLanes;
    with_count(rest < kVecsAtOnce ? rest : kVecsAtOnce, [&]<int kVecs>() {
      sum_values<KV, kRows, kVecs>(s, row, tile.values, tile.value_offset, count, v * Vec::kLanes,
                                   tail, padded_dim(p.head_dim));
    });
  }
}

/// Tile by tile, all key/value heads of the item: what lies on the same pages together.
template <class Dot, class KV>
void attend_directly(const AttentionProblem& p, const AttentionItem& item, const Scratch& s,
                     const typename Dot::Query* q, int q_stride) {
  const int dim = padded_dim(p.head_dim);
  const int heads = p.heads / p.kv_heads;
  const int kv_head = item.head / heads;
  const int kv_heads = item.heads / heads;
  // The rows of one key/value head in equal groups of at most kMaxGroup.
  const int groups = (heads + kMaxGroup - 1) / kMaxGroup;
  const int group = (heads + groups - 1) / groups;
  const ScoreMap map(p);
  for (int r = 0; r < item.heads; ++r) {
    start_row(s, r);
    for (int d = 0; d < dim; d += Vec::kLanes) Vec::zero().store(s.sums + r * dim + d);
  }
  if (item.key_begin >= item.key_end) return;

  const KV** here = reinterpret_cast<const KV**>(s.addresses);
  const KV** next = here + 2 * kTileKeys;
  const auto find = [&](int32_t begin, const KV** keys) {
    const KV** values = keys + kTileKeys;
    const int count = item.key_end - begin < kTileKeys ? item.key_end - begin : kTileKeys;
    row_addresses(p, p.k, item.sequence, kv_head, begin, count, keys);
    row_addresses(p, p.v, item.sequence, kv_head, begin, count, values);
    for (int j = count; j < kTileKeys; ++j) {
      keys[j] = keys[count - 1];
      values[j] = values[count - 1];
    }
    return count;
  };
  int count = find(item.key_begin, here);
  for (int32_t begin = item.key_begin; begin < item.key_end; begin += kTileKeys) {
    const bool last = begin + kTileKeys >= item.key_end;
    const int next_count = last ? 0 : find(begin + kTileKeys, next);
    const auto rows_of = [&](const KV* const* keys, int h) {
      return TileRows<KV>{keys, keys + kTileKeys, h * p.k.head_stride, h * p.v.head_stride};
    };
    for (int h = 0; h < kv_heads; ++h) {
      const bool last_head = h + 1 == kv_heads;
      Prefetcher<KV> fetch{last_head ? rows_of(next, 0) : rows_of(here, h + 1), p.head_dim,
                           last && last_head ? kTileKeys : 0};
      for (int r = 0; r < heads; r += group) {
        with_count(heads - r < group ? heads - r : group, [&]<int kRows>() {
          attend_tile<Dot, KV, kRows>(p, s, q, q_stride, h * heads + r, rows_of(here, h), count,
                                      map, fetch);
        });
      }
    }
    const KV** swap = here;
    here = next;
    next = swap;
    count = next_count;
  }
}

}  // namespace
}  // namespace mmcore::ops
