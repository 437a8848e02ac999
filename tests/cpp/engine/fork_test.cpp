// Requests for several sequences: the prompt is computed once, each sequence is its own.
#include <gtest/gtest.h>

#include <set>

#include "engine/harness.h"

namespace mmcore {
namespace {

using testing::reference_tokens;
using testing::ShadowRunner;
using testing::small_config;
using testing::text_request;

/// Requests for several sequences in an engine that is checked after every step.
class Several {
 public:
  explicit Several(const EngineConfig& config)
      : runner(config), engine(Engine::create(config, &runner).value()), config_(config) {}

  RequestId submit(Request request, int32_t num_sequences) {
    request.num_sequences = num_sequences;
    const RequestId id = engine->submit(request).value();
    runner.expect(id, request);
    requests[id] = request;
    return id;
  }
  void step() {
    ASSERT_TRUE(engine->step().ok());
    for (const std::string& violation : engine->check_invariants()) ADD_FAILURE() << violation;
    for (const std::string& complaint : runner.complaints()) ADD_FAILURE() << complaint;
    for (const RequestOutput& output : engine->take_outputs()) {
      Heard& h = heard[{output.id, output.sequence}];
      EXPECT_EQ(h.reason, FinishReason::kNone) << "an output after the last one";
      for (const SampledToken& token : output.new_tokens) h.tokens.push_back(token.token);
      h.prompt_logprobs += output.new_prompt_logprobs.size();
      h.reason = output.finish_reason;
      h.error = output.error;
    }
  }
  void run_to_end() {
    for (int i = 0; engine->has_unfinished() && i < 5'000; ++i) step();
    step();  // takes what an abort gave
    EXPECT_FALSE(engine->has_unfinished());
    EXPECT_EQ(engine->metrics().blocks_used, 0);
    EXPECT_EQ(engine->metrics().encoder_entries_pinned, 0);
    EXPECT_TRUE(runner.requests().empty()) << "each request is released, once";
  }
  /// What sequence `index` gives when a request with its seed runs alone.
  std::vector<TokenId> alone(RequestId id, int32_t index, int64_t count) {
    Request request = requests.at(id);
    request.sampling.seed = sequence_seed(request.sampling.seed, index);
    return reference_tokens(request, id, config_.vocab_size, config_.eos_token_ids, count);
  }

  struct Heard {
    std::vector<TokenId> tokens;
    size_t prompt_logprobs = 0;
    FinishReason reason = FinishReason::kNone;
    Status error;
  };
  ShadowRunner runner;
  std::unique_ptr<Engine> engine;
  std::map<std::pair<RequestId, int32_t>, Heard> heard;
  std::map<RequestId, Request> requests;

 private:
  EngineConfig config_;
};

MediaItem private_item(int32_t offset, int32_t length) {
  return {.offset = offset, .length = length};
}

TEST(Fork, sequences_share_the_prompt_and_each_equals_its_request_alone) {
  for (const bool caching : {true, false}) {
    EngineConfig config = small_config();
    config.enable_prefix_caching = caching;
    Several several(config);
    Request request = text_request(19, 1, 6);
    request.media = {private_item(4, 3)};  // without identity: nothing of it is ever cached
    request.sampling.num_prompt_logprobs = 0;
    const RequestId id = several.submit(request, 4);
    several.step();
    EXPECT_EQ(several.runner.last_plan.token_ids.size(), 19u);
    several.step();
    EXPECT_EQ(several.runner.last_plan.token_ids.size(), 4u)
        << "the last prompt token, three times";
    EXPECT_EQ(several.runner.last_plan.block_copies.size(), 3u) << "the tail is half full";
    const auto used = several.engine->metrics().blocks_used;
    EXPECT_EQ(used, 4 + 4) << "four full blocks are shared";
    several.run_to_end();
    std::set<std::vector<TokenId>> different;
    for (int32_t i = 0; i < 4; ++i) {
      const auto& heard = several.heard[{id, i}];
      EXPECT_EQ(heard.tokens, several.alone(id, i, 6)) << "sequence " << i;
      EXPECT_EQ(heard.reason, FinishReason::kLength);
      EXPECT_EQ(heard.prompt_logprobs, i == 0 ? 18u : 0u);
      different.insert(heard.tokens);
    }
    EXPECT_EQ(different.size(), 4u) << "each has its own seed";
    const EngineMetrics m = several.engine->metrics();
    EXPECT_EQ(m.tokens_forked, 3u * 18u);
    EXPECT_EQ(m.items_encoded, 1u);
    EXPECT_EQ(m.requests_finished, 1u);
    EXPECT_EQ(m.encoder_entries, 0) << "the private item is forgotten with its request";
  }
}

TEST(Fork, the_others_come_when_the_prompt_is_there_even_if_the_first_is_done) {
  EngineConfig config = small_config();
  config.max_num_batched_tokens = 8;
  Several several(config);
  const RequestId id = several.submit(text_request(18, 1, 1), 3);
  for (int i = 0; i < 2; ++i) several.step();
  EXPECT_EQ(several.engine->metrics().num_waiting, 0) << "they are not in anybody's way";
  several.step();
  EXPECT_EQ(several.heard[std::pair(id, 0)].reason, FinishReason::kLength);
  several.run_to_end();
  for (int32_t i = 0; i < 3; ++i)
    EXPECT_EQ(several.heard[std::pair(id, i)].tokens, several.alone(id, i, 1));
  EXPECT_EQ(several.engine->metrics().tokens_planned, 18u + 2u * 2u)
      << "the others find four full blocks in the prefix cache";
}

TEST(Fork, under_pressure_sequences_are_preempted_one_by_one) {
  for (const bool caching : {true, false}) {
    EngineConfig config = small_config();
    config.num_blocks = 14;
    config.enable_prefix_caching = caching;
    Several several(config);
    const RequestId id = several.submit(text_request(10, 1, 30), 5);
    several.run_to_end();
    for (int32_t i = 0; i < 5; ++i)
      EXPECT_EQ(several.heard[std::pair(id, i)].tokens, several.alone(id, i, 30)) << i;
    EXPECT_GT(several.engine->metrics().preemptions, 0u);
  }
}

TEST(Fork, abort_ends_all_sequences_and_each_says_so_once) {
  for (const int steps : {0, 1, 2, 4}) {
    Several several(small_config());
    const RequestId id = several.submit(text_request(10, 1, 30), 3);
    const RequestId next = several.submit(text_request(5, 50, 3), 1);
    EXPECT_EQ(next, id + 3);
    for (int i = 0; i < steps; ++i) several.step();
    EXPECT_EQ(several.engine->abort(id + 1).code(), StatusCode::kNotFound) << "no request's id";
    EXPECT_TRUE(several.engine->abort(id).ok());
    EXPECT_EQ(several.engine->abort(id).code(), StatusCode::kNotFound);
    several.run_to_end();
    for (int32_t i = 0; i < 3; ++i)
      EXPECT_EQ(several.heard[std::pair(id, i)].reason, FinishReason::kAborted) << i;
    EXPECT_EQ(several.heard[std::pair(next, 0)].reason, FinishReason::kLength);
    EXPECT_EQ(several.engine->metrics().requests_aborted, 1u);
  }
}

TEST(Fork, finish_ends_one_sequence) {
  for (const int steps : {0, 1, 3}) {
    Several several(small_config());
    const RequestId id = several.submit(text_request(10, 1, 8), 3);
    for (int i = 0; i < steps; ++i) several.step();
    EXPECT_EQ(several.engine->finish(id, 3).code(), StatusCode::kNotFound);
    EXPECT_EQ(several.engine->finish(id, -1).code(), StatusCode::kNotFound);
    EXPECT_TRUE(several.engine->finish(id, 0).ok());
    EXPECT_EQ(several.engine->finish(id, 0).code(), StatusCode::kNotFound);
    several.run_to_end();
    EXPECT_EQ(several.heard[std::pair(id, 0)].reason, FinishReason::kStop);
    for (int32_t i = 1; i < 3; ++i)
      EXPECT_EQ(several.heard[std::pair(id, i)].tokens, several.alone(id, i, 8));
    EXPECT_EQ(several.engine->metrics().requests_finished, 1u);
  }
}

TEST(Fork, a_request_that_fails_ends_with_all_its_sequences) {
  for (const int healthy_steps : {0, 1, 3}) {
    Several several(small_config());
    const RequestId id = several.submit(text_request(10, 1, 8), 3);
    const RequestId other = several.submit(text_request(10, 30, 8), 2);
    for (int i = 0; i < healthy_steps; ++i) several.step();
    several.runner.poisoned.insert(id);
    several.run_to_end();
    for (int32_t i = 0; i < 3; ++i)
      EXPECT_EQ(several.heard[std::pair(id, i)].reason, FinishReason::kError) << i;
    for (int32_t i = 0; i < 2; ++i)
      EXPECT_EQ(several.heard[std::pair(other, i)].tokens, several.alone(other, i, 8));
    EXPECT_EQ(several.engine->metrics().requests_failed, 1u);
  }
}

TEST(Fork, a_queue_deadline_looks_at_the_request) {
  int64_t now = 0;
  EngineConfig config = small_config();
  config.max_num_seqs = 1;  // the second sequence waits for the first
  config.clock_us = [&] { return now; };
  Several several(config);
  Request request = text_request(10, 1, 4);
  request.queue_timeout_us = 10;
  const RequestId begun = several.submit(request, 2);
  several.step();
  const RequestId late = several.submit(request, 2);
  now = 50;
  several.run_to_end();
  for (int32_t i = 0; i < 2; ++i) {
    EXPECT_EQ(several.heard[std::pair(begun, i)].tokens, several.alone(begun, i, 4));
    EXPECT_EQ(several.heard[std::pair(late, i)].error.code(), StatusCode::kTimeout);
  }
}

TEST(Fork, the_number_of_sequences_is_checked) {
  EngineConfig config = small_config();
  config.max_sequences = 4;
  Several several(config);
  for (const int32_t n : {-1, 0, 5}) {
    Request request = text_request(4, 1);
    request.num_sequences = n;
    EXPECT_EQ(several.engine->submit(request).status().message(),
              "num_sequences must be in [1, 4] (max_sequences), got " + std::to_string(n) + ".");
  }
}

}  // namespace
}  // namespace mmcore
