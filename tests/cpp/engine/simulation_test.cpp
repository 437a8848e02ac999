// Random lives of an engine with a shadow model: whatever is shared, preempted, chunked, cancelled
// or failed, each request gives the tokens that it gives alone.
#include "engine/simulation.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace mmcore::testing {
namespace {

// More seeds than the default: MMCORE_TEST_SEEDS=10000.
uint64_t num_seeds() {
  const char* text = std::getenv("MMCORE_TEST_SEEDS");
  return text == nullptr ? 400 : std::strtoull(text, nullptr, 10);
}

class SimulationTest : public ::testing::TestWithParam<Faults> {};

TEST_P(SimulationTest, output_in_a_crowd_is_output_alone) {
  EngineMetrics total;
  for (uint64_t seed = 1; seed <= num_seeds(); ++seed) {
    Simulation simulation(seed * 8 + static_cast<uint64_t>(GetParam()), {.faults = GetParam()});
    simulation.run();
    for (const std::string& problem : simulation.problems()) ADD_FAILURE() << problem;
    if (HasFailure()) return;
    const EngineMetrics m = simulation.metrics();
    total.preemptions += m.preemptions;
    total.prefix_tokens_hit += m.prefix_tokens_hit;
    total.prefix_tokens_shared += m.prefix_tokens_shared;
    total.tokens_forked += m.tokens_forked;
    total.prefix_tokens_copied += m.prefix_tokens_copied;
    total.items_skipped += m.items_skipped;
    total.block_copies += m.block_copies;
    total.blocks_evicted += m.blocks_evicted;
    total.blocks_offloaded += m.blocks_offloaded;
    total.blocks_loaded += m.blocks_loaded;
    total.host_blocks_evicted += m.host_blocks_evicted;
    total.prefix_tokens_loaded += m.prefix_tokens_loaded;
    total.requests_failed += m.requests_failed;
    total.requests_timed_out += m.requests_timed_out;
    total.steps += m.steps;
    total.steps_failed += m.steps_failed;
    total.steps_ahead += m.steps_ahead;
    total.rows_surplus += m.rows_surplus;
  }
  RecordProperty("steps", std::to_string(total.steps));
  // The workload reaches what it is meant to test.
  if (num_seeds() < 400) return;
  EXPECT_GT(total.preemptions, 20u);
  EXPECT_GT(total.prefix_tokens_hit, 1000u);
  EXPECT_GT(total.prefix_tokens_shared, 100u);
  EXPECT_GT(total.tokens_forked, 1000u);
  EXPECT_GT(total.prefix_tokens_copied, 1000u);
  EXPECT_GT(total.items_skipped, 100u);
  EXPECT_GT(total.block_copies, 20u);
  EXPECT_GT(total.blocks_evicted, 1000u);
  EXPECT_GT(total.blocks_offloaded, 1000u);
  EXPECT_GT(total.blocks_loaded, 30u);
  EXPECT_GT(total.host_blocks_evicted, 300u);
  EXPECT_GT(total.prefix_tokens_loaded, 100u);
  EXPECT_GT(total.requests_timed_out, 100u);
  EXPECT_GT(total.steps_ahead, 2000u);
  EXPECT_GT(total.rows_surplus, 500u);
  EXPECT_EQ(total.steps_failed > 0, GetParam() != Faults::kNone);
}

// A fork took over a block that a step in flight was still filling, registered it for its own step,
// and left it registered when the step in flight failed (kv.write).
TEST(SimulationReplay, a_fork_registers_nothing_that_a_step_in_flight_fills) {
  Simulation simulation(11529, {.num_requests = 500, .faults = Faults::kStorm});
  simulation.run();
  for (const std::string& problem : simulation.problems()) ADD_FAILURE() << problem;
  EXPECT_GT(simulation.metrics().tokens_forked, 0u);
  EXPECT_GT(simulation.metrics().steps_ahead, 0u);
}

std::string name_of(const ::testing::TestParamInfo<Faults>& test) {
  constexpr const char* kNames[] = {"none", "passing", "poison", "media", "storm"};
  return kNames[static_cast<int>(test.param)];
}

INSTANTIATE_TEST_SUITE_P(Faults, SimulationTest,
                         ::testing::Values(Faults::kNone, Faults::kPassing, Faults::kPoison,
                                           Faults::kMedia, Faults::kStorm),
                         name_of);

}  // namespace
}  // namespace mmcore::testing
