// Layer: unit. Every instruction set against double precision.
#include <gtest/gtest.h>

#include <limits>

#include "ops/isa_test.h"
#include "ops/linear_case.h"
#include "ops/rounding.h"

namespace mmcore::ops::testing {
namespace {

constexpr Activation kKinds[] = {Activation::kNone,     Activation::kGeluErf,
                                 Activation::kGeluTanh, Activation::kGeluQuick,
                                 Activation::kSilu,     Activation::kRelu};

class ActivationPerIsa : public IsaTest {};
INSTANTIATE_TEST_SUITE_P(, ActivationPerIsa, kEveryIsa, isa_name);

TEST_P(ActivationPerIsa, IsWithinAMillionthOnADenseGrid) {
  constexpr int64_t kCount = 100001;
  HostTensor x(DType::kFloat32, {kCount}), out(DType::kFloat32, {kCount});
  for (int64_t i = 0; i < kCount; ++i) x.set(i, -50.0 + 1e-3 * static_cast<double>(i));
  for (const Activation kind : kKinds) {
    ASSERT_TRUE(activation(x.view(), kind, out.view()).ok());
    for (int64_t i = 0; i < kCount; ++i) {
      const double y = exact_activation(x.get(i), kind);
      ASSERT_LE(std::abs(out.get(i) - y), 1e-6 * std::max(1.0, std::abs(y)))
          << "kind " << static_cast<int>(kind) << " of " << x.get(i);
    }
  }
}

TEST_P(ActivationPerIsa, KeepsNanAndTheLimits) {
  const float inf = std::numeric_limits<float>::infinity();
  HostTensor x(DType::kFloat32, {4}), out(DType::kFloat32, {4});
  x.assign<float>(std::vector<float>{std::numeric_limits<float>::quiet_NaN(), inf, 3e38f, -3e38f});
  for (const Activation kind : kKinds) {
    ASSERT_TRUE(activation(x.view(), kind, out.view()).ok());
    EXPECT_TRUE(std::isnan(out.get(0))) << static_cast<int>(kind);
    EXPECT_EQ(out.get(1), inf) << static_cast<int>(kind);
    EXPECT_EQ(out.get(2), static_cast<double>(3e38f)) << static_cast<int>(kind);
    if (kind != Activation::kNone) {
      EXPECT_EQ(out.get(3), 0.0) << static_cast<int>(kind);
    }
  }
}

TEST_P(ActivationPerIsa, TakesAnyRankAndStride) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Rng rng(seed);
    const DType dtype = random_float_type(rng);
    std::vector<int64_t> shape;
    for (int64_t axis = random_size(rng, 1, 4); axis > 0; --axis)
      shape.push_back(random_size(rng, axis == 1 ? 1 : 0, axis == 1 ? 70 : 4));
    const Activation kind = kKinds[rng() % 6];
    HostTensor x(dtype, shape, static_cast<int64_t>(rng() % 2) * 3);
    HostTensor apart(dtype, shape, static_cast<int64_t>(rng() % 2) * 7);
    x.fill_normal(rng, 2.0);
    std::vector<double> expected, slack;
    for (const double v : x.values()) {
      expected.push_back(exact_activation(v, kind));
      slack.push_back(1e-6 * (1.0 + std::abs(expected.back())));
    }
    HostTensor& out = rng() % 3 == 0 ? x : apart;
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Status status = activation(x.view(), kind, out.view());
    ASSERT_TRUE(status.ok()) << status.message();
    expect_rounded(out, expected, slack);
    ASSERT_TRUE(out.untouched_outside());
  }
}

TEST_P(ActivationPerIsa, MultipliesTheGateWithTheRest) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Rng rng(seed);
    const DType dtype = random_float_type(rng);
    const int64_t tokens = random_size(rng, 0, 5), width = random_size(rng, 1, 90);
    const Activation kind = kKinds[rng() % 6];
    HostTensor x(dtype, {tokens, 2 * width}, static_cast<int64_t>(rng() % 2) * 3);
    HostTensor out(dtype, {tokens, width}, static_cast<int64_t>(rng() % 2) * 5);
    x.fill_normal(rng, 2.0);
    std::vector<double> expected, slack;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < width; ++i) {
        const double up = x.at({t, width + i});
        expected.push_back(exact_activation(x.at({t, i}), kind) * up);
        slack.push_back(2e-6 * (1.0 + std::abs(x.at({t, i}))) * std::abs(up));
      }
    }
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Status status = activation_mul(x.view(), kind, out.view());
    ASSERT_TRUE(status.ok()) << status.message();
    expect_rounded(out, expected, slack);
    ASSERT_TRUE(out.untouched_outside());
  }
}

TEST(Activation, NamesWhatIsWrong) {
  HostTensor x(DType::kFloat32, {2, 8}), out(DType::kFloat32, {2, 8}), ids(DType::kInt64, {2, 8});
  HostTensor narrow(DType::kFloat32, {2, 3});
  const auto expect = [](const Status& status, const std::string& word) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(word), std::string::npos) << status.message();
  };
  expect(activation(x.view(), static_cast<Activation>(99), out.view()), "99");
  expect(activation(ids.view(), Activation::kSilu, out.view()), "x is int64");
  expect(activation(x.view(), Activation::kSilu, narrow.view()), "out has shape");
  expect(activation({}, Activation::kSilu, out.view()), "x");
  expect(activation_mul(narrow.view(), Activation::kSilu, out.view()), "x has shape [2, 3]");
  expect(activation_mul(x.view(), Activation::kSilu, narrow.view()), "out has shape");
  TensorView strided = x.view();
  strided.shape[1] = 4;
  strided.strides[1] = 2;
  expect(activation(strided, Activation::kSilu, out.view()), "stride 2");
  TensorView elsewhere = x.view();
  elsewhere.device = {DeviceType::kCuda, 0};
  expect(activation(x.view(), Activation::kSilu, elsewhere), "out is on cuda:0");
}

}  // namespace
}  // namespace mmcore::ops::testing
