// How far a result may be from the exact one: half a unit in the last place of its type, and what
// float32 arithmetic adds on the way.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "ops/host_tensor.h"

namespace mmcore::ops::testing {

/// Half the distance of neighbours near `value`.
inline double half_unit(double value, DType dtype) {
  const double relative = dtype == DType::kFloat32    ? 0x1p-24
                          : dtype == DType::kBFloat16 ? 0x1p-8
                                                      : 0x1p-11;
  return std::abs(value) * relative + (dtype == DType::kFloat16 ? 0x1p-25 : 0x1p-133);
}

/// Fails the current test where `out` is further from expected[i] than rounding and slack[i] allow.
inline void expect_rounded(const HostTensor& out, const std::vector<double>& expected,
                           const std::vector<double>& slack) {
  ASSERT_EQ(static_cast<size_t>(out.numel()), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    const double got = out.get(static_cast<int64_t>(i));
    const double allowed = half_unit(std::abs(expected[i]) + slack[i], out.dtype()) + slack[i];
    ASSERT_LE(std::abs(got - expected[i]), allowed)
        << "element " << i << " is " << got << ", expected " << expected[i];
  }
}

inline const std::vector<DType> kFloatTypes = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

inline int64_t random_size(Rng& rng, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(rng() % static_cast<uint64_t>(high - low + 1));
}

inline DType random_float_type(Rng& rng) { return kFloatTypes[rng() % kFloatTypes.size()]; }

}  // namespace mmcore::ops::testing
