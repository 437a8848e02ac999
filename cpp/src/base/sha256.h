// SHA-256 (FIPS 180-4), incremental.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/sha256_blocks.h"

namespace mmcore {

class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  explicit Sha256(Sha256Blocks blocks = fastest_sha256_blocks()) : blocks_(blocks) {}

  void update(std::span<const uint8_t> data);
  /// Pads and returns the digest; the object must not be used afterwards.
  Digest finish();

 private:
  Sha256Blocks blocks_;
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> buffer_{};
  size_t buffered_ = 0;
  uint64_t total_bytes_ = 0;
};

}  // namespace mmcore
