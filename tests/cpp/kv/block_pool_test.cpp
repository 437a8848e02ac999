#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include "mmcore/status.h"

namespace mmcore {
namespace {

using Blocks = std::vector<BlockId>;

void expect_sound(const BlockPool& pool) {
  for (const std::string& violation : pool.violations()) ADD_FAILURE() << violation;
}

TEST(BlockPool, hands_every_block_out_but_the_null_block) {
  BlockPool pool(5);
  EXPECT_EQ(pool.num_usable(), 4);
  Blocks taken;
  while (pool.num_free() > 0) taken.push_back(pool.allocate());
  EXPECT_EQ(taken, (Blocks{1, 2, 3, 4}));
  EXPECT_THROW(pool.allocate(), InternalError);
  expect_sound(pool);
}

TEST(BlockPool, a_block_is_free_when_its_last_reference_goes) {
  BlockPool pool(3);
  const BlockId block = pool.allocate();
  pool.ref(block);
  pool.unref(block);
  EXPECT_EQ(pool.num_used(), 1);
  pool.unref(block);
  EXPECT_EQ(pool.num_used(), 0);
  EXPECT_THROW(pool.unref(block), InternalError);
}

TEST(BlockPool, takes_unhashed_blocks_first_then_the_least_recently_used) {
  BlockPool pool(6);
  for (int i = 0; i < 5; ++i) pool.allocate();
  for (const BlockId b : {1, 2, 3}) pool.set_hashed(b, true);
  for (const BlockId b : {3, 4, 1, 5, 2}) pool.unref(b);
  EXPECT_EQ(pool.free_list(), (Blocks{5, 4, 3, 1, 2}));
  EXPECT_EQ(pool.num_free_hashed(), 3);
  pool.ref(3);  // a prefix hit
  EXPECT_EQ(pool.free_list(), (Blocks{5, 4, 1, 2}));
  pool.unref(3);
  EXPECT_EQ(pool.free_list(), (Blocks{5, 4, 1, 2, 3}));
  expect_sound(pool);
}

TEST(BlockPool, a_free_block_that_loses_its_hash_is_taken_next) {
  BlockPool pool(4);
  for (int i = 0; i < 3; ++i) pool.set_hashed(pool.allocate(), true);
  for (const BlockId b : {1, 2, 3}) pool.unref(b);
  EXPECT_THROW(pool.allocate(), InternalError) << "the index still holds block 1";
  pool.set_hashed(2, false);
  EXPECT_EQ(pool.free_list(), (Blocks{2, 1, 3}));
  EXPECT_EQ(pool.allocate(), 2);
  expect_sound(pool);
}

TEST(BlockPool, refuses_ids_that_are_no_blocks) {
  BlockPool pool(3);
  for (const BlockId bad : {-1, 0, 3}) {
    EXPECT_THROW(pool.ref(bad), InternalError) << bad;
    EXPECT_THROW(pool.unref(bad), InternalError) << bad;
    EXPECT_THROW(pool.set_hashed(bad, true), InternalError) << bad;
  }
}

TEST(BlockPool, counts_frees) {
  BlockPool pool(3);
  const BlockId block = pool.allocate();
  EXPECT_EQ(pool.frees(), 0u);
  pool.ref(block);
  pool.unref(block);
  EXPECT_EQ(pool.frees(), 0u);
  pool.unref(block);
  EXPECT_EQ(pool.frees(), 1u);
}

}  // namespace
}  // namespace mmcore
