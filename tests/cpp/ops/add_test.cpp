// Against float64.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "mmcore/ops.h"
#include "ops/rounding.h"

namespace mmcore::ops {
namespace {

using testing::HostTensor;
using testing::random_float_type;
using testing::random_size;
using testing::Rng;

TEST(Add, RandomShapes) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    const int64_t tokens = random_size(rng, 0, 40), width = random_size(rng, 0, 700);
    const int64_t gap = rng() % 2 ? 0 : 3;
    const DType dtype = random_float_type(rng);
    HostTensor x(dtype, {tokens, width}, gap), out(dtype, {tokens, width}, gap);
    x.fill_normal(rng, 3.0);
    out.fill_normal(rng, 3.0);
    std::vector<double> expected, slack;
    for (int64_t i = 0; i < x.numel(); ++i) {
      expected.push_back(x.get(i) + out.get(i));
      slack.push_back(std::abs(expected.back()) * 0x1p-24);
    }
    const Status status = add(x.view(), out.view());
    ASSERT_TRUE(status.ok()) << status.message();
    testing::expect_rounded(out, expected, slack);
    EXPECT_TRUE(out.untouched_outside());
  }
}

TEST(Add, RefusesWhatDoesNotFitTogether) {
  float memory[8] = {};
  const TensorView x(memory, DType::kFloat32, {2, 3}), wide(memory, DType::kFloat32, {2, 4});
  const TensorView half(memory, DType::kFloat16, {2, 3}), ids(memory, DType::kInt32, {2, 3});
  EXPECT_NE(add(x, wide).message().find("add: out has shape [2, 4]"), std::string::npos)
      << add(x, wide).message();
  EXPECT_EQ(add(x, half).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(ids, ids).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(add({}, x).code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmcore::ops
