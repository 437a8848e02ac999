// The bundled checkpoint through an engine: a request gives the same tokens however it is run.
// Equality with transformers is tests/python/native's.
#include <gtest/gtest.h>

#include <thread>

#include "native/serving.h"

namespace mmcore::native {
namespace {

using testing::bundled;
using testing::mixed_requests;
using testing::Picture;
using testing::serve;
using testing::Served;
using testing::Tokens;

class Runner : public ::testing::Test {
 protected:
  static std::unique_ptr<NativeRunner> load(RunnerOptions options = {}) {
    if (!options.dtype) options.dtype = DType::kFloat32;
    options.device = "cpu";
    auto runner = NativeRunner::load(bundled(), options);
    EXPECT_TRUE(runner.ok()) << runner.status().message();
    return std::move(runner).value();
  }
};

TEST_F(Runner, gives_the_same_tokens_alone_together_chunked_cached_and_preempted) {
  const auto runner = load();
  EngineConfig plain = runner->engine_config();
  plain.enable_prefix_caching = false;
  const Served alone = serve(*runner, plain, mixed_requests(*runner), false);
  for (const Tokens& tokens : alone.tokens) ASSERT_EQ(tokens.size(), 12u);
  ASSERT_EQ(alone.tokens[0], alone.tokens[3]);
  ASSERT_NE(alone.tokens[0], alone.tokens[4]) << "the pictures make no difference";

  const Served together = serve(*runner, plain, mixed_requests(*runner), true);
  EXPECT_EQ(together.tokens, alone.tokens);
  EXPECT_LT(together.metrics.steps, alone.metrics.steps);
  EXPECT_EQ(together.metrics.items_encoded, 3u) << "a picture that several show is encoded once";

  EngineConfig chunked = runner->engine_config();
  chunked.max_num_batched_tokens = 37;
  EXPECT_EQ(serve(*runner, chunked, mixed_requests(*runner), true).tokens, alone.tokens);

  const Served cached = serve(*runner, runner->engine_config(), mixed_requests(*runner), false);
  EXPECT_EQ(cached.tokens, alone.tokens);
  EXPECT_GT(cached.metrics.prefix_tokens_hit, 0u);

  EngineConfig tight = runner->engine_config();
  tight.num_blocks = 32;  // of 16: the prompt of two pictures takes 26
  tight.max_model_len = 450;
  tight.headroom = 0;
  const Served preempted = serve(*runner, tight, mixed_requests(*runner), true);
  EXPECT_EQ(preempted.tokens, alone.tokens);
}

TEST_F(Runner, computes_in_bfloat16_too) {
  const auto runner = load({.dtype = DType::kBFloat16});
  const Served served = serve(*runner, runner->engine_config(), mixed_requests(*runner), true);
  for (const Tokens& tokens : served.tokens) EXPECT_EQ(tokens.size(), 12u);
}

TEST_F(Runner, several_sequences_of_a_request_share_its_pictures) {
  const auto runner = load();
  std::vector<Request> one = mixed_requests(*runner);
  one.resize(1);
  one[0].num_sequences = 3;
  one[0].sampling.temperature = 1.0f;
  const Served served = serve(*runner, runner->engine_config(), one, true);
  EXPECT_EQ(served.tokens[0].size(), 36u);
  EXPECT_EQ(served.metrics.items_encoded, 1u);
  EXPECT_GT(served.metrics.tokens_forked, 0u);
}

TEST_F(Runner, gives_logprobs_of_prompts_and_of_tokens) {
  const auto runner = load();
  const auto engine = Engine::create(runner->engine_config(), runner.get()).value();
  // More rows than are computed at a time.
  Request request = runner->make_request(Tokens(600, 40)).value();
  request.sampling.num_prompt_logprobs = 2;
  request.sampling.num_logprobs = 4;
  request.sampling.max_tokens = 2;
  request.sampling.temperature = 0;
  ASSERT_TRUE(engine->submit(std::move(request)).ok());
  size_t positions = 0, tokens = 0;
  while (engine->has_unfinished()) {
    ASSERT_TRUE(engine->step().ok());
    for (const RequestOutput& output : engine->take_outputs()) {
      for (const auto& list : output.new_prompt_logprobs) {
        ++positions;
        ASSERT_EQ(list.size(), 3u);
        EXPECT_EQ(list[0].token, 40);
        EXPECT_LT(list[0].logprob, 0);
      }
      for (const SampledToken& token : output.new_tokens) {
        ++tokens;
        ASSERT_EQ(token.logprobs.size(), 5u);
        EXPECT_EQ(token.logprobs[1].token, token.token) << "greedy: the best one";
      }
    }
  }
  EXPECT_EQ(positions, 599u);
  EXPECT_EQ(tokens, 2u);
}

TEST_F(Runner, make_request_expands_placeholders_and_names_pictures_by_content) {
  const auto runner = load();
  const Picture a(1), same(1), other(2);
  const ImageView images[] = {a.view(), other.view()};
  const auto request = runner->make_request(Tokens{1, 4, 50, 4}, images).value();
  EXPECT_EQ(request.prompt_token_ids.size(), 2u + 2 * 196);
  ASSERT_EQ(request.media.size(), 2u);
  EXPECT_EQ(request.media[0].offset, 1);
  EXPECT_EQ(request.media[1].offset, 198);
  EXPECT_EQ(request.media[1].length, 196);
  EXPECT_NE(request.media[0].id, request.media[1].id);
  const ImageView again[] = {same.view()};
  EXPECT_EQ(runner->make_request(Tokens{4}, again).value().media[0].id, request.media[0].id);
}

TEST_F(Runner, make_request_refuses_what_does_not_fit_together) {
  const auto runner = load();
  const Picture a(1);
  const ImageView one[] = {a.view()};
  const auto code = [&](const Tokens& tokens, std::span<const ImageView> images) {
    return runner->make_request(tokens, images).status().code();
  };
  EXPECT_EQ(code({1, 2}, one), StatusCode::kPlaceholderMismatch);
  EXPECT_EQ(code({1, 4}, {}), StatusCode::kPlaceholderMismatch);
  EXPECT_EQ(code({4, 4}, one), StatusCode::kPlaceholderMismatch);
  const ImageView none[] = {{nullptr, 3, 3}};
  EXPECT_EQ(code({4}, none), StatusCode::kMediaError);
}

struct Foreign : MediaPayload {};

TEST_F(Runner, refuses_items_that_are_not_its_own) {
  const auto runner = load();
  const auto engine = Engine::create(runner->engine_config(), runner.get()).value();
  const Picture a(1);
  const ImageView one[] = {a.view()};
  const Request good = runner->make_request(Tokens{1, 4}, one).value();
  for (const std::shared_ptr<const MediaPayload>& payload :
       {std::shared_ptr<const MediaPayload>(), std::shared_ptr<const MediaPayload>(new Foreign)}) {
    Request bad = good;
    bad.media[0].payload = payload;
    EXPECT_EQ(engine->submit(std::move(bad)).status().code(), StatusCode::kMediaError);
  }
  Request adapter = good;
  adapter.lora_id = 3;
  EXPECT_EQ(engine->submit(std::move(adapter)).status().code(), StatusCode::kUnsupported);
  EXPECT_TRUE(engine->submit(good).ok());
}

TEST_F(Runner, a_placeholder_without_a_picture_fails_alone_or_runs_as_text) {
  // A host may write requests by hand. The bundled placeholder is in the table, so it is text.
  const auto runner = load();
  Request request;
  request.prompt_token_ids = {1, 4, 50};
  request.sampling.max_tokens = 2;
  request.sampling.ignore_eos = true;
  const Served served = serve(*runner, runner->engine_config(), {request}, true);
  EXPECT_EQ(served.tokens[0].size(), 2u);
}

TEST_F(Runner, requests_are_made_on_other_threads_while_steps_run) {
  const auto runner = load();
  const auto engine = Engine::create(runner->engine_config(), runner.get()).value();
  Request text = runner->make_request(Tokens(200, 50)).value();
  text.sampling.max_tokens = 50;
  text.sampling.ignore_eos = true;
  ASSERT_TRUE(engine->submit(std::move(text)).ok());
  std::vector<std::vector<ContentId>> ids(3);
  std::vector<std::thread> threads;
  for (auto& own : ids)
    threads.emplace_back([&runner, &own] {
      for (uint32_t i = 0; i < 8; ++i) {
        const Picture picture(i);
        const ImageView one[] = {picture.view()};
        own.push_back(runner->make_request(Tokens{4}, one).value().media[0].id);
      }
    });
  while (engine->has_unfinished()) ASSERT_TRUE(engine->step().ok());
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_EQ(ids[0], ids[2]);
}

}  // namespace
}  // namespace mmcore::native
