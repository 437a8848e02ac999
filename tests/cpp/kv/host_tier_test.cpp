// The two tiers together: what the pool gives up is found in the host tier, under the same node.
#include "kv/host_tier.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kv/kv_cache.h"
#include "mmcore/status.h"

namespace mmcore {
namespace {

constexpr int32_t kSize = 4;

KvCache make_cache(int32_t usable, int32_t host) {
  return KvCache({.num_blocks = usable + 1,
                  .block_size = kSize,
                  .num_host_blocks = host,
                  .hash_key = HashKey::from_seed(1)});
}

// A sequence without an engine: tokens first, first + 1, ...
struct Owner {
  explicit Owner(int32_t count, TokenId first = 100, std::string salt = "", uint64_t lora = 0,
                 std::vector<MediaItem> media = {})
      : tokens(static_cast<size_t>(count)),
        chain(kSize, SpanMap(std::move(media)), std::move(salt), lora) {
    std::iota(tokens.begin(), tokens.end(), first);
  }
  KvCache::TableView view(int64_t computed) const {
    return {.owner = 1, .table = &table, .chain = &chain, .tokens = tokens, .computed = computed};
  }
  void compute(KvCache& cache) {
    cache.grow(table, cache.blocks_for(std::ssize(tokens)));
    cache.publish(table, chain, tokens, std::ssize(tokens));
  }
  // What the cache knows of it, on the device and behind that in the host tier.
  std::pair<int64_t, int64_t> known(const KvCache& cache) {
    cache.match(chain, tokens, 1000, hits);
    cache.match_host(chain, tokens, 1000, hits, host_hits);
    return {std::ssize(hits), std::ssize(host_hits)};
  }
  void enter(KvCache& cache, bool partly = false) {
    known(cache);
    cache.adopt(table, hits);
    if (!host_hits.empty()) cache.append_loaded(table, host_hits, partly);
  }

