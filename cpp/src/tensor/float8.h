// An 8-bit float as storage: bits and conversions, no arithmetic. Always inlined as in half.h.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "tensor/half.h"

namespace mmcore {

/// OCP E4M3 without infinities: 1 sign, 4 exponent (bias 7) and 3 mantissa bits, greatest value
/// 448, smallest 2^-9, one NaN of either sign.
struct f8e4m3 {
  uint8_t bits;

  f8e4m3() = default;
  /// Rounds to nearest, ties to even; what is greater than 448 becomes 448, infinity too. A NaN
  /// becomes 0x7f.
  [[gnu::always_inline]] constexpr explicit f8e4m3(float f) : bits(round(f)) {}
  [[gnu::always_inline]] constexpr explicit operator float() const { return widen(bits); }

 private:
  [[gnu::always_inline]] static constexpr uint8_t round(float f) {
    const uint32_t u = std::bit_cast<uint32_t>(f);
    const uint32_t sign = (u >> 24) & 0x80u;
    const uint32_t a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return 0x7f;
    if (a >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);  // 448 and more
    if (a < 0x3c800000u) {
      // Below 2^-6: adding 2^14 puts the unit in the last place at 2^-9 and lets the FPU round.
      const float shifted = std::bit_cast<float>(a) + 16384.0f;
      return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x46800000u));
    }
    const uint32_t odd = (a >> 20) & 1u;
    return static_cast<uint8_t>(sign | ((a - 0x3c000000u + 0x7ffffu + odd) >> 20));
  }

  [[gnu::always_inline]] static constexpr float widen(uint8_t b) {
    const uint32_t sign = static_cast<uint32_t>(b & 0x80u) << 24;
    const uint32_t a = b & 0x7fu;
    if (a == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
    if (a < 8u) {
      const float magnitude = static_cast<float>(a) * 0x1p-9f;
      return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
    }
    return std::bit_cast<float>(sign | ((a << 20) + 0x3c000000u));
  }
};

static_assert(sizeof(f8e4m3) == 1 && std::is_trivially_copyable_v<f8e4m3>);

template <>
inline constexpr DType dtype_of<f8e4m3> = DType::kFloat8E4M3;

}  // namespace mmcore
