// The functions of simd_math.h for the instruction set of the including file.
#pragma once

#include "ops/simd/math.h"
#include "ops/simd_math.h"

namespace mmcore::ops::testing {
namespace {

using simd::Vec;

template <class From, class To, class F>
void map(const From* x, To* y, size_t n, F f) {
  for (size_t i = 0; i < n; i += Vec::kLanes) {
    const int rest = static_cast<int>(n - i);
    if (rest >= Vec::kLanes) {
      f(Vec::load(x + i)).store(y + i);
    } else {
      f(Vec::load(x + i, rest)).store(y + i, rest);
    }
  }
}

template <class From, class To>
void convert(const From* x, To* y, size_t n) {
  map(x, y, n, [](Vec v) { return v; });
}

inline void sums_of_four(const float* x, float* y) {
  simd::store_sums(y, Vec::load(x), Vec::load(x + Vec::kLanes), Vec::load(x + 2 * Vec::kLanes),
                   Vec::load(x + 3 * Vec::kLanes));
}

inline void transpose(const float* x, float* y) {
  Vec rows[Vec::kLanes];
  for (int i = 0; i < Vec::kLanes; ++i) rows[i] = Vec::load(x + i * Vec::kLanes);
  simd::transpose(rows);
  for (int i = 0; i < Vec::kLanes; ++i) rows[i].store(y + i * Vec::kLanes);
}

constexpr SimdMath kSimdMath = {
    [](const float* x, float* y, size_t n) { map(x, y, n, simd::exp2); },
    [](const float* x, float* y, size_t n) { map(x, y, n, simd::exp2_softmax); },
    [](const float* x, float* y, size_t n) { map(x, y, n, simd::exp); },
    [](const float* x, float* y, size_t n) { map(x, y, n, simd::tanh); },
    convert<bf16, float>,
    convert<f16, float>,
    convert<f8e4m3, float>,
    convert<float, bf16>,
    convert<float, f16>,
    convert<float, f8e4m3>,
    sums_of_four,
    transpose,
    Vec::kLanes};

}  // namespace
}  // namespace mmcore::ops::testing
