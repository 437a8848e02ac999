// Layer: unit. Every instruction set against double precision.
#include <gtest/gtest.h>

#include "ops/isa_test.h"
#include "ops/rounding.h"

namespace mmcore::ops::testing {
namespace {

struct NormCase {
  DType dtype;
  int64_t tokens;
  int64_t hidden;
  int64_t gap;
  bool second;    // residual of rms_norm, bias of layer_norm
  bool in_place;  // out is x

  static NormCase random(Rng& rng) {
    const DType dtype = random_float_type(rng);
    const int64_t hidden = rng() % 4 == 0 ? random_size(rng, 1, 20) : random_size(rng, 1, 700);
    return {dtype,          random_size(rng, 0, 9), hidden, static_cast<int64_t>(rng() % 3) * 5,
            rng() % 2 == 0, rng() % 3 == 0};
  }
  std::string describe() const {
    return std::string(to_string(dtype)) + " [" + std::to_string(tokens) + ", " +
           std::to_string(hidden) + "] gap " + std::to_string(gap) + (second ? " second" : "") +
           (in_place ? " in place" : "");
  }
};

class NormPerIsa : public IsaTest {};
INSTANTIATE_TEST_SUITE_P(, NormPerIsa, kEveryIsa, isa_name);

TEST_P(NormPerIsa, RmsNormMatchesDoublePrecision) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Rng rng(seed);
    const NormCase c = NormCase::random(rng);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    HostTensor x(c.dtype, {c.tokens, c.hidden}, c.gap), weight(c.dtype, {c.hidden});
    HostTensor residual =
        c.second ? HostTensor(c.dtype, {c.tokens, c.hidden}, c.gap) : HostTensor();
    HostTensor out(c.dtype, {c.tokens, c.hidden}, c.gap);
    x.fill_normal(rng, 3.0);
    weight.fill_normal(rng);
    if (c.second) residual.fill_normal(rng, 2.0);
    std::vector<double> sum = x.values(), expected, slack;
    for (size_t i = 0; c.second && i < sum.size(); ++i)
      sum[i] = rounded(rounded(sum[i] + residual.values()[i], DType::kFloat32), c.dtype);
    for (int64_t t = 0; t < c.tokens; ++t) {
      const double* row = sum.data() + t * c.hidden;
      double squares = 0.0;
      for (int64_t i = 0; i < c.hidden; ++i) squares += row[i] * row[i];
      const double rms = std::sqrt(squares / static_cast<double>(c.hidden) + 1e-5f);
      for (int64_t i = 0; i < c.hidden; ++i) {
        expected.push_back(row[i] / rms * weight.get(i));
        slack.push_back(2e-6 * std::abs(expected.back()));
      }
    }
    HostTensor& to = c.in_place ? x : out;
    const Status status = rms_norm({.x = x.view(),
                                    .weight = weight.view(),
                                    .residual = residual.view(),
                                    .out = to.view(),
                                    .eps = 1e-5f});
    ASSERT_TRUE(status.ok()) << status.message();
    expect_rounded(to, expected, slack);
    EXPECT_TRUE(to.untouched_outside());
    if (c.second) {
      EXPECT_EQ(residual.values(), sum);
      EXPECT_TRUE(residual.untouched_outside());
    }
    if (HasFailure()) return;
  }
}

