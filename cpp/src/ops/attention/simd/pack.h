// Queries, keys and values of a tile in the layouts that tile.h multiplies:
//   queries  [rows, D']            row-major
//   keys     [kTileKeys / kPanel, D, kPanel]      transposed, kPanel keys side by side
//   values   [D' / kPanel, kTileKeys, kPanel]     kPanel dims side by side
// in floats; pairs.h has the same in pairs of bfloat16.
#pragma once

#include "ops/attention/simd/scratch.h"

namespace mmcore::ops {
namespace {

/// Vectors of a row that tile.h computes together.
inline constexpr int kGroupVecs = Vec::kLanes == 16 ? 4 : 2;
inline constexpr int kPanel = kGroupVecs * Vec::kLanes;

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

/// Where keys from `j` on go in a tile of `units` units a key; one unit further is kPanel away.
inline float* key_column(float* to, int j, int units) {
  return to + int64_t{j / kPanel} * units * kPanel + j % kPanel;
}

/// Units [u, u + kLanes) of kLanes rows, transposed; the last `n` units of a row may be fewer.
inline void load_units(const float* const* rows, int u, int n, Vec (&block)[Vec::kLanes]) {
  if (n >= Vec::kLanes) return simd::load_transposed(rows, u, block);
#pragma GCC unroll 16
  for (int i = 0; i < Vec::kLanes; ++i) block[i] = Vec::load(rows[i] + u, n);
  simd::transpose(block);
}

/// Rows go up to `count` rounded up to kLanes; the surplus ones may be any, their scores are
/// masked.
inline void pack_keys(const float* const* rows, int count, int head_dim, float* to) {
  for (int j = 0; j < count; j += Vec::kLanes) {
    float* column = key_column(to, j, head_dim);
    for (int d = 0; d < head_dim; d += Vec::kLanes) {
      Vec block[Vec::kLanes];
      load_units(rows + j, d, head_dim - d, block);
#pragma GCC unroll 16
      for (int i = 0; i < Vec::kLanes; ++i) {
        if (d + i < head_dim) block[i].store(column + (d + i) * kPanel);
      }
    }
  }
}

/// Transposes pairs and takes them apart afterwards: half the work.
inline void pack_keys(const bf16* const* rows, int count, int head_dim, float* to) {
  const auto pairs = reinterpret_cast<const float* const*>(rows);
  for (int j = 0; j < count; j += Vec::kLanes) {
    float* column = key_column(to, j, head_dim);
    for (int u = 0; u < head_dim / 2; u += Vec::kLanes) {
      Vec block[Vec::kLanes];
      load_units(pairs + j, u, head_dim / 2 - u, block);
#pragma GCC unroll 16
      for (int i = 0; i < Vec::kLanes; ++i) {
        const int d = 2 * (u + i);
        if (d >= head_dim) continue;
        simd::low_bf16(block[i]).store(column + d * kPanel);
        simd::high_bf16(block[i]).store(column + (d + 1) * kPanel);
      }
    }
  }
}

/// Types that are widened before they are transposed.
template <class KV>
void pack_keys(const KV* const* rows, int count, int head_dim, float* to) {
  for (int j = 0; j < count; j += Vec::kLanes) {
    float* column = key_column(to, j, head_dim);
    for (int d = 0; d < head_dim; d += Vec::kLanes) {
      const int n = head_dim - d;
      Vec block[Vec::kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < Vec::kLanes; ++i) {
        block[i] = n >= Vec::kLanes ? Vec::load(rows[j + i] + d) : Vec::load(rows[j + i] + d, n);
      }
      simd::transpose(block);
#pragma GCC unroll 16
      for (int i = 0; i < Vec::kLanes; ++i) {
        if (i < n) block[i].store(column + (d + i) * kPanel);
      }
    }
  }
}

template <class KV>
void pack_values(const KV* const* rows, int count, int head_dim, float* to) {
  for (int j = 0; j < count; ++j) {
    for (int d = 0; d < head_dim; d += Vec::kLanes) {
      const int n = head_dim - d;
      const Vec x = n >= Vec::kLanes ? Vec::load(rows[j] + d) : Vec::load(rows[j] + d, n);
      x.store(to + (d / kPanel * kTileKeys + j) * kPanel + d % kPanel);
    }
  }
}

}  // namespace
}  // namespace mmcore::ops
