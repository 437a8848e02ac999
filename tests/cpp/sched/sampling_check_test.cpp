#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "sched/admission.h"

namespace mmcore {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

EngineConfig example_config() {
  EngineConfig c;
  c.num_blocks = 100;
  c.max_model_len = 64;
  c.vocab_size = 50;
  c.logits_size = 40;
  c.eos_token_ids = {2};
  c.max_logprobs = 5;
  c.max_logit_bias = 3;
  c.max_stop_token_ids = 2;
  return resolve_config(c).value();
}

struct Case {
  std::function<void(SamplingParams&)> change;
  const char* says;  // whole message; empty: accepted
};

TEST(SamplingCheck, refuses_what_is_out_of_range_with_the_value_given) {
  const std::vector<Case> cases = {
      {[](auto& p) { p.presence_penalty = 2.5f; }, "presence_penalty must be in [-2, 2], got 2.5."},
      {[](auto& p) { p.presence_penalty = -2.0f; }, ""},
      {[](auto& p) { p.presence_penalty = kNan; }, "presence_penalty must be in [-2, 2], got nan."},
      {[](auto& p) { p.frequency_penalty = -3.0f; },
       "frequency_penalty must be in [-2, 2], got -3.0."},
      {[](auto& p) { p.frequency_penalty = kInf; },
       "frequency_penalty must be in [-2, 2], got inf."},
      {[](auto& p) { p.repetition_penalty = 0.0f; },
       "repetition_penalty must be in (0, 2], got 0.0."},
      {[](auto& p) { p.repetition_penalty = kNan; },
       "repetition_penalty must be in (0, 2], got nan."},
      {[](auto& p) { p.repetition_penalty = 2.0f; }, ""},
      {[](auto& p) { p.temperature = -0.1f; }, "temperature must be non-negative, got -0.1."},
      {[](auto& p) { p.temperature = kNan; }, "temperature must be non-negative, got nan."},
      {[](auto& p) { p.temperature = kInf; }, "temperature must be at most 1000000, got inf."},
      {[](auto& p) { p.temperature = 1e9f; }, "temperature must be at most 1000000, got 1e+09."},
      {[](auto& p) { p.temperature = 0.0f; }, ""},
      {[](auto& p) { p.top_p = 0.0f; }, "top_p must be in (0, 1], got 0.0."},
      {[](auto& p) { p.top_p = 1.1f; }, "top_p must be in (0, 1], got 1.1."},
      {[](auto& p) { p.top_p = kNan; }, "top_p must be in (0, 1], got nan."},
      {[](auto& p) { p.top_k = 0; }, "top_k must be -1 (disable), or at least 1, got 0."},
      {[](auto& p) { p.top_k = -2; }, "top_k must be -1 (disable), or at least 1, got -2."},
      {[](auto& p) { p.top_k = 1'000'000; }, ""},
      {[](auto& p) { p.min_p = -0.5f; }, "min_p must be in [0, 1], got -0.5."},
      {[](auto& p) { p.min_p = kNan; }, "min_p must be in [0, 1], got nan."},
      {[](auto& p) { p.max_tokens = 0; }, "max_tokens must be at least 1, got 0."},
      {[](auto& p) { p.min_tokens = -1; },
       "min_tokens must be greater than or equal to 0, got -1."},
      {[](auto& p) { p.min_tokens = 17; },
       "min_tokens must be less than or equal to max_tokens=16, got 17."},
      {[](auto& p) { p.min_tokens = 16; }, ""},
      {[](auto& p) { p.num_logprobs = -2; }, "logprobs must be non-negative, got -2."},
      {[](auto& p) { p.num_logprobs = 6; }, "logprobs must be at most max_logprobs=5, got 6."},
      {[](auto& p) { p.num_logprobs = 0; }, ""},
      {[](auto& p) { p.num_prompt_logprobs = 6; },
       "prompt_logprobs must be at most max_logprobs=5, got 6."},
      {[](auto& p) { p.num_prompt_logprobs = 5; }, ""},
      {[](auto& p) { p.stop_token_ids = {40}; },
       "stop_token_ids must hold token ids in [0, 40), got 40."},
      {[](auto& p) { p.stop_token_ids = {-1}; },
       "stop_token_ids must hold token ids in [0, 40), got -1."},
      {[](auto& p) { p.stop_token_ids = {1, 2, 3}; },
       "stop_token_ids must have at most 2 entries, got 3."},
      {[](auto& p) { p.logit_bias = {{39, 1.0f}}; }, ""},
      {[](auto& p) { p.logit_bias = {{40, 1.0f}}; },
       "logit_bias must hold token ids in [0, 40), got 40."},
      {[](auto& p) { p.logit_bias = {{1, kNan}}; }, "logit_bias must hold finite values, got nan."},
      {[](auto& p) { p.logit_bias = {{1, -kInf}}; },
       "logit_bias must hold finite values, got -inf."},
      {[](auto& p) { p.logit_bias.assign(4, {1, 0.0f}); },
       "logit_bias must have at most 3 entries, got 4."},
      {[](auto& p) { p.allowed_token_ids = {40}; },
       "allowed_token_ids must hold token ids in [0, 40), got 40."},
      {[](auto& p) { p.allowed_token_ids.assign(41, 1); },
       "allowed_token_ids must have at most 40 entries, got 41."},
      {[](auto& p) {
         p.min_tokens = 1;
         p.stop_token_ids = {3};
         p.allowed_token_ids = {2, 3};
       },
       "allowed_token_ids holds stop tokens only, which min_tokens=1 forbids. Allow another token "
       "or set min_tokens=0."},
      {[](auto& p) {
         p.min_tokens = 1;
         p.ignore_eos = true;
         p.allowed_token_ids = {2};
       },
       ""},
  };
  for (const Case& c : cases) {
    SamplingParams params;
    c.change(params);
    const Status status = check_sampling(params, example_config());
    EXPECT_EQ(status.message(), c.says);
    EXPECT_EQ(status.code(), *c.says == '\0' ? StatusCode::kOk : StatusCode::kInvalidArgument);
  }
}

TEST(SamplingCheck, the_defaults_are_accepted) {
  EXPECT_TRUE(check_sampling(SamplingParams(), example_config()).ok());
}

}  // namespace
}  // namespace mmcore
