// bfloat16 queries against a bfloat16 cache with vdpbf16ps: two products a lane, exact, summed in
// float. Layouts as in pack.h with pairs along the summed axis as units: D counts pairs for queries
// and keys, rows count pairs of keys for values.
#pragma once

#include "ops/attention/simd/direct.h"
#include "ops/attention/simd/tile.h"

#if defined(__AVX512BF16__)

namespace mmcore::ops {
namespace {

struct PairDot {
  using Query = bf16;
  using Operand = __m512i;
  static constexpr int kStep = 32;
  static __m512i load(const bf16* p) { return _mm512_loadu_si512(p); }
  static __m512i load(const bf16* p, int n) {
    return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), p);
  }
  static Vec dot(__m512i a, __m512i b, Vec sum) {
    return {_mm512_dpbf16_ps(sum.v, (__m512bh)a, (__m512bh)b)};
  }
};

struct PairMath {
  using Operand = __m512i;
  static constexpr int kUnit = 2;
  static __m512i load(const float* p) { return _mm512_loadu_si512(p); }
  static __m512i broadcast(const float* p) { return _mm512_castps_si512(_mm512_set1_ps(*p)); }
  static Vec dot(__m512i a, __m512i b, Vec sum) {
    return {_mm512_dpbf16_ps(sum.v, (__m512bh)a, (__m512bh)b)};
  }
};

/// Weights as bfloat16 in the first half of the scores' row: pairs along the keys.
struct PairWeights {
  static Vec exp2(Vec x) { return simd::exp2_softmax_coarse(x); }
  static void store_weights(float* scores, int i, Vec w) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(scores) + i, (__m256i)_mm512_cvtneps_pbh(w.v));
  }
};

using PairTile = RegisterTile<PairMath, PairWeights>;

inline void pack_query_pairs(const AttentionProblem& p, const AttentionItem& item, int padded_rows,
                             float* to) {
  const int dim = padded_dim(p.head_dim);
  const int rows = item.queries * item.heads;
  for (int r = 0; r < padded_rows; ++r, to += dim) {
    for (int d = 0; d < dim; d += 32) {
      const int n = r < rows ? p.head_dim - d : 0;
      const auto mask = static_cast<__mmask32>(n >= 32 ? ~uint32_t{0} : (uint32_t{1} << n) - 1);
      const __m512i x = n > 0 ? _mm512_maskz_loadu_epi16(mask, query_row<bf16>(p, item, r) + d)
                              : _mm512_setzero_si512();
      _mm512_storeu_si512(to + d / 2, x);
    }
  }
}

inline void pack_key_pairs(const bf16* const* rows, int count, int head_dim, float* to) {
  const auto pairs = reinterpret_cast<const float* const*>(rows);
  for (int j = 0; j < count; j += Vec::kLanes) {
    float* column = key_column(to, j, head_dim / 2);
    for (int u = 0; u < head_dim / 2; u += Vec::kLanes) {
      Vec block[Vec::kLanes];
      load_units(pairs + j, u, head_dim / 2 - u, block);
#pragma GCC unroll 16
      for (int i = 0; i < Vec::kLanes; ++i) {
        if (u + i < head_dim / 2) block[i].store(column + (u + i) * kPanel);
      }
    }
  }
}

/// Unit [j / 2, d] = (row j, row j + 1) at dim d; a missing last row is zero.
inline void pack_value_pairs(const bf16* const* rows, int count, int head_dim, float* to) {
  for (int j = 0; j < count; j += 2) {
    for (int d = 0; d < head_dim; d += 16) {
      const __mmask16 mask = Vec::bits(head_dim - d < 16 ? head_dim - d : 16);
      const __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, rows[j] + d));
      __m512i odd = _mm512_setzero_si512();
      if (j + 1 < count) {
        odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, rows[j + 1] + d));
      }
      _mm512_storeu_si512(to + (d / kPanel * kTileKeys + j / 2) * kPanel + d % kPanel,
                          _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
  }
}

inline bool are_pairs(const AttentionProblem& p) {
  return p.dtype == DType::kBFloat16 && p.kv_dtype == DType::kBFloat16;
}

/// A single query, for are_pairs().
inline void attend_directly_in_pairs(const AttentionProblem& p, const AttentionItem& item,
                                     const Scratch& s) {
  pack_query_pairs(p, item, item.heads, s.q);
  attend_directly<PairDot, bf16>(p, item, s, reinterpret_cast<const bf16*>(s.q),
                                 2 * padded_dim(p.head_dim));
}

/// Many rows, for are_pairs().
template <class Mode, class PackKeys, class PackValues>
void attend_by_pair_tiles(const AttentionProblem& p, const AttentionItem& item, const Scratch& s,
                          PackKeys pack_tile_keys, PackValues pack_tile_values) {
  pack_query_pairs(p, item, round_up(item.queries * item.heads, Mode::kPadding), s.q);
  attend_by_tiles<Mode, bf16>(p, item, s, pack_tile_keys, pack_tile_values);
}

}  // namespace
}  // namespace mmcore::ops

#endif
