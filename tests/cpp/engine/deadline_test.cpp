// Deadlines, queue limits and the watchdog, by a clock that the test sets.
#include <gtest/gtest.h>

#include <limits>
#include <utility>

#include "engine/harness.h"

namespace mmcore {
namespace {

using testing::Harness;
using testing::small_config;
using testing::text_request;

class Timed : public ::testing::Test {
 protected:
  EngineConfig config() {
    EngineConfig c = small_config();
    c.max_num_seqs = 1;
    c.clock_us = [this] { return now; };
    return c;
  }
  static Request limited(Request request, int64_t timeout_us, int64_t queue_timeout_us) {
    request.timeout_us = timeout_us;
    request.queue_timeout_us = queue_timeout_us;
    return request;
  }
  int64_t now = 5'000;
};

TEST_F(Timed, a_running_request_ends_at_its_deadline_with_what_it_has) {
  Harness harness(config());
  const RequestId id = harness.submit(limited(text_request(4, 1, 50), 100, 0));
  now = 5'099;
  harness.steps(3);
  EXPECT_EQ(harness.reason(id), FinishReason::kNone);
  now = 5'100;
  EXPECT_FALSE(harness.step()) << "nothing is left to run";
  harness.expect_tokens(id, 3, FinishReason::kError);
  EXPECT_EQ(harness.heard[id].last.error.code(), StatusCode::kTimeout);
  EXPECT_EQ(harness.heard[id].last.error.message(),
            "The request had not ended after 100 microseconds (timeout_us).");
  EXPECT_EQ(harness.engine().metrics().requests_timed_out, 1u);
  EXPECT_EQ(harness.engine().metrics().requests_failed, 1u);
  harness.expect_idle();
}

TEST_F(Timed, a_queue_deadline_concerns_only_what_has_not_begun) {
  Harness harness(config());
  const RequestId first = harness.submit(limited(text_request(4, 1, 50), 0, 100));
  const RequestId second = harness.submit(limited(text_request(4, 9, 3), 0, 100));
  const RequestId third = harness.submit(limited(text_request(4, 20, 3), 1'000, 200));
  harness.step();
  now += 150;
  harness.step();
  EXPECT_EQ(harness.reason(first), FinishReason::kNone) << "it runs";
  EXPECT_EQ(harness.reason(second), FinishReason::kError);
  EXPECT_EQ(harness.heard[second].last.error.code(), StatusCode::kTimeout);
  ASSERT_TRUE(harness.engine().abort(first).ok());
  harness.run_to_end();
  harness.expect_tokens(third, 3);
  now += 100'000;
  harness.step();
  EXPECT_EQ(harness.engine().metrics().requests_timed_out, 1u) << "the third had ended before";
}

TEST_F(Timed, a_timeout_beyond_the_end_of_time_is_none_and_a_negative_one_is_refused) {
  Harness harness(config());
  const int64_t far = std::numeric_limits<int64_t>::max();
  const RequestId id = harness.submit(limited(text_request(4, 1, 3), far, far));
  harness.run_to_end();
  harness.expect_tokens(id, 3);
  for (const auto& [whole, queued] : {std::pair<int64_t, int64_t>{-1, 0}, {0, -1}})
    EXPECT_EQ(harness.engine().submit(limited(text_request(4, 1), whole, queued)).status().code(),
              StatusCode::kInvalidArgument);
}

TEST_F(Timed, the_queue_holds_so_many_tokens) {
  EngineConfig c = config();
  c.max_queued_tokens = 30;
  Harness harness(c);
  harness.submit(text_request(10, 1, 50));
  harness.step();
  const RequestId large = harness.submit(text_request(40, 100));
  EXPECT_EQ(harness.engine().metrics().waiting_tokens, 40) << "alone in the queue it may be larger";
  EXPECT_EQ(harness.engine().submit(text_request(1, 1)).status().code(), StatusCode::kOverloaded);
  ASSERT_TRUE(harness.engine().abort(large).ok());
  harness.submit(text_request(20, 1));
  harness.submit(text_request(10, 1));
  const Result<RequestId> refused = harness.engine().submit(text_request(1, 1));
  EXPECT_EQ(refused.status().message(),
            "The queue is full: with this request 31 tokens would wait, and max_queued_tokens is "
            "30. Try again later.");
  harness.run_to_end();
  EXPECT_EQ(harness.engine().metrics().waiting_tokens, 0);
}

class SlowRunner : public ModelRunner {
 public:
  explicit SlowRunner(int64_t* now) : now_(now) {}
  Status execute(const StepPlan& plan, StepResult& result) override {
    *now_ += plan.token_ids.size() > 1 ? 700 : 20;
    result.tokens.assign(plan.sampling.size(), {.token = 1, .logprobs = {}});
    return {};
  }

 private:
  int64_t* now_;
};

TEST_F(Timed, the_watchdog_counts_slow_steps) {
  for (const int64_t limit : {0, 500, 700}) {
    EngineConfig c = config();
    c.step_watchdog_us = limit;
    SlowRunner runner(&now);
    const auto engine = Engine::create(c, &runner).value();
    ASSERT_TRUE(engine->submit(text_request(4, 1, 5)).ok());
    while (engine->has_unfinished()) ASSERT_TRUE(engine->step().ok());
    EXPECT_EQ(engine->metrics().steps_slow, limit == 500 ? 1u : 0u) << "700 is not more than 700";
    EXPECT_EQ(engine->metrics().slowest_step_us, limit == 0 ? 0u : 700u);
  }
}

}  // namespace
}  // namespace mmcore
