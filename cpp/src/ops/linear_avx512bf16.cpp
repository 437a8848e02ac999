#include "ops/linear_table_vec.h"

namespace mmcore::ops {
namespace simd {
namespace {

/// Multiplies pairs of bfloat16 and adds both products to a float32. Subnormals count as zero.
struct PairMath {
  using Element = bf16;
  static constexpr int64_t kPair = 2;
  static constexpr bool kInMemory = true;
  static Vec load(const bf16* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const bf16* p, int64_t n) {
    const auto mask = static_cast<__mmask32>((uint64_t{1} << n) - 1);
    return {_mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, p))};
  }
  static Vec mul_add(Vec w, Vec x, Vec acc) {
    return {_mm512_dpbf16_ps(acc.v, (__m512bh)w.v, (__m512bh)x.v)};
  }
};

}  // namespace
}  // namespace simd

namespace avx512bf16 {

const LinearKernels& linear_kernels() { return simd::kLinearKernels<simd::PairMath>; }

}  // namespace avx512bf16
}  // namespace mmcore::ops
