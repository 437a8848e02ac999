// EngineLoop: submission from any thread, outputs, limits, ends. Synthetic model; misuse has a file
// of its own.
#include "mmcore/engine_loop.h"

#include <gtest/gtest.h>

#include <future>
#include <random>
#include <thread>

#include "engine/loop_world.h"

namespace mmcore::testing {
namespace {

using std::chrono::microseconds;

class EngineLoopTest : public ::testing::Test {
 protected:
  void open(const EngineLoopOptions& options = {}, const EngineConfig& config = small_config()) {
    Result<std::unique_ptr<EngineLoop>> made = EngineLoop::create(config, runner, options);
    ASSERT_TRUE(made.ok()) << made.status().message();
    loop = std::move(made).value();
  }
  std::unique_ptr<RequestStream> stream(const Request& request) {
    Result<std::unique_ptr<RequestStream>> made = loop->stream(request);
    EXPECT_TRUE(made.ok()) << made.status().message();
    return made.ok() ? std::move(made).value() : nullptr;
  }
  /// The engine holds nothing any more.
  void expect_idle() {
    ASSERT_TRUE(loop->drain(kLong).ok());
    const EngineMetrics m = loop->metrics();
    EXPECT_EQ(m.num_running + m.num_waiting, 0);
    EXPECT_EQ(m.blocks_used, 0);
    EXPECT_EQ(runner->num_held(), 0u);
    EXPECT_TRUE(loop->check_invariants().value().empty());
  }

