// Plain types shared by all layers: ids, data types, devices.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace mmcore {

using TokenId = int32_t;
using BlockId = int32_t;      // index into the KV pool; 0 is the null block, never allocated
using RequestId = uint64_t;   // unique for the life of an engine, never reused; 0 is invalid
using EncoderSlot = int64_t;  // names one encoder output between core and runner; -1 is none

enum class DType : int32_t {
  kFloat32 = 0,
  kBFloat16 = 1,
  kFloat16 = 2,
  kInt32 = 3,
  kInt64 = 4,
  kUInt8 = 5,
  kFloat8E4M3 = 6  // only in KV caches; 448 at most, no infinity
};

/// Bytes of one element.
constexpr size_t size_of(DType d) {
  switch (d) {
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kInt64:
      return 8;
    case DType::kBFloat16:
    case DType::kFloat16:
      return 2;
    case DType::kUInt8:
    case DType::kFloat8E4M3:
      return 1;
  }
  return 0;
}

constexpr const char* to_string(DType d) {
  switch (d) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
    case DType::kUInt8:
      return "uint8";
    case DType::kFloat8E4M3:
      return "float8_e4m3fn";
  }
  return "unknown";
}

enum class DeviceType : int32_t { kCpu = 0, kCuda = 1 };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int32_t index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

/// 256-bit identity of one media item: SHA-256 over its length-framed description (content_id.h).
/// All zero means "no identity": such an id never equals anything in a cache.
struct ContentId {
  std::array<uint8_t, 32> bytes{};
  bool empty() const {
    for (uint8_t b : bytes)
      if (b != 0) return false;
    return true;
  }
  friend auto operator<=>(const ContentId&, const ContentId&) = default;
};

}  // namespace mmcore
