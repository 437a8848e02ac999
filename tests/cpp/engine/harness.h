// An engine with a shadow runner, and what its requests have given so far.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "engine/shadow_runner.h"
#include "mmcore/engine.h"

namespace mmcore::testing {

inline EngineConfig small_config() {
  EngineConfig c;
  c.block_size = 4;
  c.num_blocks = 41;
  c.max_model_len = 64;
  c.max_num_batched_tokens = 32;
  c.multimodal = true;
  c.vocab_size = 1000;
  c.hash_key = 1;
  return c;
}

/// A prompt of `length` different tokens from `first` on; greedy stops are out of the way.
inline Request text_request(int32_t length, TokenId first, int32_t max_tokens = 8) {
  Request r;
  r.prompt_token_ids.resize(static_cast<size_t>(length));
  std::iota(r.prompt_token_ids.begin(), r.prompt_token_ids.end(), first);
  r.sampling.max_tokens = max_tokens;
  return r;
}

struct Heard {  // of one request
  std::vector<TokenId> tokens;
  std::vector<float> prompt_logprobs;
  RequestOutput last;
};

class Harness {
 public:
  explicit Harness(const EngineConfig& config = small_config())
      : runner(config), engine_(Engine::create(config, &runner).value()) {}

  Engine& engine() { return *engine_; }

  RequestId submit(const Request& request) {
    const Result<RequestId> id = engine_->submit(request);
    EXPECT_TRUE(id.ok()) << id.status().message();
    if (!id.ok()) return 0;
    runner.expect(id.value(), request);
    requests[id.value()] = request;
    return id.value();
  }

  /// One step, with everything checked; returns whether it committed.
  bool step() {
    const Result<StepOutcome> outcome = engine_->step();
    EXPECT_TRUE(outcome.ok()) << outcome.status().message();
    collect();
    for (const std::string& violation : engine_->check_invariants()) ADD_FAILURE() << violation;
    for (const std::string& complaint : runner.complaints()) ADD_FAILURE() << complaint;
    return outcome.ok() && outcome.value().committed;
  }
  void steps(int count) {
    for (int i = 0; i < count; ++i) step();
  }
  void run_to_end() {
    for (int i = 0; engine_->has_unfinished() && i < 10'000; ++i) step();
    EXPECT_FALSE(engine_->has_unfinished());
  }
  void collect() {
    for (RequestOutput& output : engine_->take_outputs()) {
      Heard& h = heard[output.id];
      for (const SampledToken& token : output.new_tokens) h.tokens.push_back(token.token);
      for (const auto& entry : output.new_prompt_logprobs)
        h.prompt_logprobs.push_back(entry.at(0).logprob);
      h.last = std::move(output);
    }
  }

  FinishReason reason(RequestId id) { return heard[id].last.finish_reason; }
  /// The tokens that the request gives alone.
  std::vector<TokenId> alone(RequestId id, int64_t count) const {
    return reference_tokens(requests.at(id), id, engine_->config().vocab_size,
                            engine_->config().eos_token_ids, count);
  }
  void expect_tokens(RequestId id, int64_t count, FinishReason why = FinishReason::kLength) {
    EXPECT_EQ(heard[id].tokens, alone(id, count)) << "request " << id;
    EXPECT_EQ(reason(id), why) << "request " << id;
  }
  void expect_idle() {
    const EngineMetrics m = engine_->metrics();
    EXPECT_EQ(m.num_running + m.num_waiting, 0);
    EXPECT_EQ(m.blocks_used, 0);
    EXPECT_EQ(m.encoder_entries_pinned, 0);
    EXPECT_TRUE(runner.requests().empty()) << "every request is released";
  }

  ShadowRunner runner;
  std::map<RequestId, Heard> heard;
  std::map<RequestId, Request> requests;

 private:
  std::unique_ptr<Engine> engine_;
};

}  // namespace mmcore::testing
