// How often one request may lose its blocks (docs: sched.bounded).
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/harness.h"
#include "sched/scheduler_world.h"

namespace mmcore {
namespace {

using testing::Harness;
using testing::SchedulerWorld;
using testing::small_config;
using testing::text_request;
using testing::world_config;

// Outputs four times the pool: without a bound the youngest are thrown out again and again.
TEST(Preemption, thrashing_is_bounded_and_everything_ends) {
  uint64_t preemptions[3] = {};
  size_t at = 0;
  for (const int32_t bound : {0, 1, 100}) {
    EngineConfig config = small_config();
    config.num_blocks = 17;
    config.max_preemptions = bound;
    config.headroom = 0;
    config.enable_prefix_caching = false;
    Harness harness(config);
    std::vector<RequestId> ids;
    for (TokenId i = 0; i < 16; ++i) ids.push_back(harness.submit(text_request(2, 10 * i, 50)));
    harness.run_to_end();
    for (const RequestId id : ids) {
      harness.expect_tokens(id, 50);
      EXPECT_LE(harness.heard[id].last.num_preemptions, bound);
    }
    harness.expect_idle();
    preemptions[at++] = harness.engine().metrics().preemptions;
  }
  EXPECT_EQ(preemptions[0], 0u);
  EXPECT_GT(preemptions[1], 5u);
  EXPECT_GT(preemptions[2], 2 * preemptions[1]) << "the workload thrashes";
}

TEST(Preemption, one_that_lost_its_blocks_too_often_waits_for_room_for_its_life) {
  EngineConfig config = world_config();
  config.num_blocks = 13;
  config.max_preemptions = 1;
  config.max_num_batched_tokens = 64;
  config.enable_prefix_caching = false;
  SchedulerWorld world(config);
  Sequence* first = world.add(11);
  Sequence* second = world.add(11);
  first->max_tokens = 25;
  second->max_tokens = 13;  // six blocks in the end
  while (world.scheduler.preemptions() == 0) {
    ASSERT_LT(first->size(), 36);
    if (second->size() == 23) second->max_tokens = 20;  // goes on until it is in the way
    world.step();
  }
  EXPECT_EQ(second->num_preemptions, 1);
  const int64_t life = world.scheduler.life_blocks(*second);
  while (second->state == SequenceState::kWaiting) {
    EXPECT_EQ(world.scheduler.reserved_blocks(), 0);
    if (first->num_outputs() == 24) world.scheduler.remove(first);
    world.step();
  }
  EXPECT_TRUE(second->reserved);
  EXPECT_EQ(world.scheduler.reserved_blocks(), life - second->table.size());
  Sequence* third = world.add(4);
  third->max_tokens = 500;
  while (second->num_outputs() < second->max_tokens) {
    EXPECT_EQ(world.scheduler.reserved_blocks(), life - second->table.size());
    EXPECT_GE(world.free_blocks(), world.scheduler.reserved_blocks());
    world.step();
  }
  EXPECT_EQ(second->num_preemptions, 1);
  world.scheduler.remove(second);
  EXPECT_EQ(world.scheduler.reserved_blocks(), 0);
}

TEST(Preemption, an_older_one_waits_for_one_that_may_not_be_preempted) {
  EngineConfig config = world_config();
  config.policy = SchedulingPolicy::kPriority;
  config.num_blocks = 8;
  config.max_preemptions = 0;
  config.max_num_batched_tokens = 64;
  SchedulerWorld world(config);
  Sequence* low = world.add(4, -1, {}, 1);
  low->max_tokens = 16;  // five of seven blocks
  world.step();
  Sequence* high = world.add(4, -1, {}, 0);
  high->max_tokens = 8;  // three
  EXPECT_EQ(world.step(), "1:1") << "five and three are not seven";
  while (low->num_outputs() < low->max_tokens) world.step();
  EXPECT_EQ(low->num_preemptions, 0);
  world.scheduler.remove(low);
  EXPECT_EQ(world.step(), "2:4");
}

TEST(Preemption, a_rollback_gives_the_reservation_back) {
  EngineConfig config = world_config();
  config.max_preemptions = 0;
  SchedulerWorld world(config);
  Sequence* s = world.add(20);
  s->max_tokens = 12;
  world.select();
  EXPECT_EQ(world.scheduler.reserved_blocks(), 8 - 4);
  world.scheduler.rollback();
  EXPECT_EQ(world.scheduler.reserved_blocks(), 0);
  world.step();
  world.select();
  EXPECT_EQ(world.scheduler.reserved_blocks(), 8 - 5);
  world.scheduler.rollback();
  EXPECT_EQ(world.scheduler.reserved_blocks(), 8 - 4);
}

}  // namespace
}  // namespace mmcore
