// The engine from submit to the last output, with a shadow model.
#include "mmcore/engine.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/harness.h"

namespace mmcore {
namespace {

using testing::Harness;
using testing::small_config;
using testing::text_request;

MediaItem item(int32_t offset, int32_t length, uint8_t content, std::vector<uint8_t> mask = {}) {
  MediaItem made{.offset = offset, .length = length, .embed_mask = std::move(mask)};
  made.id.bytes[3] = content;
  return made;
}

TEST(Engine, create_refuses_a_bad_configuration) {
  testing::ShadowRunner runner(small_config());
  EngineConfig bad = small_config();
  bad.block_size = 3;
  EXPECT_EQ(Engine::create(bad, &runner).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Engine::create(small_config(), nullptr).status().code(), StatusCode::kInvalidArgument);
}

TEST(Engine, config_shows_the_derived_defaults) {
  Harness h;
  EXPECT_EQ(h.engine().config().encoder_budget, 32);
  EXPECT_EQ(h.engine().config().logits_size, 1000);
  EXPECT_EQ(h.engine().max_servable_tokens(), 160);
}

TEST(Engine, a_refused_request_leaves_nothing_behind) {
  Harness h;
  EXPECT_FALSE(h.engine().submit(Request()).ok());
  EXPECT_FALSE(h.engine().has_unfinished());
  EXPECT_EQ(h.engine().metrics().requests_rejected, 1u);
  const Result<StepOutcome> outcome = h.engine().step();
  ASSERT_TRUE(outcome.ok());
  EXPECT_EQ(outcome.value().num_sequences, 0);
  EXPECT_FALSE(outcome.value().committed);
  EXPECT_EQ(h.runner.steps, 0);
}

TEST(Engine, a_full_queue_refuses) {
  EngineConfig config = small_config();
  config.max_queued_requests = 2;
  Harness h(config);
  h.submit(text_request(4, 1));
  h.submit(text_request(4, 1));
  const Status status = h.engine().submit(text_request(4, 1)).status();
  EXPECT_EQ(status.code(), StatusCode::kOverloaded);
  EXPECT_NE(status.message().find("2 requests wait"), std::string::npos);
  h.step();
  h.submit(text_request(4, 1));
  h.run_to_end();
}

TEST(Engine, ids_are_never_used_twice) {
  Harness h;
  const RequestId first = h.submit(text_request(4, 1, 1));
  h.run_to_end();
  EXPECT_EQ(h.submit(text_request(4, 1, 1)), first + 1);
  EXPECT_EQ(h.engine().abort(first).code(), StatusCode::kNotFound);
  h.run_to_end();
  h.expect_idle();
}

TEST(Engine, gives_each_token_once_and_in_order) {
  Harness h;
  const RequestId id = h.submit(text_request(6, 1, 3));
  std::vector<FinishReason> reasons;
  while (h.engine().has_unfinished()) {
    h.step();
    reasons.push_back(h.reason(id));
    EXPECT_EQ(h.heard[id].last.new_tokens.size(), 1u);
  }
  EXPECT_EQ(reasons,
            (std::vector{FinishReason::kNone, FinishReason::kNone, FinishReason::kLength}));
  h.expect_tokens(id, 3);
  EXPECT_TRUE(h.engine().take_outputs().empty());
  h.expect_idle();
}

TEST(Engine, take_outputs_uses_the_callers_memory_again) {
  Harness h;
  const RequestId id = h.submit(text_request(6, 1, 4));
  std::vector<RequestOutput> batch;
  std::vector<TokenId> tokens;
  while (h.engine().has_unfinished()) {
    ASSERT_TRUE(h.engine().step().ok());
    h.engine().take_outputs(batch);
    ASSERT_EQ(batch.size(), 1u);
    ASSERT_EQ(batch[0].new_tokens.size(), 1u);
    tokens.push_back(batch[0].new_tokens[0].token);
  }
  EXPECT_EQ(tokens, h.alone(id, 4));
  h.engine().take_outputs(batch);
  EXPECT_TRUE(batch.empty());
}

TEST(Engine, stops_at_eos_at_stop_tokens_and_at_lengths) {
  Harness probe;
  const RequestId id = probe.submit(text_request(6, 1, 8));
  probe.run_to_end();
  const TokenId third = probe.heard[id].tokens[2];

  EngineConfig with_eos = small_config();
  with_eos.eos_token_ids = {third};
  Harness h(with_eos);
  const RequestId eos = h.submit(text_request(6, 1, 8));
  Request ignoring = text_request(6, 1, 8);
  ignoring.sampling.ignore_eos = true;
  const RequestId ignored = h.submit(ignoring);
  Request stopping = ignoring;
  stopping.sampling.stop_token_ids = {5, third};
  const RequestId stop = h.submit(stopping);
  Request longer = text_request(6, 1, 8);
  longer.sampling.min_tokens = 5;
  const RequestId min_tokens = h.submit(longer);
  h.run_to_end();
  h.expect_tokens(eos, 3, FinishReason::kStop);
  EXPECT_EQ(h.heard[eos].last.stop_token, -1);
  h.expect_tokens(ignored, 8);
  h.expect_tokens(stop, 3, FinishReason::kStop);
  EXPECT_EQ(h.heard[stop].last.stop_token, third);
  EXPECT_GE(h.heard[min_tokens].tokens.size(), 6u);
  EXPECT_EQ(std::ranges::count(h.heard[min_tokens].tokens, third), 0);
}

TEST(Engine, an_output_that_outgrows_the_model_ends_with_length) {
  Harness h;
  const RequestId id = h.submit(text_request(60, 1, 1000));
  h.run_to_end();
  h.expect_tokens(id, 4);
}

// B48: the output would outgrow the pool; it ends, and is not preempted forever.
TEST(Engine, an_output_that_outgrows_the_pool_ends_with_length) {
  EngineConfig config = small_config();
  config.num_blocks = 6;
  Harness h(config);
  const RequestId id = h.submit(text_request(15, 1, 1000));
  const RequestId other = h.submit(text_request(15, 100, 1000));
  h.run_to_end();
  h.expect_tokens(id, 5);
  h.expect_tokens(other, 5);
  EXPECT_EQ(h.engine().metrics().preemptions, 0u);
}

TEST(Engine, preempted_requests_give_the_tokens_that_they_give_alone) {
  EngineConfig config = small_config();
  config.num_blocks = 13;
  config.enable_prefix_caching = false;
  Harness h(config);
  std::vector<RequestId> ids;
  for (int i = 0; i < 4; ++i) ids.push_back(h.submit(text_request(9, 100 * i, 30)));
  h.run_to_end();
  for (const RequestId id : ids) h.expect_tokens(id, 30);
  EXPECT_GT(h.engine().metrics().preemptions, 0u);
  EXPECT_EQ(h.heard[ids[0]].last.num_preemptions, 0) << "the oldest is never the victim";
  h.expect_idle();
}

TEST(Engine, a_shared_prefix_is_computed_once) {
  Harness h;
  const RequestId first = h.submit(text_request(20, 1));
  h.run_to_end();
  const int64_t before = h.runner.prefill_tokens;
  const RequestId second = h.submit(text_request(22, 1));
  h.run_to_end();
  EXPECT_EQ(h.runner.prefill_tokens - before, 2);
  EXPECT_EQ(h.heard[second].last.num_cached_tokens, 20);
  EXPECT_EQ(h.heard[first].last.num_cached_tokens, 0);
  h.expect_tokens(second, 8);
}

TEST(Engine, generated_tokens_are_cached_too) {
  Harness h;
  const RequestId first = h.submit(text_request(8, 1, 9));
  h.run_to_end();
  Request conversation = text_request(8, 1, 4);  // the answer and one more token
  for (const TokenId token : h.heard[first].tokens) conversation.prompt_token_ids.push_back(token);
  const RequestId second = h.submit(conversation);
  h.run_to_end();
  EXPECT_EQ(h.heard[second].last.num_cached_tokens, 16);
  h.expect_tokens(second, 4);
}

TEST(Engine, salts_and_adapters_share_nothing) {
  Harness h;
  Request salted = text_request(12, 1);
  salted.cache_salt = "tenant";
  salted.media = {item(2, 4, 9)};
  Request adapted = salted;
  adapted.cache_salt = "";
  adapted.lora_id = 4;
  Request plain = salted;
  plain.cache_salt = "";
  std::vector<RequestId> ids;
  for (const Request& request : {salted, adapted, plain}) {
    ids.push_back(h.submit(request));
    h.run_to_end();
    EXPECT_EQ(h.heard[ids.back()].last.num_cached_tokens, 0);
    h.expect_tokens(ids.back(), 8);
  }
  EXPECT_EQ(h.runner.items_encoded, 3);
  ids.push_back(h.submit(salted));
  h.run_to_end();
  EXPECT_EQ(h.heard[ids.back()].last.num_cached_tokens, 11);
}

TEST(Engine, a_different_image_is_a_different_prefix) {
  Harness h;
  for (const uint8_t content : {uint8_t{1}, uint8_t{2}}) {
    Request request = text_request(12, 1);
    request.media = {item(5, 3, content)};
    const RequestId id = h.submit(request);
    h.run_to_end();
    EXPECT_EQ(h.heard[id].last.num_cached_tokens, content == 1 ? 0 : 4);
    h.expect_tokens(id, 8);
  }
}

TEST(Engine, an_image_is_encoded_once_while_anyone_remembers_it) {
  Harness h;
  Request request = text_request(16, 1);
  request.media = {item(5, 6, 1, {1, 1, 0, 1, 1, 0})};
  Request elsewhere = text_request(16, 200);
  elsewhere.media = {item(2, 6, 1, {1, 1, 0, 1, 1, 0})};
  const RequestId first = h.submit(request);
  h.run_to_end();
  const RequestId second = h.submit(request);   // the KV cache knows it
  const RequestId third = h.submit(elsewhere);  // the encoder cache knows it
  h.run_to_end();
  for (const RequestId id : {first, second, third}) h.expect_tokens(id, 8);
  EXPECT_EQ(h.runner.items_encoded, 1);
  EXPECT_EQ(h.engine().metrics().items_encoded, 1u);
  EXPECT_EQ(h.engine().metrics().items_skipped, 2u);
  EXPECT_EQ(h.engine().metrics().encoder_rows, 4);
  ASSERT_TRUE(h.engine().reset_caches().ok());
  const RequestId fourth = h.submit(request);
  h.run_to_end();
  h.expect_tokens(fourth, 8);
  EXPECT_EQ(h.runner.items_encoded, 2);
}

TEST(Engine, user_text_that_spells_a_placeholder_is_text) {
  Harness h;
  Request image = text_request(8, 7);
  image.media = {item(2, 3, 1)};
  const RequestId with_image = h.submit(image);
  const RequestId text_only = h.submit(text_request(8, 7));
  h.run_to_end();
  h.expect_tokens(with_image, 8);
  h.expect_tokens(text_only, 8);
  EXPECT_EQ(h.runner.items_encoded, 1);
}

TEST(Engine, prompt_logprobs_come_once_for_each_position_after_the_first) {
  EngineConfig config = small_config();
  config.num_blocks = 14;
  config.enable_prefix_caching = false;
  config.max_num_batched_tokens = 5;
  Harness h(config);
  Request request = text_request(13, 1, 20);
  request.sampling.num_prompt_logprobs = 2;
  std::vector<RequestId> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(h.submit(request));
  h.run_to_end();
  EXPECT_GT(h.engine().metrics().preemptions, 0u);
  for (const RequestId id : ids) {
    EXPECT_EQ(h.heard[id].prompt_logprobs, testing::reference_prompt_logprobs(request, id));
    h.expect_tokens(id, 20);
  }
}

TEST(Engine, abort_and_finish_work_in_every_state_and_once) {
  Harness h;
  const RequestId waiting = h.submit(text_request(6, 1));
  EXPECT_TRUE(h.engine().abort(waiting).ok());
  EXPECT_EQ(h.engine().abort(waiting).code(), StatusCode::kNotFound);
  EXPECT_EQ(h.engine().finish(waiting).code(), StatusCode::kNotFound);
  EXPECT_EQ(h.engine().abort(0).code(), StatusCode::kNotFound);
  EXPECT_EQ(h.engine().abort(999).code(), StatusCode::kNotFound);
  const RequestId prefilling = h.submit(text_request(50, 1));
  const RequestId decoding = h.submit(text_request(4, 60));
  const RequestId other = h.submit(text_request(4, 90));
  h.steps(3);
  EXPECT_TRUE(h.engine().abort(prefilling).ok());
  EXPECT_TRUE(h.engine().finish(decoding).ok());
  h.run_to_end();
  h.collect();
  EXPECT_EQ(h.reason(waiting), FinishReason::kAborted);
  EXPECT_EQ(h.reason(prefilling), FinishReason::kAborted);
  EXPECT_EQ(h.reason(decoding), FinishReason::kStop);
  h.expect_tokens(other, 8);
  h.expect_idle();
  const EngineMetrics m = h.engine().metrics();
  EXPECT_EQ(m.requests_aborted, 2u);
  EXPECT_EQ(m.requests_finished, 2u);
}

TEST(Engine, resetting_the_caches_waits_for_running_requests) {
  Harness h;
  const RequestId id = h.submit(text_request(8, 1, 4));
  h.step();
  EXPECT_EQ(h.engine().reset_caches().code(), StatusCode::kInvalidArgument);
  h.run_to_end();
  EXPECT_GT(h.engine().metrics().blocks_cached, 0);
  EXPECT_TRUE(h.engine().reset_caches().ok());
  EXPECT_EQ(h.engine().metrics().blocks_cached, 0);
  h.expect_tokens(id, 4);
}

TEST(Engine, the_same_calls_give_the_same_plans) {
  std::vector<StepPlan> plans[2];
  for (std::vector<StepPlan>& recorded : plans) {
    EngineConfig config = small_config();
    config.num_blocks = 17;
    Harness h(config);
    for (int i = 0; i < 6; ++i) {
      Request request = text_request(8 + i, 5 * i, 20);
      request.media = {item(3, 3, static_cast<uint8_t>(1 + i % 2))};
      h.submit(request);
    }
    while (h.engine().has_unfinished()) {
      h.step();
      recorded.push_back(h.runner.last_plan);
    }
  }
  ASSERT_EQ(plans[0].size(), plans[1].size());
  for (size_t i = 0; i < plans[0].size(); ++i) {
    EXPECT_EQ(plans[0][i].token_ids, plans[1][i].token_ids);
    EXPECT_EQ(plans[0][i].slot_mapping, plans[1][i].slot_mapping);
    EXPECT_EQ(plans[0][i].block_tables, plans[1][i].block_tables);
    EXPECT_EQ(plans[0][i].evict, plans[1][i].evict);
  }
}

TEST(Engine, a_new_prefix_is_computed_once_by_the_step_that_meets_it_twice) {
  for (const bool share : {true, false}) {
    EngineConfig config = small_config();
    config.max_num_batched_tokens = 64;
    config.share_within_step = share;
    Harness h(config);
    for (int i = 0; i < 3; ++i) {
      Request request = text_request(19, 1, 3);
      request.media = {item(5, 6, 1)};
      request.prompt_token_ids.back() = 100 + i;
      h.submit(request);
    }
    h.step();
    EXPECT_EQ(h.runner.last_plan.token_ids.size(), share ? 19u + 3u + 3u : 3u * 19u);
    EXPECT_EQ(h.runner.last_plan.encode.size(), 1u);
    h.run_to_end();
    for (RequestId id = 1; id <= 3; ++id) h.expect_tokens(id, 3);
    EXPECT_EQ(h.engine().metrics().prefix_tokens_shared, share ? 32u : 0u);
  }
}

TEST(Engine, counts_what_it_does) {
  EngineConfig config = small_config();
  config.share_within_step = false;
  Harness h(config);
  h.submit(text_request(20, 1, 3));
  h.submit(text_request(20, 1, 3));
  h.run_to_end();
  h.submit(text_request(20, 1, 3));
  h.run_to_end();
  const EngineMetrics m = h.engine().metrics();
  EXPECT_EQ(m.requests_submitted, 3u);
  EXPECT_EQ(m.requests_finished, 3u);
  EXPECT_EQ(m.tokens_generated, 9u);
  EXPECT_EQ(m.prefix_tokens_queried, 60u);
  EXPECT_EQ(m.prefix_tokens_hit, 19u);
  EXPECT_EQ(m.block_copies, 1u) << "the last prompt token is computed in a copy";
  EXPECT_EQ(m.tokens_planned, 20u + 20u + 1u + 3u * 2u);
  EXPECT_EQ(m.steps, static_cast<uint64_t>(h.runner.steps));
  EXPECT_EQ(m.blocks_total, 40);
}

}  // namespace
}  // namespace mmcore
