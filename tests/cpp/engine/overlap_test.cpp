// Steps that are handed over while the step before them runs.
#include <gtest/gtest.h>

#include "engine/harness.h"

namespace mmcore {
namespace {

using testing::Harness;
using testing::reference_tokens;
using testing::small_config;
using testing::text_request;

EngineConfig overlapping() {
  EngineConfig c = small_config();
  c.async_schedule = true;
  return c;
}

TEST(Overlap, every_step_of_a_steady_decode_is_handed_over_while_another_one_runs) {
  Harness h(overlapping());
  const RequestId first = h.submit(text_request(6, 1, 20));
  const RequestId second = h.submit(text_request(9, 50, 20));
  h.run_to_end();
  h.expect_tokens(first, 20);
  h.expect_tokens(second, 20);
  const EngineMetrics m = h.engine().metrics();
  EXPECT_EQ(m.steps, 20u);
  EXPECT_EQ(m.steps_ahead, 19u);
  EXPECT_EQ(m.rows_surplus, 0u) << "where a length ends a sequence is known ahead";
  EXPECT_EQ(m.tokens_generated, 40u);
  h.expect_idle();
}

TEST(Overlap, a_step_call_ends_one_step_and_leaves_one_with_the_runner) {
  Harness h(overlapping());
  const RequestId id = h.submit(text_request(6, 1, 3));
  for (size_t tokens = 1; tokens <= 3; ++tokens) {
    EXPECT_TRUE(h.step());
    EXPECT_EQ(h.heard[id].tokens.size(), tokens);
  }
  EXPECT_FALSE(h.engine().has_unfinished());
  h.expect_idle();
}

TEST(Overlap, a_sequence_that_stops_has_a_surplus_row_whose_token_is_dropped) {
  Harness h(overlapping());
  Request request = text_request(6, 1, 20);
  const std::vector<TokenId> all = reference_tokens(request, 1, 1000, {}, 20);
  request.sampling.stop_token_ids = {all[4]};
  const RequestId id = h.submit(request);
  const RequestId other = h.submit(text_request(6, 50, 20));
  h.steps(5);
  EXPECT_EQ(h.reason(id), FinishReason::kStop);
  EXPECT_EQ(h.engine().metrics().rows_surplus, 0u) << "it still runs";
  EXPECT_TRUE(h.runner.requests().contains(id)) << "and the runner may need the request";
  const int64_t held = h.engine().metrics().blocks_used;
  h.step();
  EXPECT_EQ(h.engine().metrics().rows_surplus, 1u);
  EXPECT_LT(h.engine().metrics().blocks_used, held);
  EXPECT_FALSE(h.runner.requests().contains(id));
  h.run_to_end();
  h.expect_tokens(id, 5, FinishReason::kStop);
  h.expect_tokens(other, 20);
  EXPECT_EQ(h.engine().metrics().tokens_generated, 25u);
  h.expect_idle();
}

TEST(Overlap, an_aborted_request_keeps_its_blocks_until_its_step_has_ended) {
  for (const bool alone : {false, true}) {
    Harness h(overlapping());
    const RequestId id = h.submit(text_request(6, 1, 20));
    const RequestId other = alone ? 0 : h.submit(text_request(6, 50, 20));
    h.steps(3);
    const int64_t held = h.engine().metrics().blocks_used;
    EXPECT_TRUE(h.engine().abort(id).ok());
    EXPECT_EQ(h.engine().abort(id).code(), StatusCode::kNotFound);
    EXPECT_EQ(h.engine().metrics().blocks_used, held);
    EXPECT_TRUE(h.engine().check_invariants().empty());
    EXPECT_TRUE(h.engine().has_unfinished()) << "a step is with the runner";
    h.step();
    EXPECT_EQ(h.reason(id), FinishReason::kAborted);
    EXPECT_EQ(h.heard[id].tokens.size(), 3u);
    EXPECT_LT(h.engine().metrics().blocks_used, held);
    h.run_to_end();
    if (!alone) h.expect_tokens(other, 20);
    h.expect_idle();
  }
}

TEST(Overlap, sequences_of_one_request_end_one_by_one) {
  Harness h(overlapping());
  Request request = text_request(10, 1, 12);
  request.num_sequences = 3;
  const RequestId id = h.submit(request);
  h.steps(4);
  EXPECT_TRUE(h.engine().finish(id, 1).ok());
  EXPECT_TRUE(h.engine().check_invariants().empty());
  h.step();
  EXPECT_TRUE(h.runner.requests().contains(id)) << "two sequences go on";
  EXPECT_TRUE(h.engine().abort(id).ok());
  EXPECT_TRUE(h.engine().check_invariants().empty());
  EXPECT_TRUE(h.runner.requests().contains(id)) << "their rows run";
  h.run_to_end();
  h.expect_idle();
}

TEST(Overlap, penalties_wait_for_the_token_before) {
  Harness h(overlapping());
  Request request = text_request(6, 1, 10);
  request.sampling.presence_penalty = 0.5f;
  const RequestId id = h.submit(request);
  const RequestId plain = h.submit(text_request(6, 50, 10));
  h.run_to_end();
  h.expect_tokens(id, 10);
  h.expect_tokens(plain, 10);
  EXPECT_EQ(h.engine().metrics().steps_ahead, 0u);
}

TEST(Overlap, what_needs_a_victim_waits_for_the_step_that_runs) {
  EngineConfig c = overlapping();
  c.num_blocks = 9;
  c.headroom = 0;
  Harness h(c);
  std::vector<RequestId> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(h.submit(text_request(6, 20 * i, 16)));
  h.run_to_end();
  for (const RequestId id : ids) h.expect_tokens(id, 16);
  EXPECT_GT(h.engine().metrics().preemptions, 0u);
  EXPECT_GT(h.engine().metrics().steps_ahead, 0u);
  h.expect_idle();
}

TEST(Overlap, an_item_that_a_step_in_flight_encodes_is_not_encoded_again) {
  Harness h(overlapping());
  Request request = text_request(12, 1);
  MediaItem item{.offset = 4, .length = 6};
  item.id.bytes[0] = 1;
  request.media = {item};
  const RequestId first = h.submit(request);
  h.step();
  request.prompt_token_ids[0] = 70;  // another prefix: the item runs again, its rows are there
  const RequestId second = h.submit(request);
  h.run_to_end();
  h.expect_tokens(first, 8);
  h.expect_tokens(second, 8);
  EXPECT_EQ(h.runner.items_encoded, 1);
}

TEST(Overlap, caches_are_reset_behind_the_last_step) {
  Harness h(overlapping());
  const RequestId id = h.submit(text_request(9, 1, 20));
  h.steps(2);
  EXPECT_FALSE(h.engine().reset_caches().ok()) << "it runs";
  EXPECT_TRUE(h.engine().abort(id).ok());
  EXPECT_TRUE(h.engine().reset_caches().ok());
  EXPECT_EQ(h.engine().metrics().blocks_cached, 0);
  EXPECT_FALSE(h.engine().has_unfinished());
  h.expect_idle();
}

TEST(Overlap, a_runner_that_only_executes_runs_as_ever) {
  class OneAtATime : public testing::ShadowRunner {
   public:
    using ShadowRunner::ShadowRunner;
    bool overlaps() const override { return false; }
  };
  const EngineConfig c = overlapping();
  OneAtATime runner(c);
  auto engine = Engine::create(c, &runner).value();
  const Request request = text_request(6, 1, 5);
  const RequestId id = engine->submit(request).value();
  runner.expect(id, request);
  std::vector<TokenId> tokens;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(engine->step().ok());
    for (const RequestOutput& output : engine->take_outputs())
      for (const SampledToken& token : output.new_tokens) tokens.push_back(token.token);
  }
  EXPECT_EQ(tokens, reference_tokens(request, id, c.vocab_size, {}, 5));
  EXPECT_EQ(engine->metrics().steps_ahead, 0u);
  EXPECT_FALSE(engine->has_unfinished());
}

TEST(Overlap, an_engine_that_goes_takes_its_step_back) {
  const EngineConfig c = overlapping();
  testing::ShadowRunner runner(c);
  {
    auto engine = Engine::create(c, &runner).value();
    const Request request = text_request(6, 1, 5);
    runner.expect(engine->submit(request).value(), request);
    ASSERT_TRUE(engine->step().ok());
    EXPECT_EQ(runner.num_begun(), 1u);
  }
  EXPECT_EQ(runner.num_begun(), 0u);
}

}  // namespace
}  // namespace mmcore