  std::vector<TokenId> tokens;
  KeyChain chain;
  BlockTable table;
  std::vector<BlockId> hits;
  std::vector<BlockId> host_hits;
};

using Known = std::pair<int64_t, int64_t>;

void expect_sound(const KvCache& cache, std::vector<KvCache::TableView> tables = {}) {
  for (const std::string& violation : cache.violations(tables)) ADD_FAILURE() << violation;
}

// Computes something else in all of the pool.
void displace(KvCache& cache, TokenId first = 5000) {
  Owner other(cache.pool().num_usable() * kSize, first);
  other.compute(cache);
  cache.commit_step();
  cache.release(other.table);
}

TEST(HostTier, what_is_evicted_is_found_and_loaded_under_its_node) {
  KvCache cache = make_cache(4, 8);
  Owner first(12);
  first.compute(cache);
  const NodeId node = first.table.node();
  cache.release(first.table);
  displace(cache);
  EXPECT_EQ(first.known(cache), Known(0, 3));
  expect_sound(cache);
  Owner second(12);
  second.enter(cache);
  EXPECT_EQ(second.table.published(), 3);
  EXPECT_EQ(second.table.node(), node);
  ASSERT_EQ(cache.host().loads().size(), 3u);
  for (int32_t i = 0; i < 3; ++i) EXPECT_EQ(cache.host().loads()[size_t(i)].block, second.table[i]);
  expect_sound(cache, {second.view(12)});
  cache.commit_step();
  EXPECT_EQ(first.known(cache), Known(3, 0));
  cache.release(second.table);
  // What came back is evicted again without being saved again.
  displace(cache, 5000);
  EXPECT_EQ(first.known(cache), Known(0, 3));
  expect_sound(cache);
}

TEST(HostTier, only_the_same_content_is_found) {
  KvCache cache = make_cache(8, 32);
  const auto item = [](uint8_t id, int32_t offset) {
    MediaItem made{.offset = offset, .length = 2};
    made.id.bytes[0] = id;
    return made;
  };
  Owner picture(12, 100, "a", 7, {item(1, 5)});
  picture.compute(cache);
  cache.release(picture.table);
  displace(cache);
  EXPECT_EQ(picture.known(cache), Known(0, 3));
  EXPECT_EQ(Owner(12, 100, "b", 7, {item(1, 5)}).known(cache), Known(0, 0));
  EXPECT_EQ(Owner(12, 100, "a", 8, {item(1, 5)}).known(cache), Known(0, 0));
  EXPECT_EQ(Owner(12, 100, "a", 7, {item(2, 5)}).known(cache), Known(0, 1));
  EXPECT_EQ(Owner(12, 100, "a", 7, {item(1, 4)}).known(cache), Known(0, 1));
  EXPECT_EQ(Owner(12, 100, "a", 7).known(cache), Known(0, 1));
  EXPECT_EQ(Owner(12, 101, "a", 7, {item(1, 5)}).known(cache), Known(0, 0));
}

TEST(HostTier, a_parent_that_is_computed_again_has_the_node_that_its_children_know) {
  KvCache cache = make_cache(4, 8);
  Owner first(12);
  first.compute(cache);
  cache.release(first.table);
  displace(cache);
  Owner beginning(4);  // is computed without being looked up
  beginning.compute(cache);
  cache.commit_step();
  expect_sound(cache, {beginning.view(4)});
  EXPECT_EQ(first.known(cache), Known(1, 2));
}

TEST(HostTier, children_of_a_content_that_both_tiers_lost_are_not_found) {
  KvCache cache = make_cache(4, 3);
  Owner first(12);
  first.compute(cache);
  cache.release(first.table);
  displace(cache, 5000);  // saved: the end first, so that the beginning is the newest
  EXPECT_EQ(first.known(cache), Known(0, 3));
  Owner second(4, 9000);
  second.compute(cache);  // takes a block, whose content takes the end's place in the host tier
  cache.commit_step();
  cache.release(second.table);
  EXPECT_EQ(first.known(cache), Known(0, 2));
  expect_sound(cache);
}

TEST(HostTier, a_failed_step_leaves_neither_what_it_saved_nor_what_it_loaded) {
  KvCache cache = make_cache(4, 8);
  Owner first(12);
  first.compute(cache);
  cache.release(first.table);
  displace(cache);
  const int64_t held = cache.host().index().size();
  Owner second(16);
  second.enter(cache);  // evicts, and saves what the host tier does not have yet
  cache.grow(second.table, 4);
  EXPECT_EQ(cache.host().loads().size(), 3u);
  EXPECT_GT(cache.host().saves().size(), 0u);
  EXPECT_THROW(cache.rollback_step(/*ran=*/true), InternalError)
      << "a table still holds what was loaded";
  cache.release(second.table);
  cache.rollback_step(/*ran=*/true);
  EXPECT_EQ(cache.host().index().size(), held);
  EXPECT_EQ(first.known(cache), Known(0, 3)) << "what was there before stays";
  EXPECT_EQ(cache.index().size(), 0);
  expect_sound(cache);
}

TEST(HostTier, what_is_loaded_or_saved_in_a_step_is_not_taken_in_it) {
  KvCache cache = make_cache(4, 3);
  Owner first(12);
  first.compute(cache);
  cache.release(first.table);
  displace(cache);
  Owner second(12);
  second.enter(cache);  // all host blocks are pinned: what is evicted is lost
  EXPECT_EQ(cache.host().saves().size(), 0u);
  EXPECT_EQ(cache.host().loads().size(), 3u);
  expect_sound(cache, {second.view(12)});
  cache.commit_step();
  expect_sound(cache, {second.view(12)});
}

TEST(HostTier, a_step_that_evicts_more_than_the_tier_holds_keeps_the_beginnings) {
  KvCache cache = make_cache(6, 2);
  Owner first(24);
  first.compute(cache);
  cache.release(first.table);
  displace(cache);  // six evictions in one step
  EXPECT_EQ(first.known(cache), Known(0, 2));
  EXPECT_EQ(cache.host().evictions(), 4u);
  expect_sound(cache);
}

TEST(HostTier, a_block_that_is_used_partly_is_loaded_into_a_private_one) {
  KvCache cache = make_cache(4, 8);
  Owner first(12);
  first.compute(cache);
  cache.release(first.table);
  displace(cache);
  Owner second(12);
  second.enter(cache, /*partly=*/true);
  EXPECT_EQ(second.table.size(), 3);
  EXPECT_EQ(second.table.published(), 2);
  expect_sound(cache, {second.view(11)});
  cache.commit_step();
  cache.publish(second.table, second.chain, second.tokens, 12);
  expect_sound(cache, {second.view(12)});
  cache.release(second.table);
  cache.rollback_step(/*ran=*/true);  // nothing is pending
  EXPECT_EQ(first.known(cache), Known(3, 0));
}

TEST(HostTier, clear_forgets_both_tiers) {
  KvCache cache = make_cache(4, 8);
  Owner first(12);
  first.compute(cache);
  cache.release(first.table);
  Owner other(16, 5000);
  other.compute(cache);  // its saves are still pending
  cache.release(other.table);
  cache.clear();
  EXPECT_EQ(first.known(cache), Known(0, 0));
  EXPECT_EQ(cache.host().index().size(), 0);
  EXPECT_EQ(cache.host().pool().num_used(), 0);
  EXPECT_TRUE(cache.host().saves().empty());
  expect_sound(cache);
}

TEST(HostTier, without_blocks_it_keeps_nothing) {
  KvCache cache = make_cache(4, 0);
  Owner first(12);
  first.compute(cache);
  cache.release(first.table);
  displace(cache);
  EXPECT_EQ(first.known(cache), Known(0, 0));
  EXPECT_FALSE(cache.host().enabled());
  expect_sound(cache);
}

TEST(HostTier, reports_a_pin_that_no_transfer_explains) {
  HostTier tier(4, kSize);
  const std::vector<TokenId> tokens = {1, 2, 3, 4};
  tier.save(1, {.hash = 5, .tokens = tokens}, 17);
  EXPECT_EQ(tier.violations(), std::vector<std::string>());
  tier.pin(1);
  ASSERT_EQ(tier.violations().size(), 1u);
  EXPECT_NE(tier.violations()[0].find("kv.host_pin"), std::string::npos);
  EXPECT_THROW(tier.save(2, {.hash = 5, .tokens = tokens}, 18), InternalError)
      << "one content, two nodes";
}

}  // namespace
}  // namespace mmcore
