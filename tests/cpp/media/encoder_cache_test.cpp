#include "media/encoder_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "mmcore/status.h"

namespace mmcore {
namespace {

EncoderKey shared(uint8_t content, int64_t rows, std::string salt = "") {
  EncoderKey key{.rows = rows, .salt = std::move(salt)};
  key.id.bytes[0] = content;
  return key;
}

EncoderKey owned(RequestId owner, int32_t item, int64_t rows) {
  return {.owner = owner, .item = item, .rows = rows};
}

EncoderSlot encode(EncoderCache& cache, const EncoderKey& key) {
  const EncoderSlot slot = cache.pin(key);
  cache.mark_ready(slot);
  return slot;
}

TEST(EncoderCache, an_unpinned_entry_is_found_again) {
  EncoderCache cache(10);
  const EncoderSlot slot = encode(cache, shared(1, 4));
  cache.unpin(slot);
  EXPECT_EQ(cache.find(shared(1, 4)), slot);
  EXPECT_EQ(cache.pin(shared(1, 4)), slot);
  EXPECT_EQ(cache.rows(), 4);
  EXPECT_EQ(cache.pinned_rows(), 4);
  EXPECT_TRUE(cache.evicted().empty());
}

TEST(EncoderCache, content_salt_adapter_and_row_count_are_told_apart) {
  EncoderCache cache(100);
  EncoderKey other_lora = shared(1, 4);
  other_lora.lora_id = 9;
  const std::set<EncoderSlot> slots = {cache.pin(shared(1, 4)), cache.pin(shared(2, 4)),
                                       cache.pin(shared(1, 5)), cache.pin(shared(1, 4, "a")),
                                       cache.pin(other_lora)};
  EXPECT_EQ(slots.size(), 5u);
}

TEST(EncoderCache, evicts_the_least_recently_used_and_never_a_pinned_entry) {
  EncoderCache cache(10);
  const EncoderSlot a = encode(cache, shared(1, 4));
  const EncoderSlot b = encode(cache, shared(2, 3));
  const EncoderSlot c = encode(cache, shared(3, 3));
  cache.unpin(b);
  cache.unpin(a);
  EXPECT_TRUE(cache.can_pin(7));
  EXPECT_FALSE(cache.can_pin(8)) << "c keeps its rows";
  encode(cache, shared(4, 2));
  EXPECT_EQ(cache.evicted(), std::vector<EncoderSlot>{b});
  encode(cache, shared(5, 4));
  EXPECT_EQ(cache.evicted(), (std::vector<EncoderSlot>{b, a}));
  EXPECT_TRUE(cache.pinned(c));
  EXPECT_EQ(cache.rows(), 9);
  EXPECT_THROW(cache.pin(shared(6, 2)), InternalError);
}

TEST(EncoderCache, an_entry_that_was_never_encoded_goes_with_its_last_pin) {
  EncoderCache cache(10);
  const EncoderSlot slot = cache.pin(shared(1, 4));
  cache.pin(shared(1, 4));
  cache.unpin(slot);
  EXPECT_EQ(cache.find(shared(1, 4)), slot);
  cache.unpin(slot);
  EXPECT_EQ(cache.find(shared(1, 4)), -1);
  EXPECT_EQ(cache.evicted(), std::vector<EncoderSlot>{slot}) << "the runner may hold it";
  EXPECT_NE(cache.pin(shared(1, 4)), slot) << "slots are never used twice";
}

TEST(EncoderCache, private_entries_go_with_their_request) {
  EncoderCache cache(20);
  const EncoderSlot mine = encode(cache, owned(7, 0, 2));
  const EncoderSlot mine_too = encode(cache, owned(7, 1, 2));
  const EncoderSlot other = encode(cache, owned(8, 0, 2));
  const EncoderSlot common = encode(cache, shared(1, 2));
  for (const EncoderSlot slot : {mine, mine_too, other, common}) cache.unpin(slot);
  cache.forget_owner(7);
  EXPECT_EQ(cache.evicted(), (std::vector<EncoderSlot>{mine, mine_too}));
  EXPECT_EQ(cache.find(owned(8, 0, 2)), other);
  EXPECT_EQ(cache.find(shared(1, 2)), common);
  cache.clear_unpinned();
  EXPECT_EQ(cache.size(), 0);
  EXPECT_EQ(cache.rows(), 0);
}

// invariant: encoder.pin, encoder.capacity, encoder.slot
TEST(EncoderCache, keeps_its_books_under_random_use) {
  std::mt19937_64 random(31);
  for (int round = 0; round < 30; ++round) {
    const int64_t capacity = static_cast<int64_t>(random() % 12) + 6;
    EncoderCache cache(capacity);
    std::vector<EncoderSlot> pins;
    std::set<EncoderSlot> alive_before;
    EncoderSlot newest = -1;
    for (int op = 0; op < 500; ++op) {
      const auto content = static_cast<uint8_t>(random() % 6 + 1);
      const EncoderKey key = shared(content, content % 4 + 1);
      const EncoderSlot found = cache.find(key);
      const int64_t more = found >= 0 && cache.pinned(found) ? 0 : key.rows;
      if (random() % 2 == 0 && cache.can_pin(more)) {
        const EncoderSlot slot = cache.pin(key);
        EXPECT_TRUE(found >= 0 ? slot == found : slot > newest);
        newest = std::max(newest, slot);
        if (random() % 4 != 0) cache.mark_ready(slot);
        pins.push_back(slot);
      } else if (!pins.empty()) {
        const size_t at = random() % pins.size();
        cache.unpin(pins[at]);
        pins.erase(pins.begin() + static_cast<ptrdiff_t>(at));
      }
      int64_t rows = 0;
      int64_t pinned = 0;
      for (const EncoderEntryState& entry : cache.entries()) {
        EXPECT_EQ(entry.pins, std::ranges::count(pins, entry.slot));
        EXPECT_TRUE(entry.ready || entry.pins > 0);
        rows += entry.rows;
        pinned += entry.pins > 0 ? entry.rows : 0;
      }
      ASSERT_EQ(rows, cache.rows());
      ASSERT_EQ(pinned, cache.pinned_rows());
      ASSERT_LE(rows, capacity);
    }
  }
}

}  // namespace
}  // namespace mmcore
