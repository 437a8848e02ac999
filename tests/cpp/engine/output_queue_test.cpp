#include "engine/output_queue.h"

#include <gtest/gtest.h>

namespace mmcore {
namespace {

void fill(RequestOutput& output) {
  output.new_tokens.resize(2);
  output.new_prompt_logprobs.resize(1);
  output.finish_reason = FinishReason::kError;
  output.stop_token = 4;
  output.error = Status::internal("x");
  output.num_cached_tokens = 5;
  output.num_preemptions = 6;
}

TEST(OutputQueue, gives_outputs_in_order_and_once) {
  OutputQueue queue;
  for (RequestId id = 1; id <= 3; ++id) queue.push(id);
  std::vector<RequestOutput> batch;
  queue.take(batch);
  ASSERT_EQ(batch.size(), 3u);
  EXPECT_EQ(batch[2].id, 3u);
  queue.take(batch);
  EXPECT_TRUE(batch.empty());
}

TEST(OutputQueue, an_object_that_is_used_again_keeps_nothing_but_memory) {
  OutputQueue queue;
  std::vector<RequestOutput> batch;
  for (int i = 0; i < 2; ++i) fill(queue.push(1));
  queue.take(batch);
  queue.push(2);
  queue.take(batch);  // the old batch is inside now
  for (int i = 0; i < 2; ++i) {
    const RequestOutput& output = queue.push(3);
    EXPECT_EQ(output.id, 3u);
    EXPECT_TRUE(output.new_tokens.empty());
    EXPECT_TRUE(output.new_prompt_logprobs.empty());
    EXPECT_EQ(output.finish_reason, FinishReason::kNone);
    EXPECT_EQ(output.stop_token, -1);
    EXPECT_TRUE(output.error.ok());
    EXPECT_EQ(output.num_cached_tokens, 0);
    EXPECT_EQ(output.num_preemptions, 0);
  }
}

}  // namespace
}  // namespace mmcore
