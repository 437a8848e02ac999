// Few rows of a single query, a decode: keys and values are read where they are, once for all rows.
// Bound by memory when the cache is not in L2, so the rows of the next tile are prefetched.
#pragma once

#include "ops/attention/simd/finish.h"
#include "ops/attention/simd/softmax.h"

namespace mmcore::ops {
namespace {

inline constexpr int kMaxGroup = 4;  // rows that share one pass over a tile

inline bool is_direct(const AttentionItem& item) {
  return item.queries == 1 && item.heads <= kMaxDirectRows;
}

template <class KV>
void prefetch_row(const KV* row, int head_dim) {
  const char* p = reinterpret_cast<const char*>(row);
  const int bytes = head_dim * static_cast<int>(sizeof(KV));
  for (int b = 0; b < bytes; b += 64) _mm_prefetch(p + b, _MM_HINT_T0);
}

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

/// scores[r, j] = q[r] . keys[j] for j < count rounded up to 4; `keys` repeats its last entry.
template <class Dot, class KV, int kRows>
void score_keys(const typename Dot::Query* q, int q_stride, const KV* const* keys,
                const KV* const* next, int count, int head_dim, float* scores) {
  for (int j = 0; j < count; j += 4) {
    Vec sums[kRows][4];
#pragma GCC unroll 16
    for (int i = 0; i < kRows * 4; ++i) sums[i / 4][i % 4] = Vec::zero();
    const auto add = [&](int d, auto load_key) {
      typename Dot::Operand k[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) k[i] = load_key(keys[j + i] + d);
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
    for (int i = 0; i < 4; ++i) prefetch_row(next[j + i], head_dim);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      simd::store_sums(scores + r * kTileKeys + j, sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
    }
  }
}

/// sums[r] = rescale[r] sums[r] + weights[r] . values, for kVecs vectors of dims from `d` on, the
/// last with `tail` lanes.
template <class KV, int kRows, int kVecs>
void sum_values(const Scratch& s, int row, const KV* const* values, const KV* const* next,
                int count, int d, int tail, int stride) {
  Vec sums[kRows][kVecs];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    const Vec factor = Vec::all(s.rescale[row + r]);
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) {
      sums[r][i] = Vec::load(s.sums + (row + r) * stride + d + i * Vec::kLanes) * factor;
    }
  }
  const float* weights = s.scores + row * kTileKeys;
  const auto add = [&](int j, auto load_last) {
    const KV* from = values[j] + d;
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
    prefetch_row(next[j] + d, kVecs * Vec::kLanes);
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

template <class Dot, class KV>
void attend_directly(const AttentionProblem& p, const AttentionItem& item, const Scratch& s,
                     const typename Dot::Query* q, int q_stride) {
  const int dim = padded_dim(p.head_dim);
  const int kv_head = item.head / (p.heads / p.kv_heads);
  const int vecs = (p.head_dim + Vec::kLanes - 1) / Vec::kLanes;
  // Rows in equal groups of at most kMaxGroup; with 16 registers, half the dims at a time.
  const int groups = (item.heads + kMaxGroup - 1) / kMaxGroup;
  const int group = (item.heads + groups - 1) / groups;
  const int vecs_at_once = Vec::kLanes == 16 || group == 1 ? 4 : 2;
  const ScoreMap map(p);
  for (int r = 0; r < item.heads; ++r) {
    start_row(s, r);
    for (int d = 0; d < dim; d += Vec::kLanes) Vec::zero().store(s.sums + r * dim + d);
  }

  const KV** addresses = reinterpret_cast<const KV**>(s.rows);
  const auto find = [&](int32_t begin, const KV** keys, const KV** values) {
    const int32_t rest = item.key_end - begin;
    const int32_t count = rest < kTileKeys ? rest : kTileKeys;
    row_addresses(p, p.k, item.sequence, kv_head, begin, count, keys);
    row_addresses(p, p.v, item.sequence, kv_head, begin, count, values);
    for (int32_t j = count; j < kTileKeys; ++j) {
      keys[j] = keys[count - 1];
      values[j] = values[count - 1];
    }
    return count;
  };
  const KV** keys = addresses;
  const KV** values = addresses + kTileKeys;
  int32_t count = find(item.key_begin, keys, values);
  for (int32_t begin = item.key_begin; begin < item.key_end;) {
    const KV** next_keys = keys == addresses ? addresses + 2 * kTileKeys : addresses;
    const KV** next_values = next_keys + kTileKeys;
    const int32_t next_begin = begin + count;
    const int32_t next_count =
        find(next_begin < item.key_end ? next_begin : begin, next_keys, next_values);
    for (int r = 0; r < item.heads; r += group) {
      with_count(item.heads - r < group ? item.heads - r : group, [&]<int kRows>() {
        score_keys<Dot, KV, kRows>(q + r * q_stride, q_stride, keys, next_keys, count, p.head_dim,
                                   s.scores + r * kTileKeys);
        for (int i = 0; i < kRows; ++i) weigh_row<WeightsAsFloat>(s, r + i, 0, count, map);
        for (int v = 0; v < vecs; v += vecs_at_once) {
          const int rest = vecs - v;
          const int tail =
              rest > vecs_at_once ? Vec::kLanes : p.head_dim - (vecs - 1) * Vec::kLanes;
          with_count(rest < vecs_at_once ? rest : vecs_at_once, [&]<int kVecs>() {
            sum_values<KV, kRows, kVecs>(s, r, values, next_values, count, v * Vec::kLanes, tail,
                                         dim);
          });
        }
      });
    }
    keys = next_keys;
    values = next_values;
    begin = next_begin;
    count = next_count;
  }
}

}  // namespace
}  // namespace mmcore::ops
