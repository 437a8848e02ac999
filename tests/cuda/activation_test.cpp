// Layer: unit. Against float64; beyond half a unit in the last place of the result, float32's and
// the fast exponential's share is allowed: 3e-6 of the value and 3e-7 of the argument.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "mirror.h"
#include "mmcore/ops.h"
#include "ops/rounding.h"

namespace mmcore::cuda {
namespace {

using ops::Activation;
using ops::testing::HostTensor;
using ops::testing::random_float_type;
using ops::testing::random_size;
using ops::testing::Rng;

constexpr Activation kKinds[] = {Activation::kNone,     Activation::kGeluErf,
                                 Activation::kGeluTanh, Activation::kGeluQuick,
                                 Activation::kSilu,     Activation::kRelu};

double exact(double x, Activation kind) {
  switch (kind) {
    case Activation::kNone:
      return x;
    case Activation::kGeluErf:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case Activation::kGeluTanh:
      return x / (1 + std::exp(-2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kGeluQuick:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kRelu:
      return std::max(x, 0.0);
  }
  return 0;
}

class ActivationGpu : public GpuTest {};

void check_activation(DType dtype, std::vector<int64_t> shape, int64_t gap, Activation kind,
                      bool in_place, Rng& rng) {
  HostTensor x(dtype, shape, gap);
  x.fill_normal(rng, rng() % 2 ? 1.0 : 8.0);
  HostTensor out = in_place ? x : HostTensor(dtype, shape);
  const Mirror gx(x), gout(out);
  const Status status = ops::activation(gx, kind, in_place ? gx.view() : gout.view());
  ASSERT_TRUE(status.ok()) << status.message();
  (in_place ? gx : gout).fetch(out);
  std::vector<double> expected, slack;
  for (int64_t i = 0; i < x.numel(); ++i) {
    expected.push_back(exact(x.get(i), kind));
    slack.push_back(kind == Activation::kNone
                        ? 0.0
                        : 3e-6 * std::abs(expected.back()) + 3e-7 * std::abs(x.get(i)));
  }
  ops::testing::expect_rounded(out, expected, slack);
  EXPECT_TRUE(out.untouched_outside());
}

void check_activation_mul(DType dtype, int64_t tokens, int64_t width, int64_t gap, Activation kind,
                          Rng& rng) {
  HostTensor x(dtype, {tokens, 2 * width}, gap), out(dtype, {tokens, width}, gap);
  x.fill_normal(rng, 3.0);
  const Mirror gx(x), gout(out);
  const Status status = ops::activation_mul(gx, kind, gout);
  ASSERT_TRUE(status.ok()) << status.message();
  gout.fetch(out);
  std::vector<double> expected, slack;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < width; ++i) {
      const double gate = x.at({t, i}), up = x.at({t, width + i});
      expected.push_back(exact(gate, kind) * up);
      slack.push_back(3e-6 * std::abs(expected.back()) + 3e-7 * std::abs(gate * up));
    }
  }
  ops::testing::expect_rounded(out, expected, slack);
  EXPECT_TRUE(out.untouched_outside());
}

TEST_F(ActivationGpu, RandomShapes) {
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(cases(300)); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    std::vector<int64_t> shape;
    for (size_t rank = 1 + rng() % 4; rank > 0; --rank) shape.push_back(random_size(rng, 1, 9));
    shape.back() = random_size(rng, 0, 300);
    if (rng() % 2) shape.back() = shape.back() / 8 * 8;
    const int64_t gap = rng() % 2 ? 0 : rng() % 2 ? 8 : 3;
    const DType dtype = random_float_type(rng);
    check_activation(dtype, shape, gap, kKinds[seed % 6], rng() % 3 == 0, rng);
    if (HasFatalFailure()) return;
  }
}

TEST_F(ActivationGpu, MulOnRandomShapes) {
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(cases(300)); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    int64_t width = random_size(rng, 0, 1500);
    if (rng() % 2) width = width / 8 * 8;
    const int64_t gap = rng() % 2 ? 0 : rng() % 2 ? 8 : 3;
    const DType dtype = random_float_type(rng);
    check_activation_mul(dtype, random_size(rng, 0, 12), width, gap, kKinds[seed % 6], rng);
    if (HasFatalFailure()) return;
  }
}

/// Enough work for the path with four vectors a thread.
TEST_F(ActivationGpu, LargeTensors) {
  Rng rng(3);
  check_activation(DType::kBFloat16, {700, 11008}, 0, Activation::kGeluErf, false, rng);
  check_activation_mul(DType::kBFloat16, 500, 11008, 0, Activation::kSilu, rng);
  check_activation_mul(DType::kFloat32, 600, 4104, 8, Activation::kGeluTanh, rng);
}

TEST_F(ActivationGpu, Reduced) {
  Rng rng(4);
  for (const Activation kind : kKinds) {
    check_activation(DType::kBFloat16, {2, 3, 24}, 0, kind, false, rng);
    check_activation(DType::kFloat32, {2, 3, 5}, 3, kind, false, rng);
    check_activation_mul(DType::kFloat16, 3, 40, 0, kind, rng);
    check_activation_mul(DType::kFloat16, 3, 13, 0, kind, rng);
  }
}

TEST_F(ActivationGpu, Extremes) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const std::vector<float> values = {0.0f, -0.0f, 100.0f, -100.0f, 3e38f, -3e38f, kInf, NAN};
  for (const Activation kind : kKinds) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      const DeviceTensor x = DeviceTensor::from(values, {8}, dtype);
      const DeviceTensor out(dtype, {8});
      ASSERT_TRUE(ops::activation(x, kind, out).ok());
      const std::vector<float> got = out.floats();
      EXPECT_EQ(got[0], 0.0f);
      EXPECT_EQ(got[1], 0.0f);
      EXPECT_EQ(got[2], 100.0f);
      if (kind != Activation::kNone) {
        EXPECT_NEAR(got[3], 0.0f, 1e-30);
        EXPECT_NEAR(got[5], 0.0f, 1e-30);
      }
      EXPECT_EQ(got[6], kInf) << static_cast<int>(kind);
      EXPECT_TRUE(std::isnan(got[7]));
    }
  }
}

}  // namespace
}  // namespace mmcore::cuda
