// Host offload through the whole engine: evicted prompts come back from host memory.
#include <gtest/gtest.h>

#include "engine/harness.h"

namespace mmcore::testing {
namespace {

// 12 usable blocks of 4: two prompts of 20 tokens do not fit behind each other's caches.
EngineConfig offload_config(int32_t host_blocks = 64) {
  EngineConfig c = small_config();
  c.num_blocks = 9;
  c.num_host_blocks = host_blocks;
  return c;
}

// Runs a prompt alone, so that it displaces what earlier ones left.
RequestId run(Harness& h, const Request& request) {
  const RequestId id = h.submit(request);
  h.run_to_end();
  h.expect_tokens(id, request.sampling.max_tokens);
  return id;
}

TEST(Offload, a_prompt_that_was_displaced_comes_back_from_the_host) {
  Harness h(offload_config());
  const Request first = text_request(20, 100, 4);
  run(h, first);
  run(h, text_request(28, 500, 4));
  const EngineMetrics before = h.engine().metrics();
  EXPECT_GE(before.blocks_offloaded, 5u);
  EXPECT_EQ(before.blocks_loaded, 0u);
  const RequestId again = run(h, first);
  const EngineMetrics after = h.engine().metrics();
  // 19 tokens need not be computed; the last, partly used block needs no copy of its own.
  EXPECT_EQ(after.blocks_loaded, 5u);
  EXPECT_EQ(after.prefix_tokens_loaded, 19u);
  EXPECT_EQ(after.prefix_tokens_hit - before.prefix_tokens_hit, 19u);
  EXPECT_EQ(after.block_copies, 0u);
  EXPECT_EQ(h.heard[again].last.num_cached_tokens, 19);
  EXPECT_EQ(after.host_blocks_total, 64);
  EXPECT_GE(after.host_blocks_used, 5);
  ASSERT_TRUE(h.engine().reset_caches().ok());
  EXPECT_EQ(h.engine().metrics().host_blocks_used, 0);
  run(h, first);
  EXPECT_EQ(h.engine().metrics().blocks_loaded, 5u) << "nothing is known after a reset";
  h.expect_idle();
}

TEST(Offload, an_item_in_the_host_is_not_encoded_again) {
  EngineConfig config = offload_config();
  config.encoder_cache_rows = 8;  // the second prompt's item displaces the first's
  config.encoder_budget = 8;
  Harness h(config);
  const auto with_item = [](TokenId first, uint8_t id) {
    Request r = text_request(20, first, 2);
    r.media.push_back({.offset = 3, .length = 8});
    r.media[0].id.bytes[0] = id;
    return r;
  };
  run(h, with_item(100, 1));
  run(h, with_item(500, 2));
  run(h, text_request(28, 700, 4));
  run(h, with_item(100, 1));
  EXPECT_EQ(h.runner.items_encoded, 2);
  EXPECT_GT(h.engine().metrics().blocks_loaded, 3u);
  EXPECT_EQ(h.engine().metrics().items_skipped, 1u);
}

TEST(Offload, a_small_tier_drops_what_was_used_longest_ago) {
  Harness h(offload_config(5));
  const Request first = text_request(20, 100, 1);
  run(h, first);
  run(h, text_request(28, 500, 1));
  run(h, text_request(28, 700, 1));
  EXPECT_GT(h.engine().metrics().host_blocks_evicted, 0u);
  const uint64_t loaded = h.engine().metrics().blocks_loaded;
  run(h, first);
  EXPECT_EQ(h.engine().metrics().blocks_loaded, loaded) << "its blocks had to go";
}

TEST(Offload, a_step_that_fails_takes_its_saves_and_loads_back) {
  for (const bool throws : {false, true}) {
    Harness h(offload_config());
    h.runner.throw_faults = throws;
    const Request first = text_request(20, 100, 4);
    run(h, first);
    run(h, text_request(28, 500, 4));
    const EngineMetrics before = h.engine().metrics();
    // The step that loads fails, and has written garbage to what it was to save and to load.
    const RequestId again = h.submit(first);
    h.runner.fail_next = true;
    EXPECT_FALSE(h.step());
    EXPECT_FALSE(h.runner.last_plan.host_loads.empty());
    EXPECT_EQ(h.engine().metrics().blocks_loaded, before.blocks_loaded);
    EXPECT_LE(h.engine().metrics().host_blocks_used, before.host_blocks_used);
    h.run_to_end();
    h.expect_tokens(again, 4);
    EXPECT_EQ(h.engine().metrics().blocks_loaded, 5u) << "what the host holds is loaded again";
    run(h, text_request(28, 500, 4));
    h.expect_idle();
  }
}

TEST(Offload, a_failure_between_save_and_load_loses_time_and_no_token) {
  Harness h(offload_config());
  const Request first = text_request(20, 100, 4);
  run(h, first);
  // The step that saves the first prompt's blocks fails: they are in neither tier.
  const RequestId second = h.submit(text_request(28, 500, 4));
  h.runner.fail_next = true;
  EXPECT_FALSE(h.step());
  EXPECT_FALSE(h.runner.last_plan.host_saves.empty());
  EXPECT_EQ(h.engine().metrics().host_blocks_used, 0);
  h.run_to_end();
  h.expect_tokens(second, 4);
  const uint64_t hit = h.engine().metrics().prefix_tokens_loaded;
  run(h, first);
  EXPECT_LT(h.engine().metrics().prefix_tokens_loaded - hit, 19u);
}

TEST(Offload, a_preempted_sequence_finds_its_blocks_in_the_host) {
  EngineConfig config = offload_config();
  config.max_num_seqs = 2;
  config.headroom = 0;
  Harness h(config);
  const RequestId a = h.submit(text_request(12, 100, 18));
  const RequestId b = h.submit(text_request(12, 300, 18));
  h.run_to_end();
  h.expect_tokens(a, 18);
  h.expect_tokens(b, 18);
  EXPECT_GT(h.engine().metrics().preemptions, 0u);
  EXPECT_GT(h.engine().metrics().blocks_loaded, 0u);
}

TEST(Offload, create_refuses_more_than_the_runner_has) {
  EngineConfig config = offload_config(10);
  ShadowRunner runner(config);
  config.num_host_blocks = 11;
  const auto refused = Engine::create(config, &runner);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("num_host_blocks is 11, but the runner has 10"),
            std::string::npos)
      << refused.status().message();
  config.num_host_blocks = 10;
  config.enable_prefix_caching = false;
  const auto useless = Engine::create(config, &runner);
  ASSERT_FALSE(useless.ok());
  EXPECT_NE(useless.status().message().find("enable_prefix_caching"), std::string::npos);
}

}  // namespace
}  // namespace mmcore::testing
