#include "kv/kv_cache.h"

#include <gtest/gtest.h>

#include <numeric>

#include "mmcore/status.h"

namespace mmcore {
namespace {

constexpr int32_t kSize = 4;

KvCache make_cache(int32_t blocks, bool prefix_caching = true) {
  return KvCache({.num_blocks = blocks,
                  .block_size = kSize,
                  .prefix_caching = prefix_caching,
                  .hash_key = HashKey::from_seed(1)});
}

// A sequence without an engine: tokens first, first + 1, ...
struct Owner {
  explicit Owner(int32_t count, TokenId first = 100, std::string salt = "")
      : tokens(static_cast<size_t>(count)), chain(kSize, SpanMap(), std::move(salt), 0) {
    std::iota(tokens.begin(), tokens.end(), first);
  }
  KvCache::TableView view(int64_t computed) const {
    return {.owner = 1, .table = &table, .chain = &chain, .tokens = tokens, .computed = computed};
  }
  void compute(KvCache& cache, int64_t computed) {
    cache.grow(table, cache.blocks_for(computed));
    cache.publish(table, chain, tokens, computed);
  }
  std::vector<BlockId> hits(KvCache& cache, int64_t max_blocks = 1000) {
    std::vector<BlockId> found;
    cache.match(chain, tokens, max_blocks, found);
    return found;
  }
  std::vector<BlockId> blocks() const { return {table.blocks().begin(), table.blocks().end()}; }