TEST_P(NormPerIsa, LayerNormMatchesDoublePrecision) {
  for (uint64_t seed = 101; seed <= 160; ++seed) {
    Rng rng(seed);
    const NormCase c = NormCase::random(rng);
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + c.describe());
    HostTensor x(c.dtype, {c.tokens, c.hidden}, c.gap), weight(c.dtype, {c.hidden});
    HostTensor bias = c.second ? HostTensor(c.dtype, {c.hidden}) : HostTensor();
    HostTensor out(c.dtype, {c.tokens, c.hidden}, c.gap);
    x.fill_normal(rng, 3.0);
    weight.fill_normal(rng);
    if (c.second) bias.fill_normal(rng);
    const std::vector<double> values = x.values();
    std::vector<double> expected, slack;
    const auto n = static_cast<double>(c.hidden);
    for (int64_t t = 0; t < c.tokens; ++t) {
      const double* row = values.data() + t * c.hidden;
      double sum = 0.0, squares = 0.0, most = 0.0;
      for (int64_t i = 0; i < c.hidden; ++i) sum += row[i];
      for (int64_t i = 0; i < c.hidden; ++i) {
        squares += (row[i] - sum / n) * (row[i] - sum / n);
        most = std::max(most, std::abs(row[i]));
      }
      const double scale = 1.0 / std::sqrt(squares / n + 1e-5f);
      for (int64_t i = 0; i < c.hidden; ++i) {
        const double b = c.second ? bias.get(i) : 0.0;
        expected.push_back((row[i] - sum / n) * scale * weight.get(i) + b);
        slack.push_back(1e-6 * (most * scale * std::abs(weight.get(i)) + std::abs(b)));
      }
    }
    HostTensor& to = c.in_place ? x : out;
    const Status status = layer_norm({.x = x.view(),
                                      .weight = weight.view(),
                                      .bias = bias.view(),
                                      .out = to.view(),
                                      .eps = 1e-5f});
    ASSERT_TRUE(status.ok()) << status.message();
    expect_rounded(to, expected, slack);
    EXPECT_TRUE(to.untouched_outside());
    if (HasFailure()) return;
  }
}

TEST_P(NormPerIsa, ARowIsTheSameAloneAndWithAnyThreads) {
  Rng rng(5);
  HostTensor x(DType::kBFloat16, {37, 2048}), weight(DType::kBFloat16, {2048});
  x.fill_normal(rng);
  weight.fill_normal(rng);
  std::vector<std::vector<double>> results;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    HostTensor out(DType::kBFloat16, {37, 2048});
    ASSERT_TRUE(
        rms_norm({.x = x.view(), .weight = weight.view(), .residual = {}, .out = out.view()}).ok());
    results.push_back(out.values());
    EXPECT_EQ(results.back(), results.front());
  }
  TensorView row = x.view();
  row.data = row.ptr<char>() + 11 * 2048 * 2;
  row.shape[0] = 1;
  HostTensor alone(DType::kBFloat16, {1, 2048});
  ASSERT_TRUE(
      rms_norm({.x = row, .weight = weight.view(), .residual = {}, .out = alone.view()}).ok());
  for (int64_t i = 0; i < 2048; ++i)
    ASSERT_EQ(alone.get(i), results[0][static_cast<size_t>(11 * 2048 + i)]) << i;
}

TEST(Norm, NamesTheBadTensor) {
  HostTensor x(DType::kFloat32, {2, 8}), w(DType::kFloat32, {8}), out(DType::kFloat32, {2, 8});
  HostTensor half(DType::kFloat16, {8}), other(DType::kFloat32, {2, 7});
  struct Case {
    RmsNormArgs args;
    std::string word;
  };
  const Case cases[] = {
      {{.x = {}, .weight = w.view(), .residual = {}, .out = out.view()}, "x is absent"},
      {{.x = x.view(), .weight = half.view(), .residual = {}, .out = out.view()},
       "weight is float16"},
      {{.x = x.view(), .weight = w.view(), .residual = other.view(), .out = out.view()},
       "residual"},
      {{.x = x.view(), .weight = w.view(), .residual = {}, .out = other.view()}, "out has shape"},
      {{.x = x.view(), .weight = w.view(), .residual = {}, .out = out.view(), .eps = -1.0f},
       "eps"}};
  for (const Case& c : cases) {
    const Status status = rms_norm(c.args);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(c.word), std::string::npos) << status.message();
  }
  const Status status =
      layer_norm({.x = x.view(), .weight = w.view(), .bias = other.view(), .out = out.view()});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("bias"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace mmcore::ops::testing
