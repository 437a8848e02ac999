// 16-bit floats as storage: bits and conversions, no arithmetic.
//
// Included by translation units that are compiled for wider instruction sets, hence always inlined:
// an out-of-line copy from such a unit could be the one that the linker keeps for everybody.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "mmcore/types.h"

namespace mmcore {

/// bfloat16: the upper half of a float32.
struct bf16 {
  uint16_t bits;

  bf16() = default;
  [[gnu::always_inline]] constexpr explicit bf16(float f) : bits(round(f)) {}
  [[gnu::always_inline]] constexpr explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }

 private:
  [[gnu::always_inline]] static constexpr uint16_t round(float f) {
    const uint32_t u = std::bit_cast<uint32_t>(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);  // NaN
    return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
};

/// IEEE binary16.
struct f16 {
  uint16_t bits;

  f16() = default;
  [[gnu::always_inline]] constexpr explicit f16(float f) : bits(round(f)) {}
  [[gnu::always_inline]] constexpr explicit operator float() const { return widen(bits); }

 private:
  [[gnu::always_inline]] static constexpr uint16_t round(float f) {
    const uint32_t u = std::bit_cast<uint32_t>(f);
    const uint32_t sign = (u >> 16) & 0x8000u;
    const uint32_t a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // >= 65520: infinity
    if (a < 0x38800000u) {
      // Subnormal: adding 0.5 puts the unit in the last place at 2^-24 and lets the FPU round.
      const float shifted = std::bit_cast<float>(a) + 0.5f;
      return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
    }
    const uint32_t odd = (a >> 13) & 1u;
    return static_cast<uint16_t>(sign | ((a - 0x38000000u + 0xfffu + odd) >> 13));
  }

  [[gnu::always_inline]] static constexpr float widen(uint16_t h) {
    const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
    const uint32_t a = h & 0x7fffu;
    if (a >= 0x7c00u) {
      const uint32_t quiet = a > 0x7c00u ? 0x400000u : 0u;
      return std::bit_cast<float>(sign | 0x7f800000u | (a << 13) | quiet);
    }
    if (a < 0x400u) {
      const float magnitude = static_cast<float>(a) * 0x1p-24f;
      return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
    }
    return std::bit_cast<float>(sign | ((a << 13) + 0x38000000u));
  }
};

static_assert(sizeof(bf16) == 2 && std::is_trivially_copyable_v<bf16>);
static_assert(sizeof(f16) == 2 && std::is_trivially_copyable_v<f16>);

template <class T>
inline constexpr DType dtype_of = DType::kUInt8;
template <>
inline constexpr DType dtype_of<float> = DType::kFloat32;
template <>
inline constexpr DType dtype_of<bf16> = DType::kBFloat16;
template <>
inline constexpr DType dtype_of<f16> = DType::kFloat16;
template <>
inline constexpr DType dtype_of<int32_t> = DType::kInt32;
template <>
inline constexpr DType dtype_of<int64_t> = DType::kInt64;

}  // namespace mmcore
