// Layer: unit. Against float64; what is allowed beyond half a unit in the last place of the result
// is float32's share: 4e-6 of the value.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "mirror.h"
#include "mmcore/ops.h"
#include "ops/rounding.h"

namespace mmcore::cuda {
namespace {

using ops::testing::HostTensor;
using ops::testing::random_float_type;
using ops::testing::random_size;
using ops::testing::Rng;

class NormGpu : public GpuTest {};

struct Row {
  std::vector<double> x;
  double mean = 0, square = 0, largest = 0;  // of x - mean

  Row(const HostTensor& t, int64_t row, bool centred) {
    const int64_t n = t.shape()[1];
    for (int64_t i = 0; i < n; ++i) x.push_back(t.at({row, i}));
    for (const double v : x) {
      mean += centred ? v / static_cast<double>(n) : 0.0;
      largest = std::max(largest, std::abs(v));
    }
    for (const double v : x) square += (v - mean) * (v - mean) / static_cast<double>(n);
  }
};

int64_t random_hidden(Rng& rng) {
  constexpr int64_t kWidths[] = {1, 7, 8, 16, 64, 72, 576, 577, 960, 1024, 1152, 2048, 4096, 8192};
  return rng() % 4 == 0 ? random_size(rng, 1, 3000) : kWidths[rng() % std::size(kWidths)];
}

void check_rms(DType dtype, int64_t tokens, int64_t hidden, int64_t gap, bool adds, bool in_place,
               Rng& rng) {
  HostTensor x(dtype, {tokens, hidden}, gap), weight(dtype, {hidden}), out = x, residual;
  x.fill_normal(rng, 3.0);
  weight.fill_normal(rng);
  if (adds) {
    residual = HostTensor(dtype, {tokens, hidden}, gap);
    residual.fill_normal(rng);
  }
  HostTensor sum = adds ? residual : x;
  for (int64_t i = 0; adds && i < sum.numel(); ++i)
    sum.set(i, static_cast<float>(residual.get(i)) + static_cast<float>(x.get(i)));
  const Mirror gx(x), gweight(weight), gresidual(residual), gout(out);
  const Status status = ops::rms_norm({.x = gx,
                                       .weight = gweight,
                                       .residual = gresidual,
                                       .out = in_place ? gx.view() : gout.view(),
                                       .eps = 1e-5f});
  ASSERT_TRUE(status.ok()) << status.message();
  (in_place ? gx : gout).fetch(out);
  gresidual.fetch(residual);
  std::vector<double> expected, slack;
  for (int64_t t = 0; t < tokens; ++t) {
    const Row row(sum, t, false);
    const double scale = 1.0 / std::sqrt(row.square + double{1e-5f});
    for (int64_t i = 0; i < hidden; ++i) {
      expected.push_back(row.x[static_cast<size_t>(i)] * scale * weight.get(i));
      slack.push_back(4e-6 * std::abs(expected.back()));
    }
  }
  ops::testing::expect_rounded(out, expected, slack);
  EXPECT_TRUE(out.untouched_outside());
  for (int64_t i = 0; adds && i < sum.numel(); ++i) ASSERT_EQ(residual.get(i), sum.get(i));
}

TEST_F(NormGpu, RmsOnRandomShapes) {
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(cases(300)); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    const DType dtype = random_float_type(rng);
    const int64_t hidden = random_hidden(rng);
    const int64_t tokens = random_size(rng, 0, 20000 / hidden + 3);
    const int64_t gaps[] = {0, 8, 3};
    const int64_t gap = gaps[rng() % 3];
    SCOPED_TRACE(std::to_string(tokens) + " x " + std::to_string(hidden));
    check_rms(dtype, tokens, hidden, gap, rng() % 2 == 0, rng() % 3 == 0, rng);
    if (HasFatalFailure()) return;
  }
}

TEST_F(NormGpu, RmsReduced) {
  Rng rng(5);
  for (const int64_t hidden : {5, 64, 136, 2048})
    check_rms(DType::kBFloat16, 3, hidden, 8, true, false, rng);
}

TEST_F(NormGpu, MoreRowsThanBlocksFit) {
  Rng rng(6);
  check_rms(DType::kBFloat16, 5000, 64, 0, true, false, rng);
  check_rms(DType::kFloat16, 3000, 1032, 0, false, true, rng);
}

TEST_F(NormGpu, VeryWideRows) {
  Rng rng(7);
  check_rms(DType::kBFloat16, 2, 20480, 0, true, false, rng);
  check_rms(DType::kBFloat16, 2, 65536, 0, false, false, rng);
  check_rms(DType::kFloat32, 2, 65536, 0, true, false, rng);
}

void check_layer(DType dtype, int64_t tokens, int64_t hidden, int64_t gap, bool biased,
                 bool in_place, Rng& rng) {
  HostTensor x(dtype, {tokens, hidden}, gap), weight(dtype, {hidden}), bias, out = x;
  x.fill_normal(rng, 2.0);
  for (int64_t i = 0; i < x.numel(); ++i) x.set(i, x.get(i) + 1.5);
  weight.fill_normal(rng);
  if (biased) {
    bias = HostTensor(dtype, {hidden});
    bias.fill_normal(rng);
  }
  const Mirror gx(x), gweight(weight), gbias(bias), gout(out);
  const Status status = ops::layer_norm({.x = gx,
                                         .weight = gweight,
                                         .bias = gbias,
                                         .out = in_place ? gx.view() : gout.view(),
                                         .eps = 1e-5f});
  ASSERT_TRUE(status.ok()) << status.message();
  (in_place ? gx : gout).fetch(out);
  std::vector<double> expected, slack;
  for (int64_t t = 0; t < tokens; ++t) {
    const Row row(x, t, true);
    const double scale = 1.0 / std::sqrt(row.square + double{1e-5f});
    for (int64_t i = 0; i < hidden; ++i) {
      const double y = (row.x[static_cast<size_t>(i)] - row.mean) * scale * weight.get(i);
      const double b = biased ? bias.get(i) : 0.0;
      expected.push_back(y + b);
      slack.push_back(4e-6 * (std::abs(y) + std::abs(b)) +
                      1e-6 * std::abs(weight.get(i)) * scale * row.largest);
    }
  }
  ops::testing::expect_rounded(out, expected, slack);
  EXPECT_TRUE(out.untouched_outside());
}

TEST_F(NormGpu, LayerOnRandomShapes) {
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(cases(300)); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    const DType dtype = random_float_type(rng);
    const int64_t hidden = random_hidden(rng);
    const int64_t tokens = random_size(rng, 0, 20000 / hidden + 3);
    const int64_t gaps[] = {0, 8, 3};
    const int64_t gap = gaps[rng() % 3];
    SCOPED_TRACE(std::to_string(tokens) + " x " + std::to_string(hidden));
    check_layer(dtype, tokens, hidden, gap, rng() % 2 == 0, rng() % 3 == 0, rng);
    if (HasFatalFailure()) return;
  }
}

TEST_F(NormGpu, LayerReduced) {
  Rng rng(5);
  for (const int64_t hidden : {5, 64, 136, 1152})
    check_layer(DType::kFloat16, 3, hidden, 0, true, false, rng);
}

TEST_F(NormGpu, SameBitsEveryTime) {
  Rng rng(8);
  HostTensor x(DType::kFloat32, {33, 4096}), weight(DType::kFloat32, {4096}), first = x;
  x.fill_normal(rng);
  weight.fill_normal(rng);
  const Mirror gx(x), gweight(weight), gout(first);
  for (int run = 0; run < 4; ++run) {
    ASSERT_TRUE(ops::rms_norm({.x = gx, .weight = gweight, .residual = {}, .out = gout}).ok());
    HostTensor out = x;
    gout.fetch(out);
    if (run == 0) gout.fetch(first);
    EXPECT_EQ(out.bytes(), first.bytes());
  }
}

}  // namespace
}  // namespace mmcore::cuda
