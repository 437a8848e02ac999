#include "base/keyed_hash.h"

#include <gtest/gtest.h>

#include <set>

namespace mmcore {
namespace {

// The key 00 01 .. 0f and the messages 00 01 .. of the SipHash-2-4 test vectors.
constexpr HashKey kVectorKey = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};

uint64_t hash_words(std::initializer_list<uint64_t> words, const HashKey& key = kVectorKey) {
  KeyedHash hash(key);
  for (const uint64_t word : words) hash.add(word);
  return hash.finish();
}

TEST(KeyedHash, is_siphash_2_4_of_whole_words) {
  EXPECT_EQ(hash_words({}), 0x726fdb47dd0e0e31u);
  EXPECT_EQ(hash_words({0x0706050403020100u}), 0x93f5f5799a932462u);
  EXPECT_EQ(hash_words({0x0706050403020100u, 0x0f0e0d0c0b0a0908u}), 0x3f2acc7f57c29bdbu);
  EXPECT_EQ(hash_words({0x0706050403020100u, 0x0f0e0d0c0b0a0908u, 0x1716151413121110u}),
            0xb8ad50c6f649af94u);
}

TEST(KeyedHash, depends_on_key_order_and_length) {
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const HashKey key = HashKey::from_seed(seed);
    seen.insert(hash_words({1, 2}, key));
    seen.insert(hash_words({2, 1}, key));
    seen.insert(hash_words({1, 2, 0}, key));
    seen.insert(hash_words({1}, key));
  }
  EXPECT_EQ(seen.size(), 400u);
}

TEST(KeyedHash, random_keys_differ) {
  const HashKey a = HashKey::random();
  const HashKey b = HashKey::random();
  EXPECT_NE(hash_words({1}, a), hash_words({1}, b));
}

}  // namespace
}  // namespace mmcore
