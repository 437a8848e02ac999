// Layer: unit. The generator against its published answers.
#include <gtest/gtest.h>

#include <array>

#include "mmcore/ops.h"
#include "ops/philox.h"

namespace mmcore::ops::testing {
namespace {

using Words = std::array<uint32_t, 4>;

/// The vectors that its authors publish with Random123.
TEST(Philox, GivesThePublishedAnswers) {
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32_10({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Uniform, IsTheFirstWordsUpper24Bits) {
  EXPECT_EQ(uniform(0, 0), static_cast<float>(0x6627e8) * 0x1p-24f);
  // Both halves of seed and counter matter.
  const float first = uniform(1, 1);
  EXPECT_NE(first, uniform(1 | uint64_t{1} << 32, 1));
  EXPECT_NE(first, uniform(1, 1 | uint64_t{1} << 32));
  EXPECT_EQ(first, uniform(1, 1));
}

TEST(Uniform, CoversTheUnitIntervalEvenly) {
  constexpr int kBins = 64, kDraws = 64000;
  std::array<int, kBins> count{};
  for (uint64_t i = 0; i < kDraws; ++i) {
    const float u = uniform(12345, i);
    ASSERT_GE(u, 0.0f);
    ASSERT_LT(u, 1.0f);
    ++count[static_cast<size_t>(u * kBins)];
  }
  double chi_square = 0.0;
  for (const int n : count) chi_square += (n - 1000.0) * (n - 1000.0) / 1000.0;
  EXPECT_LT(chi_square, 103.4);  // 63 degrees of freedom, p = 0.001
}

}  // namespace
}  // namespace mmcore::ops::testing
