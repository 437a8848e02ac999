// Layer: unit. Against float64.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "mirror.h"
#include "mmcore/ops.h"
#include "ops/rounding.h"

namespace mmcore::cuda {
namespace {

using ops::testing::HostTensor;
using ops::testing::random_float_type;
using ops::testing::random_size;
using ops::testing::Rng;

class AddGpu : public GpuTest {};

TEST_F(AddGpu, RandomShapes) {
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(cases(200)); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    const int64_t tokens = random_size(rng, 0, 40);
    int64_t width = random_size(rng, 0, 700);
    if (rng() % 2) width = width / 8 * 8;
    const int64_t gap = rng() % 2 ? 0 : rng() % 2 ? 8 : 3;
    const DType dtype = random_float_type(rng);
    HostTensor x(dtype, {tokens, width}, gap), out(dtype, {tokens, width}, gap);
    x.fill_normal(rng, 3.0);
    out.fill_normal(rng, 3.0);
    std::vector<double> expected;
    for (int64_t i = 0; i < x.numel(); ++i) expected.push_back(x.get(i) + out.get(i));
    const Mirror gx(x), gout(out);
    const Status status = ops::add(gx, gout);
    ASSERT_TRUE(status.ok()) << status.message();
    gout.fetch(out);
    // float32's own rounding of the sum, and then that of the type.
    std::vector<double> slack;
    for (const double value : expected) slack.push_back(std::abs(value) * 0x1p-24);
    ops::testing::expect_rounded(out, expected, slack);
    EXPECT_TRUE(out.untouched_outside());
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace mmcore::cuda
