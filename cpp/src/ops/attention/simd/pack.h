// Queries, keys and values of a tile in the layouts that tile.h multiplies:
//   queries  [rows, D']                      row-major
//   keys     [panels, D, kPanel]             kPanel keys side by side: transposed
//   values   [kTileKeys, D']                 row-major
// in floats; pairs.h has the same in pairs of bfloat16.
#pragma once

#include "ops/attention/simd/scratch.h"

namespace mmcore::ops {
namespace {

inline constexpr int kPanel = 2 * Vec::kLanes;

template <class T>
const T* query_row(const AttentionProblem& p, const AttentionItem& item, int row) {
  const int64_t token = p.query_start[item.sequence] + item.query + row / item.heads;
  return static_cast<const T*>(p.q) + token * p.q_row_stride +
         (item.head + row % item.heads) * p.q_head_stride;
}

/// Widened to float, zero up to D' and for rows up to `padded_rows`.
template <class T>
void pack_queries(const AttentionProblem& p, const AttentionItem& item, int padded_rows,
                  float* to) {
  const int dim = padded_dim(p.head_dim);
  const int rows = item.queries * item.heads;
  for (int r = 0; r < padded_rows; ++r, to += dim) {
    const T* from = r < rows ? query_row<T>(p, item, r) : nullptr;
    for (int d = 0; d < dim; d += Vec::kLanes) {
      const int n = p.head_dim - d;
      Vec x = Vec::zero();
      if (from != nullptr && n > 0) {
        x = n >= Vec::kLanes ? Vec::load(from + d) : Vec::load(from + d, n);
      }
      x.store(to + d);
    }
  }
}

/// Loads n vectors from rows [j, j + kLanes), those from `count` on zero, and transposes them.
/// `load(row, n)` gets n >= kLanes units of a whole vector.
template <class Load>
void pack_transposed(int count, int units, float* to, Load load) {
  for (int j = 0; j < count; j += Vec::kLanes) {
    float* panel = to + int64_t{j / kPanel} * units * kPanel + j % kPanel;
    for (int u = 0; u < units; u += Vec::kLanes) {
      Vec rows[Vec::kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < Vec::kLanes; ++i) {
        rows[i] = j + i < count ? load(j + i, u) : Vec::zero();
      }
      simd::transpose(rows);
      const int n = units - u;
#pragma GCC unroll 16
      for (int i = 0; i < Vec::kLanes; ++i) {
        if (i < n) rows[i].store(panel + (u + i) * kPanel);
      }
    }
  }
  // The other half of the last panel is multiplied too; its scores are masked.
  if ((count + Vec::kLanes - 1) / Vec::kLanes % 2 == 1) {
    float* panel = to + int64_t{count / kPanel} * units * kPanel + Vec::kLanes;
    for (int u = 0; u < units; ++u) Vec::zero().store(panel + u * kPanel);
  }
}

template <class KV>
void pack_keys(const KV* const* rows, int count, int head_dim, float* to) {
  pack_transposed(count, head_dim, to, [&](int j, int d) {
    const int n = head_dim - d;
    return n >= Vec::kLanes ? Vec::load(rows[j] + d) : Vec::load(rows[j] + d, n);
  });
}

template <class KV>
void pack_values(const KV* const* rows, int count, int head_dim, float* to) {
  const int dim = padded_dim(head_dim);
  for (int j = 0; j < count; ++j, to += dim) {
    int d = 0;
    for (; d + Vec::kLanes <= head_dim; d += Vec::kLanes) Vec::load(rows[j] + d).store(to + d);
    if (d < head_dim) Vec::load(rows[j] + d, head_dim - d).store(to + d);
  }
}

}  // namespace
}  // namespace mmcore::ops
