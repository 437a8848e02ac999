// Steps that fail: what is undone, who is ended, and that everybody else gives the same tokens.
#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>

#include "engine/harness.h"

namespace mmcore {
namespace {

using testing::Harness;
using testing::small_config;
using testing::text_request;

Request image_request(int32_t length, TokenId first, uint8_t content) {
  Request request = text_request(length, first);
  MediaItem item{.offset = 2, .length = 3};
  item.id.bytes[0] = content;
  request.media = {item};
  return request;
}

TEST(Failure, a_failed_step_is_undone_and_run_again) {
  for (const bool throws : {false, true}) {
    Harness h;
    h.runner.throw_faults = throws;
    const RequestId first = h.submit(image_request(12, 1, 1));
    h.step();
    const RequestId second = h.submit(image_request(12, 50, 2));
    const EngineMetrics before = h.engine().metrics();
    h.runner.fail_next = true;
    EXPECT_FALSE(h.step());
    EngineMetrics after = h.engine().metrics();
    EXPECT_EQ(after.steps_failed, 1u);
    EXPECT_EQ(after.blocks_used, before.blocks_used);
    EXPECT_EQ(after.num_running, before.num_running);
    EXPECT_EQ(after.num_waiting, before.num_waiting);
    EXPECT_EQ(after.encoder_entries, before.encoder_entries);
    EXPECT_EQ(after.tokens_generated, before.tokens_generated);
    h.run_to_end();
    h.expect_tokens(first, 8);
    h.expect_tokens(second, 8);
    EXPECT_EQ(h.engine().metrics().requests_failed, 0u);
    h.expect_idle();
  }
}

TEST(Failure, a_refused_item_ends_its_request_with_the_runners_reason) {
  Harness h;
  const RequestId good = h.submit(image_request(12, 1, 1));
  const RequestId bad = h.submit(image_request(12, 50, 2));
  const RequestId text = h.submit(text_request(12, 90));
  h.runner.refused_media.insert(bad);
  EXPECT_FALSE(h.step());
  EXPECT_EQ(h.reason(bad), FinishReason::kError);
  EXPECT_EQ(h.heard[bad].last.error.code(), StatusCode::kMediaError);
  EXPECT_EQ(h.heard[bad].last.error.message(), "bad image");
  EXPECT_TRUE(h.step()) << "the others go on together";
  EXPECT_EQ(h.runner.last_plan.sequences.size(), 2u);
  h.run_to_end();
  h.expect_tokens(good, 8);
  h.expect_tokens(text, 8);
  h.expect_idle();
}

TEST(Failure, an_item_that_two_requests_share_is_encoded_for_the_one_that_is_left) {
  Harness h;
  const RequestId bad = h.submit(image_request(12, 1, 1));
  const RequestId good = h.submit(image_request(12, 50, 1));
  h.runner.refused_media.insert(bad);
  EXPECT_FALSE(h.step());
  EXPECT_TRUE(h.step());
  ASSERT_EQ(h.runner.last_plan.encode.size(), 1u);
  EXPECT_EQ(h.runner.last_plan.encode[0].request, good);
  h.run_to_end();
  h.expect_tokens(good, 8);
}

TEST(Failure, the_request_at_fault_is_found_by_running_each_alone) {
  for (const bool throws : {false, true}) {
    Harness h;
    h.runner.throw_faults = throws;
    std::vector<RequestId> ids;
    for (int i = 0; i < 5; ++i) ids.push_back(h.submit(text_request(6, 20 * i)));
    h.runner.poisoned.insert(ids[2]);
    EXPECT_FALSE(h.step());
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_EQ(h.step(), i != 2);
      ASSERT_EQ(h.runner.last_plan.sequences.size(), 1u);
      EXPECT_EQ(h.runner.last_plan.sequences[0].request, ids[i]);
    }
    EXPECT_EQ(h.reason(ids[2]), FinishReason::kError);
    EXPECT_EQ(h.heard[ids[2]].last.error.message(), "a poisoned request");
    EXPECT_TRUE(h.step());
    EXPECT_EQ(h.runner.last_plan.sequences.size(), 4u) << "together again";
    h.run_to_end();
    for (const RequestId id : ids)
      if (id != ids[2]) h.expect_tokens(id, 8);
    h.expect_idle();
  }
}

TEST(Failure, after_probation_the_queue_waits_for_two_healthy_steps) {
  Harness h;
  const RequestId first = h.submit(text_request(6, 1));
  h.step();
  h.runner.fail_next = true;
  h.step();
  const RequestId second = h.submit(text_request(6, 50));
  for (const size_t expected : {1u, 1u, 1u, 2u}) {  // alone, two healthy steps, normal
    h.step();
    EXPECT_EQ(h.runner.last_plan.sequences.size(), expected);
  }
  h.run_to_end();
  h.expect_tokens(first, 8);
  h.expect_tokens(second, 8);
}

TEST(Failure, an_aborted_suspect_is_not_waited_for) {
  Harness h;
  const RequestId first = h.submit(text_request(6, 1));
  const RequestId second = h.submit(text_request(6, 50));
  h.runner.fail_next = true;
  h.step();
  EXPECT_TRUE(h.engine().abort(first).ok());
  h.run_to_end();
  h.collect();
  EXPECT_EQ(h.reason(first), FinishReason::kAborted);
  h.expect_tokens(second, 8);
  h.expect_idle();
}

TEST(Failure, a_runner_that_always_fails_ends_every_request) {
  Harness h;
  std::vector<RequestId> ids;
  for (int i = 0; i < 4; ++i) {
    ids.push_back(h.submit(text_request(6, 20 * i)));
    h.runner.poisoned.insert(ids.back());
  }
  h.run_to_end();
  for (const RequestId id : ids) EXPECT_EQ(h.reason(id), FinishReason::kError);
  EXPECT_EQ(h.engine().metrics().requests_failed, 4u);
  h.expect_idle();
}

// A runner whose answers do not fit the plan.
class WrongRunner : public ModelRunner {
 public:
  Status execute(const StepPlan& plan, StepResult& result) override {
    result.tokens.resize(plan.sampling.size());
    for (SampledToken& token : result.tokens) token.token = 1;
    result.prompt_logprobs.resize(plan.prompt_logprob_rows.size());
    if (spoil) spoil(plan, result);
    return {};
  }
  void release(RequestId) override { throw std::runtime_error("release may fail"); }
  std::function<void(const StepPlan&, StepResult&)> spoil;
};

class WrongAnswer : public ::testing::Test {
 protected:
  WrongAnswer() : engine(Engine::create(small_config(), &runner).value()) {}

