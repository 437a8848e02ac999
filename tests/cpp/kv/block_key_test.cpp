#include "kv/block_key.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace mmcore {
namespace {

constexpr int32_t kSize = 4;
constexpr int kBits = 64;

struct Content {
  std::vector<TokenId> tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  std::vector<MediaItem> media;
  std::string salt;
  uint64_t lora = 0;

  KeyChain chain() const { return KeyChain(kSize, SpanMap(media), salt, lora); }
};

MediaItem item(int32_t offset, int32_t length, uint8_t content,
               std::vector<uint8_t> embed_mask = {}) {
  MediaItem made{.offset = offset, .length = length, .embed_mask = std::move(embed_mask)};
  made.id.bytes[31] = content;
  return made;
}

struct OwnedKey {
  uint64_t hash;
  std::vector<TokenId> tokens;
  std::vector<uint64_t> extra;
  bool operator==(const OwnedKey&) const = default;
};

OwnedKey key_of(const Content& content, int64_t block) {
  KeyChain chain = content.chain();
  const BlockHasher hasher(HashKey::from_seed(1), kBits);
  const BlockKey key = chain.key(hasher, block, content.tokens, 5);
  EXPECT_EQ(key.parent, 5u);
  return {key.hash, {key.tokens.begin(), key.tokens.end()}, {key.extra.begin(), key.extra.end()}};
}

// Blocks [0, 4) [4, 8) [8, 12); an item lies on [5, 10).
Content example() {
  Content content;
  content.media = {item(5, 5, 1)};
  return content;
}

// What of the comparison and of the hash changes with the content (invariant: kv.exact).
struct Change {
  const char* name;
  std::function<void(Content&)> apply;
  std::vector<int64_t> compared;  // blocks whose own words differ
  int64_t first_hash;             // first block whose hash differs
};

TEST(BlockKey, every_input_of_a_block_is_in_its_key) {
  const std::vector<Change> changes = {
      {"token", [](Content& c) { c.tokens[6] = 60; }, {1}, 1},
      {"salt", [](Content& c) { c.salt = "a"; }, {0}, 0},
      {"adapter", [](Content& c) { c.lora = 3; }, {0}, 0},
      {"content id", [](Content& c) { c.media[0].id.bytes[0] = 9; }, {1, 2}, 1},
      {"no item", [](Content& c) { c.media.clear(); }, {1, 2}, 1},
      {"offset", [](Content& c) { c.media[0].offset = 4; }, {1, 2}, 1},
      {"length", [](Content& c) { c.media[0].length = 4; }, {1, 2}, 1},
      {"mask", [](Content& c) { c.media[0].embed_mask = {1, 1, 0, 1, 1}; }, {1, 2}, 1},
      {"mask in the last block",
       [](Content& c) { c.media[0].embed_mask = {1, 1, 1, 0, 1}; },
       {1, 2},  // the number of rows is part of the item's identity
       1},
      {"second item", [](Content& c) { c.media.push_back(item(10, 1, 1)); }, {2}, 2},
  };
  for (const Change& change : changes) {
    Content changed = example();
    change.apply(changed);
    for (int64_t block = 0; block < 3; ++block) {
      const OwnedKey before = key_of(example(), block);
      const OwnedKey after = key_of(changed, block);
      const bool differs = before.tokens != after.tokens || before.extra != after.extra;
      EXPECT_EQ(differs, std::ranges::count(change.compared, block) > 0)
          << change.name << ", block " << block;
      EXPECT_EQ(before.hash != after.hash, block >= change.first_hash)
          << change.name << ", block " << block;
    }
  }
}

TEST(BlockKey, a_mask_of_ones_is_no_mask) {
  Content masked = example();
  masked.media[0].embed_mask = {1, 1, 1, 1, 1};
  for (int64_t block = 0; block < 3; ++block)
    EXPECT_EQ(key_of(masked, block), key_of(example(), block));
}

TEST(BlockKey, salt_and_adapter_are_framed) {
  Content a;
  a.salt = std::string("x\0", 2);
  Content b;
  b.salt = "x";
  EXPECT_NE(key_of(a, 0).extra, key_of(b, 0).extra);
}

TEST(BlockKey, hashes_are_remembered_and_do_not_depend_on_the_order_of_questions) {
  Content content = example();
  KeyChain chain = content.chain();
  const BlockHasher hasher(HashKey::from_seed(1), kBits);
  const uint64_t last = chain.key(hasher, 2, content.tokens, 0).hash;
  for (int64_t block = 0; block < 3; ++block)
    EXPECT_EQ(chain.key(hasher, block, content.tokens, 0).hash, key_of(content, block).hash);
  EXPECT_EQ(chain.key(hasher, 2, content.tokens, 0).hash, last);
}

TEST(BlockKey, blocks_from_an_item_without_identity_on_are_private) {
  Content content = example();
  EXPECT_GT(content.chain().first_private_block(), 1'000'000);
  content.media.push_back({.offset = 10, .length = 1});
  EXPECT_EQ(content.chain().first_private_block(), 2);
  content.media[0].id = {};
  EXPECT_EQ(content.chain().first_private_block(), 1);
}

TEST(BlockHasher, cuts_the_hash_for_tests_that_force_collisions) {
  const std::vector<TokenId> tokens = {1, 2, 3, 4, 5};
  for (const int bits : {1, 8, 63, 64}) {
    const uint64_t hash = BlockHasher(HashKey::from_seed(2), bits)(7, tokens, {});
    const uint64_t whole = BlockHasher(HashKey::from_seed(2), 64)(7, tokens, {});
    EXPECT_EQ(hash, bits == 64 ? whole : whole & ((uint64_t{1} << bits) - 1));
  }
}

}  // namespace
}  // namespace mmcore
