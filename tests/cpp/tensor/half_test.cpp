// Layer: unit. Every bit pattern, and every place where rounding decides.
#include "tensor/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace mmcore {
namespace {

/// The value of a bit pattern by the definition of the format.
double defined(uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * INFINITY : std::numeric_limits<double>::quiet_NaN();
  }
  const int scale = exponent == 0 ? 1 - bias : exponent - bias;
  return sign *
         std::ldexp(mantissa + (exponent == 0 ? 0 : 1 << mantissa_bits), scale - mantissa_bits);
}

template <class H>
H from_bits(uint32_t bits) {
  H h;
  h.bits = static_cast<uint16_t>(bits);
  return h;
}

template <class H>
class HalfTest : public ::testing::Test {
 public:
  static constexpr int kExponent = std::is_same_v<H, bf16> ? 8 : 5;
  static double value(uint32_t bits) {
    return defined(static_cast<uint16_t>(bits), kExponent, 15 - kExponent);
  }
};
using Halves = ::testing::Types<bf16, f16>;
TYPED_TEST_SUITE(HalfTest, Halves);

TYPED_TEST(HalfTest, WidensEveryPattern) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const double expected = TestFixture::value(bits);
    const float widened = float(from_bits<TypeParam>(bits));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(widened)) << bits;
    } else {
      ASSERT_EQ(widened, expected) << bits;
      ASSERT_EQ(std::signbit(widened), (bits & 0x8000) != 0) << bits;
      ASSERT_EQ(TypeParam(widened).bits, bits);
    }
  }
}

TYPED_TEST(HalfTest, RoundsToNearestAndTiesToEven) {
  for (uint32_t sign : {0u, 0x8000u}) {
    for (uint32_t bits = 0; TestFixture::value(bits + 1) < INFINITY; ++bits) {
      const double low = TestFixture::value(bits | sign);
      const double high = TestFixture::value((bits + 1) | sign);
      const float middle = static_cast<float>((low + high) / 2);
      ASSERT_EQ(middle, (low + high) / 2);  // a float holds it exactly
      const uint32_t even = bits % 2 == 0 ? bits : bits + 1;
      ASSERT_EQ(TypeParam(middle).bits, even | sign) << low;
      ASSERT_EQ(TypeParam(std::nextafter(middle, static_cast<float>(low))).bits, bits | sign);
      ASSERT_EQ(TypeParam(std::nextafter(middle, static_cast<float>(high))).bits,
                (bits + 1) | sign);
    }
  }
}

TYPED_TEST(HalfTest, OverflowsToInfinityHalfAUnitAboveTheGreatest) {
  uint32_t greatest = 0;
  while (TestFixture::value(greatest + 1) < INFINITY) ++greatest;
  const double limit = TestFixture::value(greatest) +
                       (TestFixture::value(greatest) - TestFixture::value(greatest - 1)) / 2;
  const float below = std::nextafter(static_cast<float>(limit), 0.0f);
  EXPECT_EQ(TypeParam(below).bits, greatest);
  EXPECT_EQ(TypeParam(static_cast<float>(limit)).bits, greatest + 1);
  EXPECT_EQ(TypeParam(INFINITY).bits, greatest + 1);
  EXPECT_EQ(TypeParam(-INFINITY).bits, (greatest + 1) | 0x8000);
}

TYPED_TEST(HalfTest, KeepsNaNs) {
  for (const uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xff800001u, 0x7fffffffu}) {
    EXPECT_TRUE(std::isnan(float(TypeParam(std::bit_cast<float>(bits))))) << bits;
  }
}

static_assert(bf16(1.0f).bits == 0x3f80 && f16(1.0f).bits == 0x3c00);

}  // namespace
}  // namespace mmcore
