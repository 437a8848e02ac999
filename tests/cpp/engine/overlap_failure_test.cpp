// Steps that fail while the next one is already with the runner.
#include <gtest/gtest.h>

#include "engine/harness.h"

namespace mmcore {
namespace {

using testing::Harness;
using testing::small_config;
using testing::text_request;

EngineConfig overlapping() {
  EngineConfig c = small_config();
  c.async_schedule = true;
  return c;
}

TEST(OverlapFailure, a_step_that_fails_takes_the_one_built_on_it_along) {
  for (const bool throws : {false, true}) {
    for (const int steps_before : {1, 2, 3, 4}) {
      Harness h(overlapping());
      h.runner.throw_faults = throws;
      const RequestId first = h.submit(text_request(6, 1, 12));
      const RequestId second = h.submit(text_request(6, 50, 12));
      h.steps(steps_before);
      h.runner.fail_next = true;
      h.run_to_end();
      const EngineMetrics m = h.engine().metrics();
      EXPECT_EQ(m.requests_failed, 0u);
      EXPECT_EQ(m.steps_failed, 1u);
      EXPECT_EQ(h.runner.steps_dropped, 1);
      EXPECT_EQ(m.tokens_generated, 24u);
      h.expect_tokens(first, 12);
      h.expect_tokens(second, 12);
      h.expect_idle();
    }
  }
}

TEST(OverlapFailure, a_step_that_is_not_taken_fails_behind_the_one_before_it) {
  Harness h(overlapping());
  const RequestId id = h.submit(text_request(6, 1, 12));
  h.steps(2);
  h.runner.fail_next_begin = true;
  EXPECT_TRUE(h.step()) << "the one before it commits";
  EXPECT_EQ(h.engine().metrics().steps_failed, 0u);
  EXPECT_FALSE(h.step());
  EXPECT_EQ(h.engine().metrics().steps_failed, 1u);
  EXPECT_EQ(h.runner.num_begun(), 0u);
  h.run_to_end();
  h.expect_tokens(id, 12);
  EXPECT_EQ(h.runner.steps_dropped, 0);
  h.expect_idle();
}

TEST(OverlapFailure, the_request_at_fault_is_found) {
  Harness h(overlapping());
  std::vector<RequestId> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(h.submit(text_request(6, 20 * i)));
  h.steps(2);
  h.runner.poisoned.insert(ids[2]);
  h.run_to_end();
  for (const RequestId id : ids)
    if (id != ids[2]) h.expect_tokens(id, 8);
  EXPECT_EQ(h.reason(ids[2]), FinishReason::kError);
  EXPECT_EQ(h.heard[ids[2]].last.error.message(), "a poisoned request");
  EXPECT_EQ(h.engine().metrics().requests_failed, 1u);
  h.expect_idle();
}

TEST(OverlapFailure, a_refused_item_ends_its_request_and_nobody_else) {
  for (const int steps_before : {1, 2}) {  // its step is refused by begin(), or by end()
    Harness h(overlapping());
    const RequestId text = h.submit(text_request(12, 90, 10));
    h.steps(steps_before);
    Request request = text_request(12, 1);
    MediaItem item{.offset = 2, .length = 3};
    item.id.bytes[0] = 1;
    request.media = {item};
    const RequestId bad = h.submit(request);
    h.runner.refused_media.insert(bad);
    h.run_to_end();
    EXPECT_EQ(h.reason(bad), FinishReason::kError);
    EXPECT_EQ(h.heard[bad].last.error.message(), "bad image");
    h.expect_tokens(text, 10);
    EXPECT_EQ(h.engine().metrics().steps_failed, 1u);
    h.expect_idle();
  }
}

TEST(OverlapFailure, a_failed_step_of_aborted_requests_is_nobodys_fault) {
  Harness h(overlapping());
  const RequestId gone = h.submit(text_request(6, 1, 12));
  const RequestId stays = h.submit(text_request(6, 50, 12));
  h.steps(2);
  h.runner.poisoned.insert(gone);
  EXPECT_TRUE(h.engine().abort(gone).ok());
  h.run_to_end();
  h.expect_tokens(stays, 12);
  EXPECT_EQ(h.reason(gone), FinishReason::kAborted);
  EXPECT_EQ(h.engine().metrics().requests_failed, 0u);
  h.expect_idle();
}

// Otherwise the sequence would hold a block that goes with the failed step.
TEST(OverlapFailure, a_block_is_not_exchanged_for_one_that_a_step_in_flight_fills) {
  EngineConfig c = overlapping();
  c.max_prefill_chunk = 4;
  Harness h(c);
  const RequestId first = h.submit(text_request(8, 1));
  h.step();  // its second block is being filled, and not yet known to anybody
  const RequestId second = h.submit(text_request(12, 1));
  h.runner.fail_next_begin = true;
  EXPECT_TRUE(h.step()) << "the second request fills the same block, in the step behind";
  EXPECT_FALSE(h.step());
  h.run_to_end();
  h.expect_tokens(first, 8);
  h.expect_tokens(second, 8);
  h.expect_idle();
}

}  // namespace
}  // namespace mmcore