  // After it the loop ends, so that the runner's hooks outlive it.
  std::shared_ptr<CountingRunner> runner = std::make_shared<CountingRunner>();
  std::unique_ptr<EngineLoop> loop;
};

TEST_F(EngineLoopTest, CollectsWhatARequestGives) {
  open();
  const auto request = stream(text_request(5, 10));
  const std::vector<RequestOutput> outputs = request->collect(kLong).value();
  ASSERT_EQ(outputs.size(), 1u);
  EXPECT_EQ(outputs[0].id, request->id());
  EXPECT_EQ(tokens_of(outputs), counted(14, 8));
  EXPECT_EQ(outputs[0].finish_reason, FinishReason::kLength);
  EXPECT_TRUE(request->ended());
  EXPECT_TRUE(request->wait(kLong).value().empty()) << "after the end there is nothing";
  expect_idle();
}

TEST_F(EngineLoopTest, StreamsInOrder) {
  open();
  const auto request = stream(text_request(5, 10));
  std::vector<TokenId> tokens;
  while (!request->ended()) {
    const std::vector<TokenId> news = tokens_of(request->wait(kLong).value());
    tokens.insert(tokens.end(), news.begin(), news.end());
  }
  EXPECT_EQ(tokens, counted(14, 8));
}

TEST_F(EngineLoopTest, JoinsTheSequencesOfARequest) {
  open();
  Request several = text_request(5, 10);
  several.num_sequences = 3;
  const std::vector<RequestOutput> outputs = stream(several)->collect(kLong).value();
  ASSERT_EQ(outputs.size(), 3u);
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(outputs[static_cast<size_t>(i)].sequence, i);
    EXPECT_EQ(tokens_of({outputs[static_cast<size_t>(i)]}), counted(14, 8));
  }
}

TEST_F(EngineLoopTest, CallsBackOnItsOwnThread) {
  open();
  std::promise<std::vector<TokenId>> done;
  std::vector<TokenId> tokens;
  bool elsewhere = false;
  const auto id = loop->submit(text_request(5, 10), [&](const RequestOutput& output) {
    elsewhere |= !loop->on_loop_thread();
    for (const SampledToken& token : output.new_tokens) tokens.push_back(token.token);
    if (output.finished()) done.set_value(tokens);
  });
  ASSERT_TRUE(id.ok());
  EXPECT_EQ(done.get_future().get(), counted(14, 8));
  EXPECT_FALSE(elsewhere);
  EXPECT_FALSE(loop->on_loop_thread());
}

TEST_F(EngineLoopTest, RefusesABadRequestAtOnce) {
  open();
  const Status status = loop->stream(Request{}).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(loop->submit(text_request(3, 1), nullptr).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(loop->stream(text_request(64, 1)).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(loop->metrics().requests_rejected, 2u) << "an empty callback is no request";
  EXPECT_EQ(loop->metrics().requests_submitted, 0u);
}

TEST_F(EngineLoopTest, RefusesWhatHasNoPlace) {
  Gate gate;
  runner->before_step = [&](const StepPlan&) { gate.pass(); };
  open({.max_unfinished = 2});
  const auto first = stream(text_request(5, 10));
  const auto second = stream(text_request(5, 30));
  const Status full = loop->stream(text_request(5, 50)).status();
  EXPECT_EQ(full.code(), StatusCode::kOverloaded);
  EXPECT_NE(full.message().find("max_unfinished"), std::string::npos);
  EXPECT_EQ(loop->stream(text_request(5, 50), {.place_timeout = microseconds(1)}).status().code(),
            StatusCode::kOverloaded);
  // One that waits long enough gets the place of one that ends.
  auto third = std::async(std::launch::async, [&] {
    return loop->stream(text_request(5, 50), {.place_timeout = kLong}).value()->collect(kLong);
  });
  gate.open();
  EXPECT_EQ(tokens_of(third.get().value()), counted(54, 8));
  EXPECT_EQ(tokens_of(second->collect(kLong).value()), counted(34, 8));
  expect_idle();
}

TEST_F(EngineLoopTest, TellsWhatTheEnginesOwnQueueRefuses) {
  EngineConfig config = small_config();
  config.max_queued_requests = 1;
  Gate gate;
  runner->before_step = [&](const StepPlan&) { gate.pass(); };
  open({}, config);
  std::vector<std::unique_ptr<RequestStream>> streams;
  for (int i = 0; i < 5; ++i) streams.push_back(stream(text_request(5, 10)));
  gate.open();
  int refused = 0;
  for (const auto& s : streams) {
    const RequestOutput end = s->collect(kLong).value().at(0);
    if (end.finish_reason != FinishReason::kError) continue;
    ++refused;
    EXPECT_EQ(end.error.code(), StatusCode::kOverloaded);
  }
  EXPECT_GT(refused, 0);
  EXPECT_LT(refused, 5);
  expect_idle();
}

TEST_F(EngineLoopTest, Aborts) {
  Gate gate;
  runner->before_step = [&](const StepPlan&) { gate.pass(); };
  open();
  const auto request = stream(text_request(5, 10, 50));
  EXPECT_TRUE(loop->abort(request->id()).ok());
  EXPECT_EQ(loop->abort(request->id() + 1).code(), StatusCode::kNotFound);
  EXPECT_EQ(loop->finish(request->id(), 1).code(), StatusCode::kNotFound);
  gate.open();
  const RequestOutput end = request->collect(kLong).value().at(0);
  EXPECT_EQ(end.finish_reason, FinishReason::kAborted);
  EXPECT_EQ(loop->abort(request->id()).code(), StatusCode::kNotFound) << "it has ended";
  EXPECT_TRUE(request->abort().ok());
  expect_idle();
}

TEST_F(EngineLoopTest, FinishesOneSequence) {
  Gate gate;
  runner->before_step = [&](const StepPlan&) { gate.pass(); };
  open();
  Request several = text_request(5, 10);
  several.num_sequences = 2;
  const auto request = stream(several);
  EXPECT_TRUE(loop->finish(request->id(), 1).ok());
  gate.open();
  const std::vector<RequestOutput> ends = request->collect(kLong).value();
  EXPECT_EQ(ends.at(0).finish_reason, FinishReason::kLength);
  EXPECT_EQ(ends.at(1).finish_reason, FinishReason::kStop);
  expect_idle();
}

TEST_F(EngineLoopTest, DroppedStreamAborts) {
  Gate gate;
  runner->before_step = [&](const StepPlan&) { gate.pass(); };
  open();
  stream(text_request(5, 10, 50)).reset();
  gate.open();
  expect_idle();
  EXPECT_EQ(loop->metrics().requests_aborted, 1u);
}

TEST_F(EngineLoopTest, DrainLosesNothing) {
  open();
  std::vector<std::unique_ptr<RequestStream>> streams;
  for (TokenId i = 0; i < 20; ++i) streams.push_back(stream(text_request(5, i * 10)));
  ASSERT_TRUE(loop->drain(kLong).ok());
  for (TokenId i = 0; i < 20; ++i)
    EXPECT_EQ(tokens_of(streams[static_cast<size_t>(i)]->wait(microseconds(0)).value()),
              counted(i * 10 + 4, 8));
  EXPECT_EQ(loop->stream(text_request(5, 10)).status().code(), StatusCode::kShutdown);
  EXPECT_EQ(loop->status().code(), StatusCode::kShutdown);
  EXPECT_FALSE(loop->snapshot().value().accepting);
}

TEST_F(EngineLoopTest, DrainGivesUpWaitingButGoesOn) {
  Gate gate;
  runner->before_step = [&](const StepPlan&) { gate.pass(); };
  open();
  const auto request = stream(text_request(5, 10));
  EXPECT_EQ(loop->drain(microseconds(1)).code(), StatusCode::kTimeout);
  EXPECT_EQ(request->wait(microseconds(1)).status().code(), StatusCode::kTimeout);
  gate.open();
  EXPECT_TRUE(loop->drain(kLong).ok());
  EXPECT_EQ(tokens_of(request->collect(kLong).value()), counted(14, 8));
}

TEST_F(EngineLoopTest, GracefulShutdownRunsToTheEnd) {
  open();
  const auto request = stream(text_request(5, 10));
  EXPECT_TRUE(loop->shutdown().ok());
  EXPECT_EQ(tokens_of(request->collect(kLong).value()), counted(14, 8));
}

TEST_F(EngineLoopTest, ShutdownNowEndsEverything) {
  EngineConfig config = small_config();
  config.block_size = 128;
  config.num_blocks = 40'000;
  config.max_model_len = 5'000'000;  // many seconds of steps
  open({}, config);
  const auto running = stream(text_request(5, 10, 4'000'000));
  EXPECT_FALSE(running->wait(kLong).value().empty()) << "it runs";
  // A shutdown that waits for the end is turned into one that gives up.
  auto graceful = std::async(std::launch::async, [&] { return loop->shutdown(); });
  EXPECT_TRUE(loop->shutdown(ShutdownMode::kNow).ok());
  EXPECT_TRUE(graceful.get().ok());
  EXPECT_EQ(running->collect(kLong).value().at(0).finish_reason, FinishReason::kAborted);
  EXPECT_EQ(runner->num_held(), 0u);
}

// Steps that overlap: what ends them is the same, and no step is left with the runner.
TEST_F(EngineLoopTest, RunsAnAsynchronousSchedule) {
  EngineConfig config = small_config();
  config.async_schedule = true;
  Gate gate;
  const auto overlapping = std::make_shared<OverlappingRunner>();
  overlapping->before_step = [&](const StepPlan&) { gate.pass(); };
  runner = overlapping;
  open({}, config);
  std::vector<std::unique_ptr<RequestStream>> streams;
  for (TokenId i = 0; i < 12; ++i) streams.push_back(stream(text_request(5, i * 10, 20)));
  EXPECT_TRUE(loop->abort(streams[3]->id()).ok());
  streams[7].reset();
  gate.open();
  for (const TokenId i : {0, 1, 11})
    EXPECT_EQ(tokens_of(streams[static_cast<size_t>(i)]->collect(kLong).value()),
              counted(i * 10 + 4, 20));
  EXPECT_GT(loop->metrics().steps_ahead, 0u);
  EXPECT_TRUE(loop->shutdown(ShutdownMode::kNow).ok());
  for (size_t i = 0; i < streams.size(); ++i)
    if (streams[i] != nullptr) {
      EXPECT_TRUE(streams[i]->wait(kLong).ok()) << i;
    }
  EXPECT_EQ(overlapping->num_begun(), 0u);
  EXPECT_EQ(runner->num_held(), 0u);
}

// The last request ends while a step with a row of it runs: that step is waited for, and seen.
TEST_F(EngineLoopTest, DrainWaitsForAStepThatNobodyNeeds) {
  EngineConfig config = small_config();
  config.async_schedule = true;
  const auto overlapping = std::make_shared<OverlappingRunner>();
  runner = overlapping;
  open({}, config);
  Request request = text_request(5, 10, 20);
  request.sampling.stop_token_ids = {17};
  EXPECT_EQ(tokens_of(stream(request)->collect(kLong).value()), counted(14, 3));
  expect_idle();
  EXPECT_EQ(loop->metrics().rows_surplus, 1u);
}

TEST_F(EngineLoopTest, BrokenEngineEndsEverythingWithItsError) {
  Gate gate;
  runner->before_step = [&](const StepPlan&) { gate.pass(); };
  open();
  const auto first = stream(text_request(5, 10));
  const auto second = stream(text_request(5, 30));
  runner->fail_with = "a broken invariant";
  gate.open();
  for (const auto* s : {&first, &second}) {
    const RequestOutput end = (*s)->collect(kLong).value().at(0);
    EXPECT_EQ(end.finish_reason, FinishReason::kError);
    EXPECT_EQ(end.error.code(), StatusCode::kInternal);
    EXPECT_NE(end.error.message().find("a broken invariant"), std::string::npos);
  }
  EXPECT_TRUE(loop->shutdown().ok());
  EXPECT_EQ(loop->status().code(), StatusCode::kInternal);
  const Status later = loop->stream(text_request(5, 10)).status();
  EXPECT_EQ(later.code(), StatusCode::kShutdown);
  EXPECT_NE(later.message().find("a broken invariant"), std::string::npos);
}

TEST_F(EngineLoopTest, ShowsItsState) {
  Gate reached;
  Gate gate;
  runner->before_step = [&](const StepPlan&) {
    reached.open();
    gate.pass();
  };
  open();
  const auto first = stream(text_request(5, 10));
  reached.pass();
  const auto second = stream(text_request(5, 30));
  EXPECT_EQ(loop->metrics().num_waiting, 2) << "one in the engine's queue, one on its way";
  auto seen = std::async(std::launch::async, [&] { return loop->snapshot(); });
  gate.open();
  const Result<EngineSnapshot> snapshot = seen.get();
  ASSERT_TRUE(snapshot.ok());
  EXPECT_TRUE(snapshot.value().accepting);
  EXPECT_GE(loop->config().encoder_budget, 1) << "resolved";
  EXPECT_EQ(loop->max_servable_tokens(), 160);
  expect_idle();
  EXPECT_TRUE(loop->reset_caches().ok());
  EXPECT_EQ(loop->snapshot().value().metrics.blocks_cached, 0);
}

// Every answer belongs to its caller, whatever the others do.
TEST_F(EngineLoopTest, SixtyFourThreadsAtOnce) {
  open({.max_unfinished = 32});
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  std::atomic<int> given_up = 0;
  constexpr int kThreads = 64;
  constexpr int kEach = 20;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<uint32_t>(t));
      for (int i = 0; i < kEach; ++i) {
        const auto first = static_cast<TokenId>(random() % 900);
        auto made = loop->stream(text_request(5, first), {.place_timeout = kLong});
        if (!made.ok()) continue;
        const auto request = std::move(made).value();
        if (random() % 4 == 0) {
          ++given_up;
          continue;  // a client that goes away
        }
        right += tokens_of(request->collect(kLong).value()) == counted(first + 4, 8);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right + given_up, kThreads * kEach);
  expect_idle();
  EXPECT_EQ(loop->metrics().requests_finished + loop->metrics().requests_aborted,
            static_cast<uint64_t>(kThreads * kEach));
}

}  // namespace
}  // namespace mmcore::testing
