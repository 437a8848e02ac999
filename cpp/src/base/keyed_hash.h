// Keyed 64-bit hash of a sequence of 64-bit words: SipHash-2-4 of their little-endian bytes.
//
// Keyed, so that nobody can prepare prompts whose blocks collide; used to find candidates only,
// never as an identity (invariant: kv.exact).
#pragma once

#include <bit>
#include <cstdint>

namespace mmcore {

struct HashKey {
  uint64_t k0 = 0;
  uint64_t k1 = 0;

  /// Stretches a 64-bit seed to a key.
  static HashKey from_seed(uint64_t seed);
  /// Draws a key from the system's random device.
  static HashKey random();
};

class KeyedHash {
 public:
  explicit KeyedHash(const HashKey& key)
      : v0_(key.k0 ^ 0x736f6d6570736575u),
        v1_(key.k1 ^ 0x646f72616e646f6du),
        v2_(key.k0 ^ 0x6c7967656e657261u),
        v3_(key.k1 ^ 0x7465646279746573u) {}

  void add(uint64_t word) {
    v3_ ^= word;
    round();
    round();
    v0_ ^= word;
    bytes_ += 8;
  }

  uint64_t finish() {
    add(bytes_ << 56);
    v2_ ^= 0xff;
    for (int i = 0; i < 4; ++i) round();
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }

 private:
  void round() {
    v0_ += v1_;
    v1_ = std::rotl(v1_, 13) ^ v0_;
    v0_ = std::rotl(v0_, 32);
    v2_ += v3_;
    v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ += v3_;
    v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ += v1_;
    v1_ = std::rotl(v1_, 17) ^ v2_;
    v2_ = std::rotl(v2_, 32);
  }

  uint64_t v0_, v1_, v2_, v3_;
  uint64_t bytes_ = 0;
};

}  // namespace mmcore
