// ops/simd of one instruction set, as functions over arrays.
#pragma once

#include <cstddef>

#include "tensor/float8.h"
#include "tensor/half.h"

namespace mmcore::ops::testing {

/// n counts elements; the last ones go through the partial loads and stores.
struct SimdMath {
  void (*exp2)(const float* x, float* y, size_t n);
  void (*exp2_softmax)(const float* x, float* y, size_t n);
  void (*exp)(const float* x, float* y, size_t n);
  void (*tanh)(const float* x, float* y, size_t n);
  void (*widen_bf16)(const bf16* x, float* y, size_t n);
  void (*widen_f16)(const f16* x, float* y, size_t n);
  void (*widen_e4m3)(const f8e4m3* x, float* y, size_t n);
  void (*narrow_bf16)(const float* x, bf16* y, size_t n);
  void (*narrow_f16)(const float* x, f16* y, size_t n);
  void (*narrow_e4m3)(const float* x, f8e4m3* y, size_t n);
  void (*sums_of_four)(const float* x, float* y);  // 4 rows of `lanes` floats
  void (*transpose)(const float* x, float* y);     // lanes x lanes
  size_t lanes;
};

extern const SimdMath kSimdMathAvx2;
extern const SimdMath kSimdMathAvx512;

}  // namespace mmcore::ops::testing
