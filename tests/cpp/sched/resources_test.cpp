#include "sched/resources.h"

#include <gtest/gtest.h>

#include <memory>

#include "sched/scheduler_world.h"

namespace mmcore {
namespace {

using testing::world_item;
using Limit = Resources::MediaLimit;

constexpr int64_t kRows = 6;  // of the encoder cache

class ResourcesTest : public ::testing::Test {
 protected:
  ResourcesTest()
      : resources({.num_blocks = 30, .block_size = 4, .hash_key = HashKey::from_seed(1)}, kRows) {}

  Sequence& make(std::vector<MediaItem> media) {
    Request request;
    request.prompt_token_ids.assign(20, 3);
    request.media = std::move(media);
    const RequestId id = sequences.size() + 1;
    sequences.push_back(
        std::make_unique<Sequence>(id, std::move(request), 4, 100, std::span<const TokenId>()));
    return *sequences.back();
  }
  // Runs the first `end` tokens of a sequence in one step.
  Resources::Encoded run(Sequence& sequence, int64_t end) {
    resources.pin_media(sequence, sequence.computed, end);
    resources.grow(sequence, end);
    const Resources::Encoded encoded = resources.commit_step();
    resources.commit(sequence, end);
    return encoded;
  }

  Resources resources;
  std::vector<std::unique_ptr<Sequence>> sequences;
};

TEST_F(ResourcesTest, a_chunk_reaches_the_first_item_that_does_not_fit) {
  Sequence& s = make({world_item(2, 3, 1), world_item(8, 4, 2)});
  const auto reach = [&](int64_t begin, int64_t end, int64_t rows, bool closed = false) {
    const Resources::MediaReach r = resources.media_reach(s, begin, end, rows, closed);
    return std::tuple(r.end, r.encode_rows, r.limit);
  };
  EXPECT_EQ(reach(0, 2, 0), std::tuple(2, 0, Limit::kNone));
  EXPECT_EQ(reach(0, 7, 3), std::tuple(7, 3, Limit::kNone));
  EXPECT_EQ(reach(0, 7, 2), std::tuple(2, 0, Limit::kBudget));
  EXPECT_EQ(reach(3, 7, 2), std::tuple(3, 0, Limit::kBudget)) << "never behind the begin";
  EXPECT_EQ(reach(0, 20, 99), std::tuple(8, 3, Limit::kCapacity)) << "seven rows at once";
  EXPECT_EQ(reach(0, 20, 99, true), std::tuple(2, 0, Limit::kCapacity));
  EXPECT_EQ(reach(12, 20, 0, true), std::tuple(20, 0, Limit::kNone));
}

TEST_F(ResourcesTest, tokens_under_a_zero_of_the_mask_need_no_encoder) {
  Sequence& s = make({world_item(2, 4, 1, {0, 0, 1, 1})});
  EXPECT_EQ(resources.media_reach(s, 0, 4, 0, true).end, 4);
  EXPECT_EQ(resources.media_reach(s, 0, 5, 0, false).end, 2);
  EXPECT_EQ(run(s, 4).encoded, 0);
  EXPECT_EQ(run(s, 5).encoded, 1);
}

TEST_F(ResourcesTest, what_is_there_is_pinned_before_room_is_made_for_more) {
  Sequence& first = make({world_item(1, 3, 1)});
  Sequence& second = make({world_item(1, 3, 2)});
  run(first, 10);
  run(second, 10);
  // Both are idle; item 1 is the older one. Item 3 must evict item 2 and not item 1.
  Sequence& third = make({world_item(1, 3, 3), world_item(6, 3, 1)});
  EXPECT_EQ(resources.media_reach(third, 0, 10, 3, false).encode_rows, 3);
  const Resources::Encoded encoded = run(third, 10);
  EXPECT_EQ(encoded.encoded, 1);
  EXPECT_EQ(encoded.reused, 1);
}

TEST_F(ResourcesTest, an_item_twice_in_one_prompt_is_encoded_once) {
  Sequence& s = make({world_item(1, 3, 1), world_item(6, 3, 1)});
  const Resources::Encoded encoded = run(s, 10);
  EXPECT_EQ(encoded.encoded, 1);
  EXPECT_EQ(encoded.reused, 1);
  EXPECT_EQ(resources.encoder().size(), 1);
  EXPECT_EQ(resources.encoder().num_pinned(), 0);
}

TEST_F(ResourcesTest, evictions_are_named_until_a_step_commits) {
  Sequence& first = make({world_item(1, 4, 1)});
  run(first, 10);
  Sequence& second = make({world_item(1, 4, 2)});
  resources.pin_media(second, 0, 10);
  EXPECT_EQ(resources.encoder().evicted().size(), 1u);
  resources.rollback_step();
  EXPECT_EQ(resources.encoder().evicted().size(), 2u) << "and the entry of the failed step";
  run(second, 10);
  EXPECT_TRUE(resources.encoder().evicted().empty());
}

TEST_F(ResourcesTest, the_cost_of_a_hit_is_what_leaves_the_free_list) {
  Sequence& first = make({});
  run(first, 16);
  Sequence& second = make({});
  EXPECT_EQ(resources.match(second, 14), 16);
  EXPECT_EQ(resources.adoption_cost(12), 0) << "the blocks are in use anyway";
  EXPECT_EQ(resources.adoption_cost(14), 1) << "the copy";
  resources.release(first);
  EXPECT_EQ(resources.adoption_cost(12), 3);
  EXPECT_EQ(resources.adoption_cost(14), 5) << "four blocks and the copy";
  const int32_t free = resources.kv().pool().num_free();
  resources.adopt(second, 14);
  EXPECT_EQ(resources.kv().pool().num_free(), free - 5);
  resources.rollback_step();
  resources.truncate(second, 0);
  EXPECT_EQ(resources.kv().pool().num_free(), free);
}

}  // namespace
}  // namespace mmcore
