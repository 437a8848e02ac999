// What was seen of answers, however they ended, says how many requests run at once (docs:
// sched.headroom).
#include <gtest/gtest.h>

#include "engine/harness.h"

namespace mmcore {
namespace {

using testing::Harness;
using testing::small_config;
using testing::text_request;

enum class End { kStopToken, kFinish, kAbort, kLength };

EngineConfig roomy_config() {
  EngineConfig config = small_config();
  config.enable_prefix_caching = false;
  config.num_blocks = 161;
  config.max_num_batched_tokens = 800;
  return config;
}

// An answer of `tokens`, ended in the given way.
void show_answer(Harness& h, TokenId first, int32_t tokens, End end) {
  Request request = text_request(4, first, end == End::kLength ? tokens : 55);
  request.sampling.min_tokens = tokens - 1;
  if (end == End::kStopToken) {
    const int32_t vocab = h.engine().config().vocab_size;
    const auto next = static_cast<RequestId>(h.requests.size() + 1);
    request.sampling.stop_token_ids = {
        testing::reference_tokens(request, next, vocab, {}, tokens).back()};
  }
  const RequestId id = h.submit(request);
  while (h.heard[id].tokens.size() < static_cast<size_t>(tokens)) h.step();
  const Status status = end == End::kFinish  ? h.engine().finish(id)
                        : end == End::kAbort ? h.engine().abort(id)
                                             : Status();
  EXPECT_TRUE(status.ok()) << status.message();
  h.run_to_end();
}

// Of 150 requests that may stop, those that enter in the first step.
int64_t num_let_in(Harness& h) {
  for (TokenId i = 0; i < 150; ++i) h.submit(text_request(4, 6 * i + 5, 55));
  h.step();
  const int64_t running = h.engine().metrics().num_running;
  h.run_to_end();
  return running;
}

int64_t num_let_in_after(int32_t tokens, End end) {
  Harness h(roomy_config());
  for (TokenId i = 0; i < 20; ++i) show_answer(h, 10 * i, tokens, end);
  return num_let_in(h);
}

int64_t num_let_in_unseen() {
  Harness h(roomy_config());
  return num_let_in(h);
}

TEST(EngineHeadroom, long_answers_let_fewer_requests_in) {
  const int64_t unseen = num_let_in_unseen();
  for (const End end : {End::kStopToken, End::kFinish, End::kAbort, End::kLength})
    EXPECT_LT(num_let_in_after(40, end), unseen - 8) << static_cast<int>(end);
}

TEST(EngineHeadroom, answers_that_stopped_let_more_in_than_those_that_were_cut_off) {
  const int64_t cut = num_let_in_after(10, End::kAbort);
  EXPECT_EQ(num_let_in_after(10, End::kLength), cut);
  for (const End end : {End::kStopToken, End::kFinish})
    EXPECT_GT(num_let_in_after(10, end), cut + 2) << static_cast<int>(end);
}

}  // namespace
}  // namespace mmcore
