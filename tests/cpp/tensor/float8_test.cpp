// Layer: unit. Every bit pattern, and every place where rounding decides.
#include "tensor/float8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tensor/dispatch.h"

namespace mmcore {
namespace {

/// The value of a bit pattern by the definition of the format.
double defined(uint32_t bits) {
  const int exponent = (bits >> 3) & 15;
  const int mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<double>::quiet_NaN();
  const double sign = bits & 0x80 ? -1.0 : 1.0;
  return sign * std::ldexp(mantissa + (exponent == 0 ? 0 : 8), (exponent == 0 ? 1 : exponent) - 10);
}

f8e4m3 from_bits(uint32_t bits) {
  f8e4m3 x;
  x.bits = static_cast<uint8_t>(bits);
  return x;
}

TEST(Float8Test, WidensEveryPattern) {
  for (uint32_t bits = 0; bits < 0x100; ++bits) {
    const float widened = float(from_bits(bits));
    ASSERT_EQ(std::signbit(widened), bits >= 0x80) << bits;
    if ((bits & 0x7f) == 0x7f) {
      ASSERT_TRUE(std::isnan(widened)) << bits;
    } else {
      ASSERT_EQ(widened, defined(bits)) << bits;
      ASSERT_EQ(f8e4m3(widened).bits, bits);
    }
  }
}

TEST(Float8Test, RoundsToNearestAndTiesToEven) {
  for (const uint32_t sign : {0u, 0x80u}) {
    for (uint32_t bits = 0; bits < 0x7e; ++bits) {
      const auto low = static_cast<float>(defined(bits | sign));
      const auto high = static_cast<float>(defined((bits + 1) | sign));
      const float middle = (low + high) / 2;
      const uint32_t even = bits % 2 == 0 ? bits : bits + 1;
      ASSERT_EQ(f8e4m3(middle).bits, even | sign) << low;
      ASSERT_EQ(f8e4m3(std::nextafter(middle, low)).bits, bits | sign) << low;
      ASSERT_EQ(f8e4m3(std::nextafter(middle, high)).bits, (bits + 1) | sign) << low;
    }
  }
}

TEST(Float8Test, SaturatesAndKeepsNaNs) {
  for (const float f : {448.0f, 449.0f, 464.0f, 480.0f, 1e30f, INFINITY}) {
    EXPECT_EQ(float(f8e4m3(f)), 448.0f) << f;
    EXPECT_EQ(float(f8e4m3(-f)), -448.0f) << f;
  }
  for (const uint32_t bits : {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xff800001u, 0x7fffffffu}) {
    EXPECT_EQ(f8e4m3(std::bit_cast<float>(bits)).bits, 0x7f) << bits;
  }
  EXPECT_EQ(f8e4m3(-0.0f).bits, 0x80);
  EXPECT_EQ(f8e4m3(1e-40f).bits, 0);
}

TEST(Float8Test, IsForCachesAlone) {
  DType seen{};
  const auto note = [&]<class T>() { seen = dtype_of<T>; };
  EXPECT_TRUE(dispatch_cache(DType::kFloat8E4M3, "op", note).ok());
  EXPECT_EQ(seen, DType::kFloat8E4M3);
  EXPECT_TRUE(dispatch_cache(DType::kBFloat16, "op", note).ok());
  EXPECT_EQ(seen, DType::kBFloat16);
  EXPECT_EQ(dispatch_float(DType::kFloat8E4M3, "op", note).message(),
            "op: no kernel for dtype float8_e4m3fn; expected float32, bfloat16 or float16");
}

}  // namespace
}  // namespace mmcore
