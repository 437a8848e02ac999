// A host that uses the C API only: a runner of C functions, an engine, requests. What it makes it
// destroys.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "mmcore/c_api.h"

namespace mmcore::testing {

constexpr int64_t kLongUs = 60'000'000;  // for what must not take long

/// "Samples" the token after the newest one, modulo the vocabulary.
struct CountingHost {
  int32_t vocab_size = 1000;
  int32_t num_host_blocks = 0;
  std::function<mmcore_status(const mmcore_step*, mmcore_step_result*)> before_step;
  std::function<mmcore_status(uint64_t, const mmcore_submission*)> on_accept;
  std::atomic<int> held = 0;
  std::atomic<int> destroyed = 0;

  static mmcore_status execute(void* context, const mmcore_step* step, mmcore_step_result* result) {
    auto* self = static_cast<CountingHost*>(context);
    if (self->before_step) {
      const mmcore_status status = self->before_step(step, result);
      if (status != MMCORE_OK) return status;
    }
    for (int64_t i = 0; i < step->num_sample_rows; ++i)
      result->tokens[i] = (step->token_ids[step->sample_rows[i]] + 1) % self->vocab_size;
    return MMCORE_OK;
  }
  static mmcore_status accept(void* context, uint64_t request, const mmcore_submission* content) {
    auto* self = static_cast<CountingHost*>(context);
    const mmcore_status status = self->on_accept ? self->on_accept(request, content) : MMCORE_OK;
    self->held += status == MMCORE_OK;
    return status;
  }
  static void release(void* context, uint64_t) { --static_cast<CountingHost*>(context)->held; }
  static void destroy(void* context) { ++static_cast<CountingHost*>(context)->destroyed; }

  mmcore_runner_functions functions() const {
    mmcore_runner_functions f{};
    f.struct_size = sizeof(f);
    f.num_host_blocks = num_host_blocks;
    f.execute = execute;
    f.accept = accept;
    f.release = release;
    f.destroy = destroy;
    return f;
  }
};

inline mmcore_config small_c_config() {
  mmcore_config config;
  EXPECT_EQ(mmcore_config_init(&config, sizeof(config)), MMCORE_OK);
  config.block_size = 4;
  config.num_blocks = 41;
  config.max_model_len = 64;
  config.max_num_batched_tokens = 32;
  config.multimodal = 1;
  config.vocab_size = 1000;
  return config;
}

/// A prompt of `length` different tokens from `first` on, with everything it points to.
struct CRequest {
  explicit CRequest(int32_t length, int32_t first, int32_t max_tokens = 8)
      : prompt(static_cast<size_t>(length)) {
    std::iota(prompt.begin(), prompt.end(), first);
    EXPECT_EQ(mmcore_sampling_init(&sampling, sizeof(sampling)), MMCORE_OK);
    EXPECT_EQ(mmcore_submission_init(&submission, sizeof(submission)), MMCORE_OK);
    sampling.max_tokens = max_tokens;
    submission.prompt_token_ids = prompt.data();
    submission.num_prompt_token_ids = length;
    submission.sampling = &sampling;
  }
  CRequest(const CRequest&) = delete;

  std::vector<int32_t> prompt;
  mmcore_sampling sampling;
  mmcore_submission submission;
};

struct CHeard {
  std::vector<int32_t> tokens;
  int32_t finish_reason = MMCORE_FINISH_NONE;
  mmcore_status error = MMCORE_OK;
  std::string message;
  mmcore_status last_read = MMCORE_OK;
};

/// Reads a request of one sequence to its end.
inline CHeard read_all(mmcore_request request) {
  CHeard heard;
  int32_t tokens[64];
  char message[256];
  mmcore_output output{};
  output.struct_size = sizeof(output);
  while (true) {
    output.tokens = tokens;
    output.tokens_capacity = 64;
    output.message = message;
    output.message_capacity = sizeof(message);
    heard.last_read = mmcore_request_read(request, kLongUs, &output);
    if (heard.last_read != MMCORE_OK) return heard;
    heard.tokens.insert(heard.tokens.end(), tokens, tokens + output.num_tokens);
    heard.finish_reason = output.finish_reason;
    heard.error = output.error;
    heard.message = message;
  }
}

/// What CountingHost gives for a prompt that ends with `last`.
inline std::vector<int32_t> counted_after(int32_t last, int32_t count) {
  std::vector<int32_t> out(static_cast<size_t>(count));
  std::iota(out.begin(), out.end(), last + 1);
  for (int32_t& token : out) token %= 1000;
  return out;
}

class CApiTest : public ::testing::Test {
 protected:
  void open(const mmcore_config& config = small_c_config()) {
    const mmcore_runner_functions functions = host.functions();
    ASSERT_EQ(mmcore_runner_create(&functions, &host, &runner), MMCORE_OK) << mmcore_last_error();
    ASSERT_EQ(mmcore_engine_create(&config, runner, &engine), MMCORE_OK) << mmcore_last_error();
  }
  mmcore_request submit(const CRequest& request) {
    mmcore_request handle = 0;
    EXPECT_EQ(mmcore_engine_submit(engine, &request.submission, &handle), MMCORE_OK)
        << mmcore_last_error();
    return handle;
  }
  void TearDown() override {
    if (runner == 0) return;
    EXPECT_EQ(mmcore_runner_destroy(runner), MMCORE_OK);
    if (engine != 0) {
      EXPECT_EQ(mmcore_engine_destroy(engine), MMCORE_OK) << mmcore_last_error();
    }
    EXPECT_EQ(host.destroyed, 1);
    EXPECT_EQ(host.held, 0) << "every accepted request is released";
  }

  CountingHost host;
  mmcore_runner runner = 0;
  mmcore_engine engine = 0;
};

}  // namespace mmcore::testing
