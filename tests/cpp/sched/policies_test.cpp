#include "sched/policies.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "sched/scheduler_world.h"

namespace mmcore {
namespace {

using testing::SchedulerWorld;
using testing::world_config;

EngineConfig one_at_a_time(SchedulingPolicy policy) {
  EngineConfig config = world_config();
  config.policy = policy;
  config.max_num_seqs = 1;
  config.max_num_batched_tokens = 64;
  return config;
}

/// Ends whatever runs and gives who enters next.
std::string next(SchedulerWorld& world) {
  while (!world.scheduler.running().empty())
    world.scheduler.remove(world.scheduler.running().front());
  world.step();
  return world.running();
}

TEST(Policies, are_chosen_by_the_configuration_unless_the_host_brings_one) {
  Request request;
  request.priority = 7;
  EngineConfig config;
  EXPECT_EQ(policy_of(config)->rank(request), 0);
  EXPECT_EQ(policy_of(config)->window(), 1);
  config.policy = SchedulingPolicy::kPriority;
  EXPECT_EQ(policy_of(config)->rank(request), 7);
  config.policy = SchedulingPolicy::kLongestPrefix;
  EXPECT_GT(policy_of(config)->window(), 1);
  config.custom_policy = std::make_shared<FcfsPolicy>();
  EXPECT_EQ(policy_of(config), config.custom_policy);
}

TEST(Policies, longest_prefix_takes_what_is_cached_before_it_is_evicted) {
  for (const SchedulingPolicy policy :
       {SchedulingPolicy::kFcfs, SchedulingPolicy::kLongestPrefix}) {
    SchedulerWorld world(one_at_a_time(policy));
    world.add(16, 50);
    world.step();
    world.add(16, 1000);
    world.add(16, 2000);
    world.add(12, 50);
    world.add(14, 50);
    const bool longest = policy == SchedulingPolicy::kLongestPrefix;
    EXPECT_EQ(next(world), longest ? "5 " : "2 ") << "12 of 14 tokens are cached, 11 of 12";
    EXPECT_EQ(next(world), longest ? "4 " : "3 ");
    EXPECT_EQ(next(world), longest ? "2 " : "4 ") << "the first among equals";
  }
}

// invariant: sched.fcfs
TEST(Policies, nobody_is_passed_for_ever) {
  SchedulerWorld world(one_at_a_time(SchedulingPolicy::kLongestPrefix));
  world.add(16, 50);
  world.step();
  Sequence* unlucky = world.add(16, 5000);
  int passed = 0;
  for (; passed < 100 && unlucky->state == SequenceState::kWaiting; ++passed) {
    world.add(16, 50);
    next(world);
  }
  EXPECT_EQ(passed, QueuePolicy::kMaxPassed + 1);
  EXPECT_EQ(unlucky->times_passed, QueuePolicy::kMaxPassed);
}

TEST(Policies, one_that_lacks_memory_is_not_looked_up_again_until_some_is_freed) {
  EngineConfig config = world_config();
  config.policy = SchedulingPolicy::kLongestPrefix;
  config.num_blocks = 13;
  SchedulerWorld world(config);
  Sequence* first = world.add(13);
  world.step();
  Sequence* big = world.add(40);
  EXPECT_EQ(world.step(), "1:1");
  world.add(1);
  EXPECT_EQ(world.step(), "1:1") << "whoever comes later does not pass one that was chosen";
  world.scheduler.remove(big);
  EXPECT_EQ(world.step(), "1:1 3:1") << "the one that blocked is gone";
  world.scheduler.remove(first);
  EXPECT_EQ(world.step(), "3:1");
}

class ShortestFirst : public QueuePolicy {
 public:
  int32_t window() const override { return 8; }
  size_t choose(std::span<const QueueCandidate> candidates) override {
    ++asked;
    if (answer_nonsense) return 1000;
    return static_cast<size_t>(
        std::ranges::min_element(candidates, {}, &QueueCandidate::num_tokens) - candidates.begin());
  }
  int64_t rank(const Request& request) const override { return request.priority / 10; }
  int asked = 0;
  bool answer_nonsense = false;
};

TEST(Policies, a_host_brings_its_own) {
  EngineConfig config = one_at_a_time(SchedulingPolicy::kFcfs);
  auto policy = std::make_shared<ShortestFirst>();
  config.custom_policy = policy;
  SchedulerWorld world(config);
  world.add(9);
  world.add(5, -1, {}, 3);
  world.add(7);
  world.add(6);
  EXPECT_EQ(next(world), "2 ");
  EXPECT_EQ(next(world), "4 ");
  policy->answer_nonsense = true;
  EXPECT_EQ(next(world), "1 ") << "an index out of range is the head";
  const int asked = policy->asked;
  EXPECT_EQ(next(world), "3 ");
  EXPECT_EQ(policy->asked, asked) << "there was no choice";
}

}  // namespace
}  // namespace mmcore