  // Runs to the end; counts how requests ended.
  std::map<FinishReason, int> run() {
    std::map<FinishReason, int> ends;
    for (int i = 0; engine->has_unfinished() && i < 1000; ++i) {
      EXPECT_TRUE(engine->step().ok());
      for (const std::string& violation : engine->check_invariants()) ADD_FAILURE() << violation;
      for (const RequestOutput& output : engine->take_outputs())
        if (output.finished()) ++ends[output.finish_reason];
    }
    EXPECT_EQ(engine->metrics().blocks_used, 0);
    return ends;
  }

  WrongRunner runner;
  std::unique_ptr<Engine> engine;
};

TEST_F(WrongAnswer, a_token_outside_the_vocabulary_ends_that_request) {
  const RequestId bad = engine->submit(text_request(6, 1)).value();
  ASSERT_TRUE(engine->submit(text_request(6, 50)).ok());
  runner.spoil = [&](const StepPlan& plan, StepResult& result) {
    for (const ScheduledSequence& s : plan.sequences)
      if (s.request == bad) result.tokens[static_cast<size_t>(s.sample_row)].token = 1000;
  };
  const auto ends = run();
  EXPECT_EQ(ends.at(FinishReason::kError), 1);
  EXPECT_EQ(ends.at(FinishReason::kLength), 1);
}

TEST_F(WrongAnswer, a_wrong_number_of_tokens_is_a_failed_step) {
  ASSERT_TRUE(engine->submit(text_request(6, 1)).ok());
  runner.spoil = [](const StepPlan&, StepResult& result) { result.tokens.clear(); };
  EXPECT_EQ(run().at(FinishReason::kError), 1);
}

TEST_F(WrongAnswer, a_wrong_number_of_prompt_logprobs_is_a_failed_step) {
  ASSERT_TRUE(engine->submit(text_request(6, 1)).ok());
  runner.spoil = [](const StepPlan&, StepResult& result) { result.prompt_logprobs.resize(3); };
  EXPECT_EQ(run().at(FinishReason::kError), 1);
}

TEST_F(WrongAnswer, a_failed_request_that_does_not_exist_is_a_failed_step) {
  ASSERT_TRUE(engine->submit(text_request(6, 1)).ok());
  runner.spoil = [](const StepPlan&, StepResult& result) {
    result.failed = {{77, Status::internal("who?")}};
  };
  EXPECT_EQ(run().at(FinishReason::kError), 1);
}

TEST_F(WrongAnswer, something_thrown_that_is_no_exception_is_a_failed_step) {
  ASSERT_TRUE(engine->submit(text_request(6, 1)).ok());
  runner.spoil = [](const StepPlan&, StepResult&) { throw 7; };
  EXPECT_EQ(run().at(FinishReason::kError), 1);
}

TEST_F(WrongAnswer, calls_from_inside_the_runner_are_refused) {
  const RequestId id = engine->submit(text_request(6, 1, 2)).value();
  int refused = 0;
  runner.spoil = [&](const StepPlan&, StepResult&) {
    refused += engine->submit(text_request(6, 1)).status().code() == StatusCode::kInvalidArgument;
    refused += engine->abort(id).code() == StatusCode::kInvalidArgument;
    refused += engine->finish(id).code() == StatusCode::kInvalidArgument;
    refused += engine->step().status().code() == StatusCode::kInvalidArgument;
    refused += engine->reset_caches().code() == StatusCode::kInvalidArgument;
  };
  EXPECT_EQ(run().at(FinishReason::kLength), 1);
  EXPECT_EQ(refused, 2 * 5);
}

TEST_F(WrongAnswer, an_internal_error_ends_everything_and_says_so) {
  ASSERT_TRUE(engine->submit(text_request(6, 1)).ok());
  ASSERT_TRUE(engine->submit(text_request(6, 50)).ok());
  runner.spoil = [](const StepPlan&, StepResult&) { throw InternalError("a bug"); };
  const Status status = engine->step().status();
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_NE(status.message().find("a bug"), std::string::npos);
  EXPECT_FALSE(engine->has_unfinished());
  const std::vector<RequestOutput> outputs = engine->take_outputs();
  ASSERT_EQ(outputs.size(), 2u);
  for (const RequestOutput& output : outputs) {
    EXPECT_EQ(output.finish_reason, FinishReason::kError);
    EXPECT_EQ(output.error.code(), StatusCode::kInternal);
  }
  EXPECT_EQ(engine->submit(text_request(6, 1)).status().code(), StatusCode::kShutdown);
  EXPECT_EQ(engine->step().status().code(), StatusCode::kInternal);
  EXPECT_EQ(engine->reset_caches().code(), StatusCode::kShutdown);
  EXPECT_EQ(engine->check_invariants().size(), 1u);
  EXPECT_EQ(engine->metrics().num_running, 0);
}

}  // namespace
}  // namespace mmcore
