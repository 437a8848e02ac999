// bfloat16 by pairs; for translation units compiled for AVX512_BF16 (see ops/simd/vec.h).
#pragma once

#include "ops/linear_units_vec.h"

namespace mmcore::ops::simd {
namespace {

/// Multiplies pairs of bfloat16 and adds both products to a float32. Subnormals count as zero.
struct PairMath {
  using Element = bf16;
  static constexpr int64_t kPair = 2;
  static constexpr int64_t kUnitStep = 1;
  static constexpr bool kInMemory = true;
  static Vec load(const bf16* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const bf16* p, int64_t n) {
    const auto mask = static_cast<__mmask32>((uint64_t{1} << n) - 1);
    return {_mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, p))};
  }
  static void store(Vec v, bf16* p) {
    _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v.v));
  }
  static Vec mul_add(Vec w, Vec x, Vec acc) {
    return {_mm512_dpbf16_ps(acc.v, (__m512bh)w.v, (__m512bh)x.v)};
  }
};

}  // namespace
}  // namespace mmcore::ops::simd
