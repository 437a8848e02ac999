#include "sched/scheduler.h"

#include <gtest/gtest.h>

#include "sched/scheduler_world.h"

namespace mmcore {
namespace {

using testing::SchedulerWorld;
using testing::world_config;
using testing::world_item;

TEST(Scheduler, shares_the_budget_by_decodes_then_running_prefills_then_the_queue) {
  SchedulerWorld world(world_config());
  world.add(4);
  world.add(30);
  EXPECT_EQ(world.step(), "1:4 2:12");
  world.add(40);
  EXPECT_EQ(world.step(), "1:1 2:15");
  EXPECT_EQ(world.step(), "1:1 2:3 3:12");
  EXPECT_EQ(world.step(), "1:1 2:1 3:14");
  EXPECT_EQ(world.step(), "1:1 2:1 3:14");
  EXPECT_EQ(world.step(), "1:1 2:1 3:1");
}

TEST(Scheduler, limits_chunks_and_sequences) {
  EngineConfig config = world_config();
  config.max_prefill_chunk = 5;
  config.max_num_seqs = 2;
  SchedulerWorld world(config);
  for (int i = 0; i < 3; ++i) world.add(7);
  EXPECT_EQ(world.step(), "1:5 2:5");
  EXPECT_EQ(world.step(), "1:2 2:2");
  EXPECT_EQ(world.waiting(), "3 ");
}

TEST(Scheduler, without_chunks_a_prompt_waits_until_it_fits_whole) {
  EngineConfig config = world_config();
  config.enable_chunked_prefill = false;
  config.max_model_len = 16;
  SchedulerWorld world(config);
  world.add(10);
  world.add(10);
  world.add(2);
  EXPECT_EQ(world.step(), "1:10") << "the third does not pass the second";
  EXPECT_EQ(world.step(), "1:1 2:10 3:2");
}

// invariant: sched.fcfs
TEST(Scheduler, nobody_overtakes_a_head_of_line_that_lacks_memory) {
  EngineConfig config = world_config();
  config.num_blocks = 11;
  SchedulerWorld world(config);
  world.add(16);
  world.step();
  world.add(23);  // 6 blocks, and one for each that runs: 6 of 6 are free
  world.add(1);
  EXPECT_EQ(world.step(), "1:1");
  EXPECT_EQ(world.waiting(), "2 3 ");
  world.scheduler.remove(world.scheduler.running()[0]);
  EXPECT_EQ(world.step(), "2:16");
}

TEST(Scheduler, priority_comes_before_arrival) {
  EngineConfig config = world_config();
  config.policy = SchedulingPolicy::kPriority;
  config.max_num_seqs = 2;
  SchedulerWorld world(config);
  world.add(2, -1, {}, 1);
  world.add(2, -1, {}, 0);
  world.add(2, -1, {}, 0);
  EXPECT_EQ(world.step(), "2:2 3:2");
  EXPECT_EQ(world.running(), "2 3 ");
  world.add(2, -1, {}, -1);
  world.scheduler.remove(world.scheduler.running()[0]);
  EXPECT_EQ(world.step(), "3:1 4:2");
  EXPECT_EQ(world.running(), "4 3 ");
}

// Three sequences of three blocks grow in a pool of twelve.
class Crowded : public ::testing::Test {
 protected:
  static EngineConfig config() {
    EngineConfig c = world_config();
    c.num_blocks = 13;
    c.headroom = 0;
    c.enable_prefix_caching = false;
    return c;
  }
  Crowded() : world(config()) {
    for (Sequence*& s : sequences) s = world.add(11);  // three blocks each, one token to spare
    while (world.scheduler.running().size() < 3) world.step();
    while (sequences[2]->computed < 12) world.step();
  }
  SchedulerWorld world;
  Sequence* sequences[3];
};

TEST_F(Crowded, the_youngest_gives_its_memory_to_an_older_one) {
  while (world.scheduler.preemptions() == 0) world.step();
  EXPECT_EQ(world.running(), "1 2 ");
  EXPECT_EQ(world.waiting(), "3 ");
  EXPECT_EQ(sequences[2]->num_preemptions, 1);
  EXPECT_EQ(sequences[2]->computed, 0);
  EXPECT_EQ(sequences[2]->table.size(), 0);
}

TEST_F(Crowded, a_preempted_sequence_returns_to_its_old_place) {
  world.add(1);
  while (world.scheduler.preemptions() == 0) world.step();
  EXPECT_EQ(world.waiting(), "3 4 ");
  world.scheduler.remove(sequences[0]);
  world.step();
  EXPECT_EQ(world.running(), "2 3 ");
  world.step();
  EXPECT_EQ(world.running(), "2 3 4 ");
}

TEST_F(Crowded, the_youngest_waits_and_never_takes_from_an_older_one) {
  // All of the pool but one block is the older ones'.
  while (world.free_blocks() > 0) {
    sequences[0]->tokens.insert(sequences[0]->tokens.end(), 3, 5);
    world.step();
    if (world.scheduler.preemptions() > 0) break;
  }
  const uint64_t before = world.scheduler.preemptions();
  const int32_t oldest = sequences[0]->computed;
  for (int i = 0; i < 8; ++i) world.step();
  EXPECT_GE(sequences[0]->computed, oldest + 8) << "the oldest always goes on";
  EXPECT_EQ(sequences[0]->num_preemptions, 0);
  EXPECT_LE(world.scheduler.preemptions(), before + 2);
}

TEST_F(Crowded, what_was_selected_for_a_victim_is_taken_back) {
  // The oldest is made a prefill again, so that decodes of the younger are
  // selected before it.
  sequences[0]->tokens.insert(sequences[0]->tokens.end(), 14, 5);
  const std::string selected = world.select();
  EXPECT_EQ(selected.find("3:"), std::string::npos) << selected;
  EXPECT_EQ(world.running(), "1 2 ");
  world.commit();
  EXPECT_EQ(world.scheduler.resources().kv().pool().violations(), std::vector<std::string>());
}

TEST(Scheduler, the_exhausted_encoder_budget_stops_a_chunk_and_nobody_else) {
  EngineConfig config = world_config();
  config.max_num_batched_tokens = 100;
  config.encoder_budget = 4;
  SchedulerWorld world(config);
  world.add(12, -1, {world_item(2, 4, 1), world_item(8, 3, 2)});
  world.add(10, -1, {world_item(5, 2, 3)});
  world.add(6);
  EXPECT_EQ(world.step(), "1:8 2:5 3:6");
  EXPECT_EQ(world.step(), "3:1 1:4") << "three of four rows are taken, the second needs two";
  EXPECT_EQ(world.step(), "1:1 3:1 2:5");
}

TEST(Scheduler, the_encoder_budget_goes_to_the_oldest_first) {
  EngineConfig config = world_config();
  config.max_num_batched_tokens = 100;
  config.encoder_budget = 4;
  SchedulerWorld world(config);
  world.add(5, -1, {world_item(0, 3, 1)});
  world.add(5, -1, {world_item(0, 2, 2)});
  world.add(5);
  EXPECT_EQ(world.step(), "1:5") << "the queue's head waits for the encoder, and so does the rest";
  EXPECT_EQ(world.step(), "1:1 2:5 3:5");
}

TEST(Scheduler, an_item_is_encoded_once_for_all_and_not_at_all_for_cached_tokens) {
  EngineConfig config = world_config();
  config.max_num_batched_tokens = 100;
  SchedulerWorld world(config);
  Sequence* first = world.add(9, 50, {world_item(1, 3, 7)});
  world.add(9, 60, {world_item(2, 3, 7)});  // other tokens, the same image
  world.step();
  EXPECT_EQ(world.scheduler.counters().items_encoded, 1);
  EXPECT_EQ(world.scheduler.counters().items_skipped, 1);
  world.add(9, 50, {world_item(1, 3, 7)});  // the same tokens: the KV cache has the image
  EXPECT_EQ(world.step(), "1:1 2:1 3:1");
  EXPECT_EQ(world.scheduler.counters().items_encoded, 0);
  EXPECT_EQ(world.scheduler.counters().items_skipped, 1);
  EXPECT_EQ(world.scheduler.counters().prefix_tokens_hit, 8);
  EXPECT_EQ(first->slots[0], -1) << "unpinned once all of its rows are in the KV cache";
}

TEST(Scheduler, an_item_stays_pinned_while_its_span_is_entered_in_parts) {
  EngineConfig config = world_config();
  config.max_num_batched_tokens = 4;
  config.encoder_budget = 7;
  SchedulerWorld world(config);
  Sequence* s = world.add(12, -1, {world_item(2, 7, 1)});
  world.step();
  EXPECT_GE(s->slots[0], 0);
  EXPECT_EQ(world.scheduler.resources().encoder().pinned_rows(), 7);
  world.step();
  EXPECT_GE(s->slots[0], 0);
  world.step();
  EXPECT_EQ(s->slots[0], -1);
  EXPECT_EQ(world.scheduler.resources().encoder().pinned_rows(), 0);
  EXPECT_EQ(world.scheduler.resources().encoder().rows(), 7) << "kept for the next request";
}

TEST(Scheduler, nobody_younger_takes_encoder_room_that_an_older_one_waits_for) {
  EngineConfig config = world_config();
  config.max_num_batched_tokens = 6;
  config.max_prefill_chunk = 2;
  config.encoder_budget = 8;
  config.encoder_cache_rows = 8;
  SchedulerWorld world(config);
  world.add(14, -1, {world_item(4, 8, 1)});
  world.add(9, -1, {world_item(0, 6, 2)});
  world.add(9, -1, {world_item(4, 2, 3)});
  EXPECT_EQ(world.step(), "1:2 2:2 3:2");
  EXPECT_EQ(world.step(), "1:2 2:2 3:2");
  EXPECT_EQ(world.scheduler.resources().encoder().pinned_rows(), 6);
  EXPECT_EQ(world.step(), "2:2") << "the first needs eight rows; two are left for the third, but";
  EXPECT_EQ(world.step(), "1:2 2:2") << "now the first has all eight";
}

// Admission makes this impossible (sched.headroom); the oldest must not depend
// on it.
TEST(Scheduler, the_oldest_gets_encoder_room_from_one_that_is_itself_stuck) {
  EngineConfig config = world_config();
  config.max_prefill_chunk = 2;
  config.encoder_budget = 8;
  config.encoder_cache_rows = 8;
  SchedulerWorld world(config);
  world.add(14, -1, {world_item(4, 8, 1)});
  world.add(9, -1, {world_item(0, 6, 2)});
  world.step();
  EXPECT_EQ(world.step(), "1:2 2:2");
  Request request;
  request.prompt_token_ids = {1};
  Sequence thief(99, std::move(request), 4, 100, {});
  auto& resources = const_cast<Resources&>(world.scheduler.resources());
  resources.grow(thief, world.free_blocks() * 4);
  EXPECT_EQ(world.step(), "1:2") << "the second pins six of eight rows and lacks a block";
  EXPECT_EQ(world.waiting(), "2 ");
  EXPECT_EQ(world.scheduler.preemptions(), 1u);
  resources.release(thief);
}

TEST(Scheduler, without_chunks_all_items_of_a_prompt_are_encoded_at_once) {
  EngineConfig config = world_config();
  config.enable_chunked_prefill = false;
  config.max_model_len = 100;
  config.max_num_batched_tokens = 100;
  config.encoder_budget = 6;
  SchedulerWorld world(config);
  world.add(10, -1, {world_item(0, 4, 1)});
  world.add(12, -1, {world_item(0, 2, 2), world_item(6, 3, 3)});
  EXPECT_EQ(world.step(), "1:10") << "two rows are left, the second needs five";
  EXPECT_EQ(world.step(), "1:1 2:12");
}

// invariant: sched.headroom
TEST(Scheduler, who_enters_leaves_a_block_for_each_that_runs) {
  for (const int32_t length : {19, 20}) {
    EngineConfig config = world_config();
    config.num_blocks = 10;
    config.headroom = 0;
    config.max_num_batched_tokens = 64;
    SchedulerWorld world(config);
    world.add(8);  // its ninth token takes a third block: six are free
    world.step();
    world.add(length);  // with one token more five or six blocks
    EXPECT_EQ(world.step(), length == 19 ? "1:1 2:19" : "1:1");
  }
}

TEST(Scheduler, nobody_takes_the_blocks_that_a_running_prompt_will_need) {
  EngineConfig config = world_config();
  config.num_blocks = 13;
  config.max_num_batched_tokens = 20;
  config.max_prefill_chunk = 4;
  SchedulerWorld world(config);
  world.add(31);  // eight of twelve blocks in the end
  world.add(15);  // four, and one to spare for the first
  EXPECT_EQ(world.step(), "1:4") << "seven blocks are promised, four of eleven are left";
  for (int i = 0; i < 7; ++i) world.step();
  EXPECT_EQ(world.scheduler.preemptions(), 0u);
  EXPECT_EQ(world.running(), "1 ");
}

TEST(Scheduler, a_whole_item_that_lacks_tokens_lets_nobody_younger_prefill) {
  EngineConfig config = world_config();
  config.split_media_items = false;
  config.max_num_batched_tokens = 8;
  SchedulerWorld world(config);
  world.add(4);
  world.step();
  Sequence* s = world.add(14, -1, {world_item(3, 8, 1)});
  EXPECT_EQ(world.step(), "1:1 2:3");
  world.add(4);
  EXPECT_EQ(world.step(), "1:1") << "eight tokens are needed at once; the third must not pass";
  EXPECT_EQ(s->computed, 3);
  world.scheduler.remove(world.scheduler.running()[0]);
  EXPECT_EQ(world.step(), "2:8");
  EXPECT_EQ(world.step(), "2:3 3:4");
}

TEST(Scheduler, a_hit_ends_inside_an_item_only_if_items_may_be_split) {
  for (const bool split : {true, false}) {
    EngineConfig config = world_config();
    config.split_media_items = split;
    config.max_num_batched_tokens = 100;
    SchedulerWorld world(config);
    const std::vector<MediaItem> media = {world_item(2, 7, 1)};
    world.add(10, 50, media);
    world.step();
    // The second block, [4, 8), lies inside the span [2, 9).
    world.add(10, 50, media);
    EXPECT_EQ(world.step(), split ? "1:1 2:2" : "1:1 2:8");
    EXPECT_EQ(world.scheduler.counters().prefix_tokens_hit, split ? 8 : 2);
  }
}

TEST(Scheduler, a_prompt_that_is_cached_whole_computes_its_last_token_in_a_copy) {
  SchedulerWorld world(world_config());
  world.add(8, 50);
  world.step();
  world.add(8, 50);
  EXPECT_EQ(world.select(), "1:1 2:1");
  ASSERT_EQ(world.scheduler.resources().copies().size(), 1u);
  const Sequence* second = world.scheduler.entries()[1].sequence;
  const BlockCopy copy = world.scheduler.resources().copies()[0];
  EXPECT_EQ(copy.src, world.scheduler.running()[0]->table[1]);
  EXPECT_EQ(copy.dst, second->table[1]);
  world.commit();
  EXPECT_EQ(second->table[1], copy.src) << "full again, and equal: one block serves both";
}

TEST(Scheduler, the_common_beginning_of_a_block_is_copied_where_that_pays) {
  EngineConfig config = world_config();
  config.block_size = 8;
  config.max_num_batched_tokens = 100;
  config.enable_chunked_prefill = true;
  struct Case {
    int32_t same;  // tokens that the second prompt shares with the first
    int64_t copied;
  };
  for (const Case& c : {Case{11, 3}, Case{10, 2}, Case{9, 0}, Case{3, 3}, Case{1, 0}}) {
    SchedulerWorld world(config);
    world.add(20, 50);
    world.step();
    Sequence* second = world.add(20, 50);
    for (size_t i = static_cast<size_t>(c.same); i < 20; ++i) second->tokens[i] = 7;
    const int64_t hit = c.same / 8 * 8 + c.copied;
    EXPECT_EQ(world.select(), "1:1 2:" + std::to_string(20 - hit)) << c.same;
    EXPECT_EQ(world.scheduler.counters().prefix_tokens_copied, c.copied);
    EXPECT_EQ(world.scheduler.resources().copies().size(), c.copied > 0 ? 1u : 0u);
    world.commit();
    EXPECT_EQ(second->num_cached_tokens, hit);
  }
}

TEST(Scheduler, the_beginning_of_a_block_is_not_copied_across_items_or_salts) {
  EngineConfig config = world_config();
  config.block_size = 8;
  config.max_num_batched_tokens = 100;
  SchedulerWorld world(config);
  world.add(20, 50, {world_item(6, 2, 1)});
  world.step();
  Sequence* other = world.add(20, 50, {world_item(6, 2, 2)});
  EXPECT_EQ(world.step(), "1:1 2:20") << "the block holds an item";
  EXPECT_EQ(other->num_cached_tokens, 0);
}

TEST(Scheduler, a_prompt_adopts_blocks_that_the_step_fills_but_never_a_part_of_one) {
  EngineConfig config = world_config();
  config.max_num_batched_tokens = 100;
  SchedulerWorld world(config);
  Sequence* first = world.add(8, 50);
  Sequence* second = world.add(8, 50);  // all but its last token: its second block would be a copy
  Sequence* third = world.add(9, 50);
  EXPECT_EQ(world.select(), "1:8 2:4 3:1");
  EXPECT_EQ(world.scheduler.resources().copies().size(), 0u);
  EXPECT_EQ(world.scheduler.counters().prefix_tokens_shared, 4 + 8);
  EXPECT_TRUE(world.scheduler.entries()[2].prefill) << "behind the one whose blocks it reads";
  EXPECT_EQ(second->table[0], first->table[0]);
  EXPECT_NE(second->table[1], first->table[1]);
  EXPECT_EQ(third->table[1], first->table[1]);
  world.commit();
  EXPECT_EQ(second->table[1], first->table[1]) << "equal content has one block";
  EXPECT_EQ(world.scheduler.resources().kv().pool().refs(first->table[1]), 3);
}

TEST(Scheduler, rollback_forgets_what_the_step_was_to_fill) {
  SchedulerWorld world(world_config());
  const std::vector<BlockId> free = world.scheduler.resources().kv().pool().free_list();
  world.add(9, 50);
  world.add(9, 50);
  EXPECT_EQ(world.select(), "1:9 2:1");
  world.scheduler.rollback();
  EXPECT_EQ(world.scheduler.resources().kv().index().size(), 0);
  EXPECT_EQ(world.scheduler.resources().kv().pool().num_free_hashed(), 0);
  EXPECT_EQ(world.free_blocks(), std::ssize(free));
  EXPECT_EQ(world.select(), "1:9 2:1") << "nothing of the failed step is a hit";
}

// invariant: sched.rollback
TEST(Scheduler, rollback_restores_tables_queues_and_pins) {
  EngineConfig config = world_config();
  config.max_num_batched_tokens = 8;
  config.encoder_budget = 9;
  SchedulerWorld world(config);
  Sequence* first = world.add(11, 50, {world_item(1, 9, 1)});
  world.step();
  const std::vector<BlockId> table(first->table.blocks().begin(), first->table.blocks().end());
  const std::vector<BlockId> free = world.scheduler.resources().kv().pool().free_list();
  const EncoderSlot slot = first->slots[0];
  Sequence* second = world.add(11, 70, {world_item(0, 2, 2)});
  EXPECT_EQ(world.select(), "1:3 2:5");
  world.scheduler.rollback();
  EXPECT_EQ(std::vector(first->table.blocks().begin(), first->table.blocks().end()), table);
  EXPECT_EQ(world.scheduler.resources().kv().pool().free_list(), free);
  EXPECT_EQ(first->slots[0], slot);
  EXPECT_EQ(first->computed, 8);
  EXPECT_EQ(second->slots[0], -1);
  EXPECT_EQ(second->table.size(), 0);
  EXPECT_EQ(second->state, SequenceState::kWaiting);
  EXPECT_EQ(world.running(), "1 ");
  EXPECT_EQ(world.waiting(), "2 ");
  EXPECT_EQ(world.scheduler.resources().encoder().size(), 1);
  EXPECT_EQ(world.scheduler.resources().encoder().evicted().size(), 1u)
      << "the runner may hold what the failed step encoded";
  EXPECT_EQ(world.step(), "1:3 2:5") << "the same step again";
}

TEST(Scheduler, rollback_gives_hits_and_their_copies_back) {
  SchedulerWorld world(world_config());
  Sequence* first = world.add(8, 50);
  world.step();
  world.scheduler.remove(first);
  const int64_t free = world.free_blocks();
  world.add(8, 50);
  EXPECT_EQ(world.select(), "2:1");
  world.scheduler.rollback();
  EXPECT_EQ(world.free_blocks(), free);
  EXPECT_EQ(world.scheduler.resources().copies().size(), 0u);
  EXPECT_EQ(world.select(), "2:1") << "still cached";
}

TEST(Scheduler, a_scope_names_the_only_sequence_or_closes_the_queue) {
  SchedulerWorld world(world_config());
  Sequence* first = world.add(4);
  Sequence* second = world.add(4);
  world.step();
  Sequence* third = world.add(4);
  Sequence* fourth = world.add(4);
  EXPECT_EQ(world.step({.admit = false}), "1:1 2:1");
  EXPECT_EQ(world.step({.only = second}), "2:1");
  EXPECT_EQ(world.step({.only = fourth}), "") << "it is not the queue's head";
  EXPECT_EQ(world.step({.only = third}), "3:4");
  for (Sequence* s : {first, second, third}) world.scheduler.remove(s);
  EXPECT_EQ(world.step({.admit = false}), "4:4") << "or nothing would run";
}

TEST(Scheduler, prompt_logprobs_are_computed_even_if_the_prompt_is_cached) {
  SchedulerWorld world(world_config());
  world.add(9, 50);
  world.step();
  Sequence* second = world.add(9, 50);
  second->sampling.num_prompt_logprobs = 1;
  EXPECT_EQ(world.step(), "1:1 2:9");
  EXPECT_EQ(second->num_cached_tokens, 0);
  world.scheduler.remove(second);
  Sequence* third = world.add(9, 50);
  third->sampling.num_prompt_logprobs = 1;
  third->prompt_logprobs_done = 8;  // as after a preemption
  EXPECT_EQ(world.step(), "1:1 3:1");
}

TEST(Scheduler, an_item_without_identity_is_computed_and_encoded_by_each_request) {
  EngineConfig config = world_config();
  config.max_num_batched_tokens = 100;
  SchedulerWorld world(config);
  world.add(12, 50, {world_item(5, 2, 0)});
  world.step();
  world.add(12, 50, {world_item(5, 2, 0)});
  EXPECT_EQ(world.step(), "1:1 2:8") << "only the block before the item is shared";
  EXPECT_EQ(world.scheduler.counters().items_encoded, 1);
}

}  // namespace
}  // namespace mmcore
