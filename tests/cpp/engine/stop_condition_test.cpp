#include "engine/stop_condition.h"

#include <gtest/gtest.h>

namespace mmcore {
namespace {

struct Case {
  const char* name;
  std::vector<TokenId> outputs;
  int32_t min_tokens;
  int32_t max_tokens;
  int64_t length_limit;
  bool ignore_eos;
  FinishReason reason;
  TokenId stop_token;
};

// EOS is 2, stop tokens are 7 and 2; the prompt has three tokens.
TEST(StopCondition, decides_by_token_then_by_length) {
  for (const Case& c : {
           Case{"ordinary", {5}, 0, 10, 100, false, FinishReason::kNone, -1},
           Case{"eos", {5, 2}, 0, 10, 100, false, FinishReason::kStop, -1},
           Case{"eos ignored, but a stop token", {2}, 0, 10, 100, true, FinishReason::kStop, 2},
           Case{"stop token", {7}, 0, 10, 100, false, FinishReason::kStop, 7},
           Case{"stop as the last allowed", {5, 7}, 0, 2, 100, false, FinishReason::kStop, 7},
           Case{"before min_tokens", {7}, 1, 10, 100, false, FinishReason::kNone, -1},
           Case{"after min_tokens", {5, 7}, 1, 10, 100, false, FinishReason::kStop, 7},
           Case{"max_tokens", {5, 5}, 0, 2, 100, false, FinishReason::kLength, -1},
           Case{"max_tokens before min_tokens", {7}, 1, 1, 100, false, FinishReason::kLength, -1},
           Case{"length limit", {5, 5}, 0, 10, 5, false, FinishReason::kLength, -1},
           Case{"below the length limit", {5}, 0, 10, 5, false, FinishReason::kNone, -1},
       }) {
    Request request;
    request.prompt_token_ids = {1, 1, 1};
    request.sampling.stop_token_ids = {7, 2};
    request.sampling.min_tokens = c.min_tokens;
    request.sampling.max_tokens = c.max_tokens;
    request.sampling.ignore_eos = c.ignore_eos;
    const std::vector<TokenId> eos = {2};
    Sequence sequence(1, std::move(request), 4, 10, eos);
    for (const TokenId token : c.outputs) sequence.tokens.push_back(token);
    const StopDecision decision = check_stop(sequence, sequence.size(), eos, c.length_limit);
    EXPECT_EQ(decision.reason, c.reason) << c.name;
    EXPECT_EQ(decision.stop_token, c.stop_token) << c.name;
  }
}

}  // namespace
}  // namespace mmcore
