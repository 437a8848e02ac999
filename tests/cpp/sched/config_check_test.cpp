#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "sched/admission.h"

namespace mmcore {
namespace {

EngineConfig smallest() {
  EngineConfig c;
  c.num_blocks = 2;
  c.max_model_len = 2;
  c.vocab_size = 1;
  return c;
}

TEST(ConfigCheck, fills_in_what_follows_from_the_rest) {
  const EngineConfig c = resolve_config(smallest()).value();
  EXPECT_EQ(c.encoder_budget, 2048);
  EXPECT_EQ(c.encoder_cache_rows, 4 * 2048);
  EXPECT_EQ(c.logits_size, 1);
  EngineConfig given = smallest();
  given.encoder_budget = 5;
  given.encoder_cache_rows = 6;
  given.logits_size = 7;
  const EngineConfig kept = resolve_config(given).value();
  EXPECT_EQ(kept.encoder_budget, 5);
  EXPECT_EQ(kept.encoder_cache_rows, 6);
  EXPECT_EQ(kept.logits_size, 7);
  given.encoder_budget = std::numeric_limits<int64_t>::max();
  given.encoder_cache_rows = 0;
  EXPECT_GT(resolve_config(given).value().encoder_cache_rows, 0) << "no overflow";
}

TEST(ConfigCheck, takes_every_power_of_two_up_to_128_as_block_size) {
  for (int32_t size = -1; size <= 300; ++size) {
    EngineConfig c = smallest();
    c.block_size = size;
    const bool expected = size == 1 || size == 2 || size == 4 || size == 8 || size == 16 ||
                          size == 32 || size == 64 || size == 128;
    EXPECT_EQ(resolve_config(c).ok(), expected) << size;
  }
}

TEST(ConfigCheck, names_the_option_that_is_wrong) {
  struct Case {
    std::function<void(EngineConfig&)> change;
    const char* option;
  };
  const std::vector<Case> cases = {
      {[](auto& c) { c.num_blocks = 1; }, "num_blocks must be at least 2, got 1"},
      {[](auto& c) { c.num_host_blocks = -1; }, "num_host_blocks must be at least 0, got -1"},
      {[](auto& c) { c.max_model_len = 1; }, "max_model_len must be at least 2"},
      {[](auto& c) { c.max_num_seqs = 0; }, "max_num_seqs"},
      {[](auto& c) { c.max_num_batched_tokens = 0; }, "max_num_batched_tokens"},
      {[](auto& c) { c.max_prefill_chunk = -1; }, "max_prefill_chunk"},
      {[](auto& c) { c.max_queued_requests = -1; }, "max_queued_requests"},
      {[](auto& c) { c.max_queued_tokens = -1; }, "max_queued_tokens"},
      {[](auto& c) { c.max_preemptions = -1; }, "max_preemptions"},
      {[](auto& c) { c.headroom = -1; }, "headroom"},
      {[](auto& c) { c.headroom = 101; }, "headroom"},
      {[](auto& c) { c.step_watchdog_us = -1; }, "step_watchdog_us"},
      {[](auto& c) { c.max_sequences = 0; }, "max_sequences must be at least 1"},
      {[](auto& c) { c.max_sequences = 65536; }, "max_sequences must be at most 65535"},
      {[](auto& c) { c.encoder_budget = -1; }, "encoder_budget"},
      {[](auto& c) { c.encoder_cache_rows = -1; }, "encoder_cache_rows"},
      {[](auto& c) { c.vocab_size = 0; }, "vocab_size"},
      {[](auto& c) { c.logits_size = -1; }, "logits_size"},
      {[](auto& c) { c.max_logprobs = -1; }, "max_logprobs"},
      {[](auto& c) { c.max_logit_bias = -1; }, "max_logit_bias"},
      {[](auto& c) { c.max_stop_token_ids = -1; }, "max_stop_token_ids"},
      {[](auto& c) { c.hash_bits = 0; }, "hash_bits"},
      {[](auto& c) { c.hash_bits = 65; }, "hash_bits"},
      {[](auto& c) { c.policy = static_cast<SchedulingPolicy>(9); }, "policy"},
      {[](auto& c) { c.eos_token_ids = {0, 1}; }, "eos_token_ids must be in [0, 1), got 1"},
      {[](auto& c) {
         c.enable_chunked_prefill = false;
         c.max_model_len = 2049;
       },
       "max_num_batched_tokens (2048) is smaller than max_model_len (2049)"},
  };
  for (const Case& c : cases) {
    EngineConfig config = smallest();
    c.change(config);
    const Status status = resolve_config(config).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << c.option;
    EXPECT_NE(status.message().find(c.option), std::string::npos) << status.message();
  }
}

}  // namespace
}  // namespace mmcore
