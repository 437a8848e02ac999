// Who enters beside sequences that grow (docs: sched.headroom).
#include "sched/headroom.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "sched/scheduler_world.h"

namespace mmcore {
namespace {

using testing::SchedulerWorld;
using testing::world_config;

EngineConfig roomy_steps(int32_t blocks) {
  EngineConfig config = world_config();
  config.num_blocks = blocks + 1;
  config.max_num_batched_tokens = 200;
  config.enable_prefix_caching = false;
  return config;
}

// One that gives just `outputs` tokens.
Sequence* add_whole(SchedulerWorld& world, int32_t prompt, int32_t outputs) {
  Sequence* s = world.add(prompt);
  s->max_tokens = outputs;
  s->ignore_eos = true;
  return s;
}

// A step, after which what has given all of its tokens ends.
void step_and_end(SchedulerWorld& world) {
  world.step();
  const std::vector<Sequence*> running = world.scheduler.running();
  for (Sequence* s : running)
    if (s->num_outputs() >= s->max_tokens) world.scheduler.remove(s);
}

// `count` answers that stop by themselves after `outputs` tokens.
void show_answers(SchedulerWorld& world, int count, int32_t outputs) {
  for (int i = 0; i < count; ++i) {
    Sequence* s = world.add(4);
    while (s->num_outputs() < outputs) world.step();
    world.scheduler.remove(s, /*stopped=*/true);
  }
}

TEST(Headroom, who_would_not_have_room_to_grow_waits_until_somebody_ends) {
  SchedulerWorld world(roomy_steps(16));
  add_whole(world, 4, 24);
  add_whole(world, 4, 24);
  add_whole(world, 4, 24);  // seven blocks each in the end, two now
  step_and_end(world);
  EXPECT_EQ(world.running(), "1 2 ");
  while (world.running() == "1 2 ") step_and_end(world);
  EXPECT_EQ(world.running(), "");
  step_and_end(world);
  EXPECT_EQ(world.running(), "3 ");
  EXPECT_EQ(world.scheduler.preemptions(), 0u);
}

TEST(Headroom, one_that_ends_before_the_others_have_grown_enters) {
  for (const int32_t outputs : {4, 24}) {
    SchedulerWorld world(roomy_steps(16));
    add_whole(world, 4, 24);
    add_whole(world, 4, 24);
    add_whole(world, 4, outputs);
    step_and_end(world);
    EXPECT_EQ(world.running(), outputs == 4 ? "1 2 3 " : "1 2 ") << outputs;
  }
}

TEST(Headroom, what_an_older_one_gives_back_in_time_is_counted) {
  for (const int32_t old : {24, 60}) {
    SchedulerWorld world(roomy_steps(30));
    add_whole(world, 20, old);  // five blocks and more, back soon or late
    for (int i = 0; i < 20; ++i) step_and_end(world);
    add_whole(world, 4, 60);  // sixteen
    add_whole(world, 4, 36);  // ten
    step_and_end(world);
    EXPECT_EQ(world.running(), old == 24 ? "1 2 3 " : "1 ") << old;
    while (!world.running().empty() || !world.waiting().empty()) step_and_end(world);
    EXPECT_EQ(world.scheduler.preemptions(), 0u);
  }
}

TEST(Headroom, short_answers_are_not_given_room_for_long_ones) {
  SchedulerWorld world(roomy_steps(40));
  show_answers(world, 40, 3);
  for (int i = 0; i < 12; ++i) world.add(4);  // two blocks and one to spare; max_tokens is 1,000
  world.step();
  EXPECT_GE(world.scheduler.running().size(), 11u);
}

TEST(Headroom, long_answers_that_were_seen_are_given_room) {
  SchedulerWorld world(roomy_steps(40));
  show_answers(world, 40, 60);
  for (int i = 0; i < 12; ++i) world.add(4);  // fifteen or sixteen blocks each, as far as is known
  world.step();
  EXPECT_GE(world.scheduler.running().size(), 2u);
  EXPECT_LE(world.scheduler.running().size(), 4u);
}

TEST(Headroom, answers_that_must_not_stop_say_nothing_of_those_that_may) {
  SchedulerWorld world(roomy_steps(40));
  show_answers(world, 40, 3);
  for (int i = 0; i < 12; ++i) add_whole(world, 4, 70);  // nineteen blocks
  world.step();
  EXPECT_EQ(world.running(), "41 42 ");
}

// The first that end are the short ones; those that still run are longer.
TEST(Headroom, what_runs_tells_of_answers_to_come) {
  SchedulerWorld world(roomy_steps(300));
  show_answers(world, 4, 3);
  for (int i = 0; i < 12; ++i) world.add(4);
  for (int i = 0; i < 40; ++i) world.step();
  ASSERT_EQ(world.scheduler.running().size(), 12u);
  for (int i = 0; i < 45; ++i) world.add(4);
  world.step();
  EXPECT_LT(world.scheduler.running().size(), 12u + 20u) << "all would fit if they were short";
}

TEST(Headroom, lengths_are_spread_and_not_all_the_middle_one) {
  SchedulerWorld world(roomy_steps(40));
  for (int i = 0; i < 20; ++i) {
    show_answers(world, 1, 2);
    show_answers(world, 1, 60);  // sixteen blocks
  }
  for (int i = 0; i < 12; ++i) world.add(4);
  world.step();
  EXPECT_GE(world.scheduler.running().size(), 4u) << "more than if all were long";
  EXPECT_LE(world.scheduler.running().size(), 7u) << "fewer than if all were short";
}

TEST(Headroom, blocks_that_another_holds_do_not_come_back) {
  for (const int32_t blocks : {55, 62}) {
    EngineConfig config = roomy_steps(blocks);
    config.enable_prefix_caching = true;
    SchedulerWorld world(config);
    const auto add = [&](int32_t prompt, TokenId first, int32_t outputs) {
      Sequence* s = world.add(prompt, first);
      s->max_tokens = outputs;
      s->ignore_eos = true;
    };
    add(40, 500, 100);  // 35 blocks in the end
    step_and_end(world);
    add(40, 500, 10);  // shares nine or ten of them
    step_and_end(world);
    add(4, 5, 96);  // 25
    step_and_end(world);
    EXPECT_EQ(world.running(), blocks == 62 ? "1 2 3 " : "1 2 ") << blocks;
  }
}

TEST(Headroom, a_life_that_is_set_aside_is_given_back_whole) {
  EngineConfig config = roomy_steps(100);
  config.max_preemptions = 0;
  SchedulerWorld world(config);
  Sequence* reserved = add_whole(world, 20, 20);  // ten blocks
  for (int i = 0; i < 16; ++i) world.step();
  ASSERT_TRUE(reserved->reserved);
  Sequence* candidate = add_whole(world, 4, 76);  // twenty
  Headroom headroom(resolve_config(config).value());
  headroom.make(std::vector<Sequence*>{reserved});
  EXPECT_LE(headroom.blocks_to_enter(*candidate, 0, /*whole_life=*/false), 20 - 10 + 1);
  EXPECT_EQ(headroom.blocks_to_enter(*candidate, 0, /*whole_life=*/true), 20);
}

// One that holds 5 tokens in a block of 16, and grows; another of 4 that grows beside it until it
// ends. Each is counted with half a block more than its tokens: 200 + 5 - 16 + 4 + 2 * 8 = 209.
TEST(Headroom, half_of_a_last_block_is_empty) {
  EngineConfig config = roomy_steps(100);
  config.block_size = 16;
  SchedulerWorld world(config);
  Sequence* running = add_whole(world, 4, 500);
  world.step();
  ASSERT_EQ(running->size(), 5);
  Headroom headroom(resolve_config(config).value());
  headroom.make(std::vector<Sequence*>{running});
  const auto blocks = [&](int32_t outputs) {
    return headroom.blocks_to_enter(*add_whole(world, 4, outputs), 0, /*whole_life=*/false);
  };
  EXPECT_EQ(blocks(99), 13);
  EXPECT_EQ(blocks(100), 14);
  EXPECT_EQ(blocks(107), 14);
  EXPECT_EQ(blocks(108), 15);
}

TEST(Headroom, min_tokens_are_certain) {
  for (const int32_t min_tokens : {0, 70}) {
    SchedulerWorld world(roomy_steps(40));
    show_answers(world, 40, 3);
    for (int i = 0; i < 12; ++i) world.add(4)->min_tokens = min_tokens;
    world.step();
    if (min_tokens == 0)
      EXPECT_GE(world.scheduler.running().size(), 11u);
    else
      EXPECT_LE(world.scheduler.running().size(), 2u);
  }
}

TEST(Headroom, alone_anybody_enters) {
  SchedulerWorld world(roomy_steps(16));
  show_answers(world, 20, 50);
  Sequence* whole_pool = add_whole(world, 4, 60);
  add_whole(world, 4, 60);
  step_and_end(world);
  EXPECT_EQ(world.running(), "21 ");
  while (whole_pool->num_outputs() < 60) step_and_end(world);
  step_and_end(world);
  EXPECT_EQ(world.running(), "22 ");
}

TEST(Headroom, the_percentage_is_that_of_the_growth) {
  std::vector<size_t> running;
  for (const int32_t percent : {0, 30, 100}) {
    EngineConfig config = roomy_steps(60);
    config.headroom = percent;
    SchedulerWorld world(config);
    for (int i = 0; i < 50; ++i) add_whole(world, 4, 40);
    step_and_end(world);
    running.push_back(world.scheduler.running().size());
  }
  EXPECT_EQ(running[0], 30u) << "one block now, and one for each";
  EXPECT_EQ(running[2], 5u)
      << "eleven blocks in the end; at a given time half of the last is empty";
  EXPECT_GT(running[1], running[2]);
  EXPECT_LT(running[1], running[0]);
}

// Whatever the lengths: hardly anybody who enters is thrown out again, and the pool is used.
TEST(Headroom, lengths_that_are_known_are_planned_for) {
  constexpr uint64_t kSeed = 23;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 random(kSeed);
  uint64_t preemptions[2] = {};
  int64_t steps[2] = {};
  for (int round = 0; round < 20; ++round) {
    const uint64_t seed = random();
    for (const size_t planned : {0u, 1u}) {
      EngineConfig config = roomy_steps(100);
      config.headroom = planned == 1 ? 100 : 0;
      SchedulerWorld world(config);
      std::mt19937_64 lengths(seed);
      for (int i = 0; i < 60; ++i)
        add_whole(world, static_cast<int32_t>(1 + lengths() % 40),
                  static_cast<int32_t>(1 + lengths() % 100));
      while (!world.running().empty() || !world.waiting().empty()) {
        step_and_end(world);
        ASSERT_LT(++steps[planned], 100'000);
      }
      preemptions[planned] += world.scheduler.preemptions();
    }
  }
  EXPECT_GT(preemptions[0], 300u) << "the workload is crowded";
  EXPECT_LT(preemptions[1], preemptions[0] / 20);
  EXPECT_LT(steps[1], steps[0] * 5 / 4) << "nobody waits for room that nobody will take";
}

}  // namespace
}  // namespace mmcore
