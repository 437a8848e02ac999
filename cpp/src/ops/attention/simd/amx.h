// A tile's two products in AMX registers: 32 rows by 32 columns at a time, pairs of bfloat16 summed
// in float.
#pragma once

#include "ops/attention/simd/pairs.h"

#if defined(__AMX_BF16__)

#include "ops/simd/tile_registers.h"

namespace mmcore::ops {
namespace {

struct AmxTile : PairWeights {
  static constexpr int kRows = 32;
  static constexpr int kPadding = 16;
  static constexpr int kColumns = 16;  // units in a register's row, and rows of one
  static constexpr int kPanelBytes = kPanel * int{sizeof(float)};

  // Registers: 0 1 sums of the upper rows, 2 3 of the lower ones; 4 5 left, 6 7 right operands.

  template <bool kLower>
  static void load_sums(const float* c, int64_t stride) {
    _tile_loadd(0, c, stride * 4);
    _tile_loadd(1, c + kColumns, stride * 4);
    if constexpr (kLower) {
      _tile_loadd(2, c + 16 * stride, stride * 4);
      _tile_loadd(3, c + 16 * stride + kColumns, stride * 4);
    }
  }

  template <bool kLower>
  static void store_sums(float* c, int64_t stride) {
    _tile_stored(0, c, stride * 4);
    _tile_stored(1, c + kColumns, stride * 4);
    if constexpr (kLower) {
      _tile_stored(2, c + 16 * stride, stride * 4);
      _tile_stored(3, c + 16 * stride + kColumns, stride * 4);
    }
  }

  /// Adds `steps` steps of 16 units; b lies in panels.
  template <bool kLower>
  static void multiply_add(const float* a, int64_t stride, const float* b, int steps) {
    for (int k = 0; k < steps; ++k, a += kColumns, b += 16 * kPanel) {
      _tile_loadd(6, b, kPanelBytes);
      _tile_loadd(4, a, stride * 4);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b + kColumns, kPanelBytes);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (kLower) {
        _tile_loadd(5, a + 16 * stride, stride * 4);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }

  template <bool kLower>
  static void score_rows(const AttentionProblem& p, const Scratch& s, int row, Columns columns) {
    const int dim = padded_dim(p.head_dim);
    const int steps = round_up(p.head_dim / 2, 16) / 16;
    for (int at = columns.begin / 32 * 32; at < columns.end; at += 32) {
      _tile_zero(0);
      _tile_zero(1);
      if constexpr (kLower) {
        _tile_zero(2);
        _tile_zero(3);
      }
      multiply_add<kLower>(s.q + int64_t{row} * dim, dim, s.keys + at, steps);
      store_sums<kLower>(s.scores + at, kTileKeys);
    }
  }

  template <bool kLower>
  static void sum_rows(const AttentionProblem& p, const Scratch& s, int row, Columns columns) {
    const int dim = padded_dim(p.head_dim);
    const int first = columns.begin / 32;  // steps of 32 keys
    const int steps = round_up(columns.end, 32) / 32 - first;
    const float* weights = s.scores + first * kColumns;
    for (int d = 0; d < p.head_dim; d += 32) {
      float* sums = s.sums + int64_t{row} * dim + d;
      const float* values = s.values + int64_t{d / kPanel} * kTileKeys * kPanel + d % kPanel;
      load_sums<kLower>(sums, dim);
      multiply_add<kLower>(weights, kTileKeys, values + first * 16 * kPanel, steps);
      store_sums<kLower>(sums, dim);
    }
  }

  static void score(const AttentionProblem& p, const Scratch& s, int row, int rows,
                    Columns columns) {
    rows > 16 ? score_rows<true>(p, s, row, columns) : score_rows<false>(p, s, row, columns);
  }

  static void sum(const AttentionProblem& p, const Scratch& s, int row, int rows, Columns columns) {
    const int dim = padded_dim(p.head_dim);
    for (int r = row; r < row + rows; ++r) {
      if (s.rescale[r] == 1.0f) continue;
      const Vec factor = Vec::all(s.rescale[r]);
      float* sums = s.sums + int64_t{r} * dim;
      for (int d = 0; d < p.head_dim; d += Vec::kLanes)
        (Vec::load(sums + d) * factor).store(sums + d);
    }
    rows > 16 ? sum_rows<true>(p, s, row, columns) : sum_rows<false>(p, s, row, columns);
  }
};

/// As pack_key_pairs, and zero up to the units of a whole step.
inline void pack_amx_keys(const bf16* const* rows, int count, int head_dim, float* to) {
  pack_key_pairs(rows, count, head_dim, to);
  const int units = head_dim / 2;
  for (int i = units * kPanel; i < round_up(units, 16) * kPanel; i += Vec::kLanes) {
    Vec::zero().store(to + i);
  }
}

/// As pack_value_pairs, and zero for keys that are not there: their weights are 0, and 0 times
/// whatever was there before may be NaN.
inline void pack_amx_values(const bf16* const* rows, int count, int head_dim, float* to) {
  pack_value_pairs(rows, count, head_dim, to);
  for (int j = round_up(count, 2); j < kTileKeys; j += 2) {
    for (int d = 0; d < head_dim; d += Vec::kLanes) {
      Vec::zero().store(to + (d / kPanel * kTileKeys + j / 2) * kPanel + d % kPanel);
    }
  }
}

}  // namespace
}  // namespace mmcore::ops

#endif