  std::vector<TokenId> tokens;
  KeyChain chain;
  BlockTable table;
};

void expect_sound(const KvCache& cache, std::vector<KvCache::TableView> tables) {
  for (const std::string& violation : cache.violations(tables)) ADD_FAILURE() << violation;
}

TEST(KvCache, full_blocks_are_found_after_their_sequence_ended) {
  KvCache cache = make_cache(10);
  Owner first(10);
  first.compute(cache, 10);
  EXPECT_EQ(first.table.published(), 2);
  const std::vector<BlockId> full = {first.table[0], first.table[1]};
  expect_sound(cache, {first.view(10)});
  cache.release(first.table);
  Owner second(10);
  EXPECT_EQ(second.hits(cache), full);
  EXPECT_EQ(second.hits(cache, 1), std::vector<BlockId>{full[0]});
  cache.adopt(second.table, full);
  expect_sound(cache, {second.view(8)});
  EXPECT_TRUE(Owner(10, 101).hits(cache).empty());
  EXPECT_TRUE(Owner(10, 100, "salt").hits(cache).empty());
}

TEST(KvCache, one_content_has_one_block_however_often_it_is_computed) {
  KvCache cache = make_cache(10);
  Owner first(9);
  Owner second(9);
  first.compute(cache, 9);
  second.compute(cache, 3);
  const BlockId own = second.table[0];
  const uint64_t version = second.table.version();
  second.compute(cache, 9);
  EXPECT_EQ(second.table[0], first.table[0]);
  EXPECT_EQ(second.table[1], first.table[1]);
  EXPECT_NE(second.table[2], first.table[2]);
  EXPECT_NE(second.table.version(), version) << "readers must copy the row anew";
  EXPECT_EQ(cache.pool().refs(own), 0);
  EXPECT_EQ(cache.pool().num_used(), 4);
  expect_sound(cache, {first.view(9), second.view(9)});
}

TEST(KvCache, evicts_the_deepest_block_of_the_sequence_that_ended_first) {
  KvCache cache = make_cache(6);
  Owner first(8, 100);
  Owner second(8, 200);
  first.compute(cache, 8);
  second.compute(cache, 8);
  cache.release(first.table);
  cache.release(second.table);
  Owner third(8, 300);
  cache.grow(third.table, 2);  // one block was never used, one is taken from `first`
  EXPECT_EQ(cache.evictions(), 1u);
  EXPECT_EQ(first.hits(cache).size(), 1u);
  EXPECT_EQ(second.hits(cache).size(), 2u);
  cache.grow(third.table, 3);
  EXPECT_EQ(first.hits(cache).size(), 0u);
  expect_sound(cache, {third.view(12)});
}

TEST(KvCache, a_partly_used_hit_is_copied_and_its_source_kept_until_the_copy_ran) {
  KvCache cache = make_cache(4);
  Owner first(8);
  first.compute(cache, 8);
  cache.release(first.table);
  Owner second(8);
  const std::vector<BlockId> hits = second.hits(cache);
  ASSERT_EQ(hits.size(), 2u);
  cache.adopt(second.table, std::span(hits).first(1));
  const BlockCopy copy = cache.append_copy(second.table, hits[1]);
  EXPECT_EQ(copy.src, hits[1]);
  EXPECT_EQ(copy.dst, second.table[1]);
  EXPECT_EQ(cache.pool().num_free(), 0) << "the source must not be taken meanwhile";
  cache.finish_copy(copy);
  EXPECT_EQ(cache.pool().num_free(), 1);
  expect_sound(cache, {second.view(7)});
  // Its eighth token makes it the same content as the source again.
  cache.publish(second.table, second.chain, second.tokens, 8);
  EXPECT_EQ(second.blocks(), hits);
  expect_sound(cache, {second.view(8)});
}

TEST(KvCache, a_copy_never_evicts_its_own_source) {
  KvCache cache = make_cache(4);
  Owner first(8);
  Owner newer(4, 500);
  first.compute(cache, 8);
  newer.compute(cache, 4);
  cache.release(first.table);
  cache.release(newer.table);
  Owner second(8);
  const std::vector<BlockId> hits = second.hits(cache);
  cache.adopt(second.table, std::span(hits).first(1));
  ASSERT_EQ(cache.pool().peek(), hits[1]) << "the source would be the next to go";
  const BlockCopy copy = cache.append_copy(second.table, hits[1]);
  EXPECT_EQ(copy.src, hits[1]);
  EXPECT_NE(copy.dst, hits[1]);
  EXPECT_TRUE(cache.index().contains(hits[1]));
  EXPECT_TRUE(newer.hits(cache).empty());
  cache.finish_copy(copy);
  expect_sound(cache, {second.view(7)});
}

TEST(KvCache, a_fork_shares_full_blocks_and_copies_the_tail) {
  for (const bool caching : {true, false}) {
    KvCache cache({.num_blocks = 10,
                   .block_size = kSize,
                   .prefix_caching = caching,
                   .hash_key = HashKey::from_seed(1)});
    Owner parent(10);
    parent.compute(cache, 6);
    Owner child(10);
    child.tokens[7] = 1;
    cache.share(parent.table, child.table, 1);
    const BlockCopy copy = cache.append_copy(child.table, parent.table[1]);
    EXPECT_EQ(copy.src, parent.table[1]);
    EXPECT_EQ(copy.dst, child.table[1]);
    EXPECT_EQ(cache.pool().refs(copy.src), 2) << "table and copy";
    EXPECT_NE(child.table.version(), parent.table.version());
    EXPECT_EQ(child.table.published(), caching ? 1 : 0);
    EXPECT_EQ(child.table.node(), parent.table.node());
    cache.finish_copy(copy);
    expect_sound(cache, {parent.view(6), child.view(6)});
    parent.compute(cache, 10);
    child.compute(cache, 10);
    EXPECT_EQ(parent.table[0], child.table[0]);
    EXPECT_NE(parent.table[1], child.table[1]);
    expect_sound(cache, {parent.view(10), child.view(10)});
  }
}

TEST(KvCache, a_shared_tail_that_would_be_written_is_reported) {
  KvCache cache = make_cache(10);
  Owner parent(10);
  parent.compute(cache, 6);
  Owner child(10);
  cache.share(parent.table, child.table, 2);
  EXPECT_EQ(cache.violations(std::vector{parent.view(6), child.view(6)}).size(), 2u);
}

TEST(KvCache, content_that_a_step_in_flight_fills_is_not_taken_from_it) {
  KvCache cache = make_cache(10);
  Owner first(8);
  Owner second(8);
  KvStep older;
  KvStep newer;
  cache.grow(first.table, 2);
  cache.launch(older);
  cache.grow(second.table, 2);
  cache.publish_ahead(second.table, second.chain, second.tokens, 8);
  cache.launch(newer);
  const std::vector<BlockId> own = first.blocks();
  cache.recall(older);
  cache.commit_step();
  cache.publish(first.table, first.chain, first.tokens, 8);
  EXPECT_EQ(first.blocks(), own) << "the newer step may still fail";
  EXPECT_EQ(first.table.published(), 0);
  // It does fail; what the older one has computed is published with the next commit.
  cache.recall(newer);
  cache.unpublish(second.table, 0);
  cache.release(second.table);
  cache.rollback_step(/*ran=*/true);
  cache.publish(first.table, first.chain, first.tokens, 8);
  EXPECT_EQ(first.table.published(), 2);
  EXPECT_EQ(first.hits(cache), own);
  expect_sound(cache, {first.view(8)});
}

TEST(KvCache, what_was_published_ahead_is_found_and_can_be_taken_back) {
  KvCache cache = make_cache(10);
  Owner owner(12);
  owner.compute(cache, 5);
  const uint64_t last = cache.index().insertions();
  const NodeId node = owner.table.node();
  cache.grow(owner.table, 3);
  cache.publish_ahead(owner.table, owner.chain, owner.tokens, 11);
  EXPECT_EQ(owner.table.published(), 2) << "the third block does not fill up";
  EXPECT_EQ(owner.hits(cache).size(), 2u);
  EXPECT_FALSE(cache.newer_than(owner.table[0], last));
  EXPECT_TRUE(cache.newer_than(owner.table[1], last));
  Owner other(12);
  cache.adopt(other.table, owner.hits(cache));
  EXPECT_THROW(cache.unpublish(owner.table, 1), InternalError) << "somebody else holds it";
  cache.release(other.table);
  cache.unpublish(owner.table, 1);
  EXPECT_EQ(owner.hits(cache).size(), 1u);
  EXPECT_EQ(owner.table.node(), node);
  cache.truncate(owner.table, 2);
  expect_sound(cache, {owner.view(5)});
}

TEST(KvCache, content_that_is_cached_already_is_not_published_ahead) {
  KvCache cache = make_cache(10);
  Owner first(8);
  first.compute(cache, 8);
  Owner second(8);
  cache.grow(second.table, 2);
  cache.publish_ahead(second.table, second.chain, second.tokens, 8);
  EXPECT_EQ(second.table.published(), 0) << "its blocks are about to be written";
  cache.publish(second.table, second.chain, second.tokens, 8);
  EXPECT_EQ(second.blocks(), first.blocks());
  expect_sound(cache, {first.view(8), second.view(8)});
}

TEST(KvCache, truncate_gives_the_newest_blocks_back) {
  KvCache cache = make_cache(10);
  Owner owner(12);
  owner.compute(cache, 9);
  cache.grow(owner.table, 5);
  cache.truncate(owner.table, 3);
  expect_sound(cache, {owner.view(9)});
  cache.truncate(owner.table, 1);
  EXPECT_EQ(owner.table.published(), 1);
  expect_sound(cache, {owner.view(4)});
  owner.compute(cache, 12);
  expect_sound(cache, {owner.view(12)});
}

TEST(KvCache, without_prefix_caching_nothing_is_found) {
  KvCache cache = make_cache(10, /*prefix_caching=*/false);
  Owner first(8);
  first.compute(cache, 8);
  EXPECT_EQ(first.table.published(), 0);
  cache.release(first.table);
  EXPECT_TRUE(Owner(8).hits(cache).empty());
  EXPECT_EQ(cache.pool().num_free_hashed(), 0);
  cache.clear();
  expect_sound(cache, {});
}

TEST(KvCache, clear_forgets_every_prefix) {
  KvCache cache = make_cache(10);
  Owner owner(8);
  owner.compute(cache, 8);
  EXPECT_THROW(cache.clear(), InternalError) << "a table uses cached blocks";
  cache.release(owner.table);
  cache.clear();
  EXPECT_TRUE(owner.hits(cache).empty());
  EXPECT_EQ(cache.pool().num_free_hashed(), 0);
  expect_sound(cache, {});
}

// One broken table for each thing that violations() looks at.
TEST(KvCache, violations_name_what_is_wrong) {
  KvCache cache = make_cache(10);
  Owner a(10);
  a.compute(cache, 10);
  const auto reports = [&](std::vector<KvCache::TableView> tables, const std::string& id) {
    const std::vector<std::string> found = cache.violations(tables);
    for (const std::string& line : found)
      if (line.starts_with(id)) return true;
    return false;
  };
  EXPECT_FALSE(reports({a.view(10)}, ""));
  EXPECT_TRUE(reports({}, "kv.refcount")) << "a table is missing";
  EXPECT_TRUE(reports({a.view(10), a.view(10)}, "kv.refcount")) << "a table too many";
  EXPECT_TRUE(reports({a.view(6)}, "kv.table")) << "too many blocks";
  EXPECT_TRUE(reports({a.view(13)}, "kv.table")) << "too few blocks";
  EXPECT_TRUE(reports({a.view(7)}, "kv.write")) << "block 1 is published";
  Owner other = a;
  other.tokens[5] = 0;
  EXPECT_TRUE(reports({other.view(10)}, "kv.exact")) << "tokens differ from what is stored";
  other = a;
  other.chain = KeyChain(kSize, SpanMap(), "salt", 0);
  EXPECT_TRUE(reports({other.view(10)}, "kv.exact")) << "the salt differs";
  cache.share(a.table, other.table = BlockTable(), a.table.size());
  EXPECT_TRUE(reports({a.view(10), other.view(10)}, "kv.salt"));
}

}  // namespace
}  // namespace mmcore
