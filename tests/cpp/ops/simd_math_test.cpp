// Layer: unit. The errors that ops/simd/math.h states, and conversions against tensor/half.h.
#include "ops/simd_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <vector>

#include "ops/isa_test.h"

namespace mmcore::ops::testing {
namespace {

class SimdMathTest : public IsaTest {
 protected:
  const SimdMath& math() const {
    return GetParam() == CpuIsa::kAvx2 ? kSimdMathAvx2 : kSimdMathAvx512;
  }
};
INSTANTIATE_TEST_SUITE_P(, SimdMathTest, ::testing::Values(CpuIsa::kAvx2, CpuIsa::kAvx512),
                         isa_name);

/// Every 997th float between two, both signs of zero and the ends included.
std::vector<float> floats(float low, float high) {
  const auto order = [](float f) {  // monotone
    const auto i = std::bit_cast<int32_t>(f);
    return i < 0 ? int64_t{INT32_MIN} - i : int64_t{i};
  };
  std::vector<float> all = {low, high, 0.0f, -0.0f};
  for (int64_t i = order(low); i < order(high); i += 997) {
    const int64_t bits = i < 0 ? INT32_MIN - i : i;
    all.push_back(std::bit_cast<float>(static_cast<int32_t>(bits)));
  }
  all.push_back(high);  // an odd length: the end goes through partial vectors
  return all;
}

/// The greatest error in units in the last place of the result.
double worst_ulp(void (*f)(const float*, float*, size_t), double (*exact)(double),
                 const std::vector<float>& x) {
  std::vector<float> y(x.size());
  f(x.data(), y.data(), x.size());
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = exact(x[i]);
    const auto nearest = static_cast<float>(expected);
    if (std::isinf(nearest)) {
      EXPECT_EQ(y[i], nearest) << x[i];
      continue;
    }
    const double unit = std::nextafter(std::abs(nearest), INFINITY) - std::abs(nearest);
    worst = std::max(worst, std::abs(y[i] - expected) / unit);
  }
  return worst;
}

TEST_P(SimdMathTest, Exp2IsWithinItsError) {
  EXPECT_LE(worst_ulp(math().exp2, std::exp2, floats(-160, 140)), 1.5);
}

TEST_P(SimdMathTest, ExpIsWithinItsError) {
  EXPECT_LE(worst_ulp(math().exp, std::exp, floats(-110, 95)), 1.5);
}

TEST_P(SimdMathTest, TanhIsWithinItsError) {
  EXPECT_LE(worst_ulp(math().tanh, std::tanh, floats(-20, 20)), 3.0);
}

TEST_P(SimdMathTest, Exp2ForSoftmaxIsWithinItsErrorAndEndsInZeros) {
  std::vector<float> x = floats(-126, 0);
  std::vector<float> y(x.size());
  math().exp2_softmax(x.data(), y.data(), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_NEAR(y[i] / std::exp2(static_cast<double>(x[i])), 1.0, 2e-7) << x[i];
  }
  x = {-126.5f, -1000.0f, -3e38f, -INFINITY, 0.0f, -1.0f, -2.0f, NAN};
  math().exp2_softmax(x.data(), y.data(), x.size());
  const std::vector<float> expected = {0, 0, 0, 0, 1, 0.5f, 0.25f};
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), y.begin()));
  EXPECT_TRUE(std::isnan(y[7]));
}

TEST_P(SimdMathTest, FunctionsKeepNaNsAndKnowInfinity) {
  const float x[] = {NAN, INFINITY, -INFINITY};
  float y[3];
  for (const auto f : {math().exp2, math().exp, math().tanh}) {
    f(x, y, 3);
    EXPECT_TRUE(std::isnan(y[0]));
    EXPECT_EQ(y[1], f == math().tanh ? 1.0f : INFINITY);
    EXPECT_EQ(y[2], f == math().tanh ? -1.0f : 0.0f);
  }
}

template <class H>
void expect_widened(void (*widen)(const H*, float*, size_t)) {
  std::vector<H> x(0x10000 + 3);
  for (size_t i = 0; i < x.size(); ++i) x[i].bits = static_cast<decltype(H::bits)>(i);
  std::vector<float> y(x.size());
  widen(x.data(), y.data(), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const float expected = float(x[i]);
    ASSERT_TRUE(y[i] == expected || (std::isnan(y[i]) && std::isnan(expected))) << i;
  }
}

template <class H>
void expect_narrowed(void (*narrow)(const float*, H*, size_t)) {
  std::vector<float> x = floats(-3.4e38f, 3.4e38f);
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {  // ties, and their neighbours
    for (const uint32_t low : {0x7fffu, 0x8000u, 0x8001u, 0x1000u}) {
      x.push_back(std::bit_cast<float>(bits << 16 | low));
    }
  }
  std::vector<H> y(x.size());
  narrow(x.data(), y.data(), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const H expected(x[i]);
    ASSERT_TRUE(y[i].bits == expected.bits || (std::isnan(float(y[i])) && std::isnan(x[i])))
        << x[i] << " became " << y[i].bits << ", expected " << expected.bits;
  }
}

TEST_P(SimdMathTest, ConvertsAsScalarsDo) {
  expect_widened(math().widen_bf16);
  expect_widened(math().widen_f16);
  expect_widened(math().widen_e4m3);
  expect_narrowed(math().narrow_bf16);
  expect_narrowed(math().narrow_f16);
  expect_narrowed(math().narrow_e4m3);
}

TEST_P(SimdMathTest, PartialStoresWriteNothingElse) {
  const std::vector<float> x(64, 1.0f);
  for (size_t n = 1; n < math().lanes; ++n) {
    std::vector<bf16> y(64, bf16(7.0f));
    std::vector<f8e4m3> z(64, f8e4m3(7.0f));
    math().narrow_bf16(x.data(), y.data(), n);
    math().narrow_e4m3(x.data(), z.data(), n);
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_EQ(float(y[i]), i < n ? 1.0f : 7.0f) << n << " " << i;
      ASSERT_EQ(float(z[i]), i < n ? 1.0f : 7.0f) << n << " " << i;
    }
  }
}

TEST_P(SimdMathTest, SumsAndTransposes) {
  const size_t lanes = math().lanes;
  std::vector<float> x(lanes * lanes);
  std::iota(x.begin(), x.end(), 1.0f);
  float sums[4];
  math().sums_of_four(x.data(), sums);
  for (size_t r = 0; r < 4; ++r) {
    const auto row = x.begin() + static_cast<std::ptrdiff_t>(r * lanes);
    EXPECT_EQ(sums[r], std::accumulate(row, row + static_cast<std::ptrdiff_t>(lanes), 0.0f));
  }
  std::vector<float> y(x.size());
  math().transpose(x.data(), y.data());
  for (size_t i = 0; i < lanes; ++i) {
    for (size_t j = 0; j < lanes; ++j) ASSERT_EQ(y[i * lanes + j], x[j * lanes + i]);
  }
}

}  // namespace
}  // namespace mmcore::ops::testing
