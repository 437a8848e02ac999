// EngineLoop against hosts that break its rules: every case gives a Status, none crashes or hangs.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <limits>
#include <stdexcept>
#include <thread>

#include "engine/loop_world.h"

namespace mmcore::testing {
namespace {

using std::chrono::microseconds;

std::unique_ptr<EngineLoop> make_loop(const std::shared_ptr<CountingRunner>& runner,
                                      const EngineLoopOptions& options = {}) {
  return EngineLoop::create(small_config(), runner, options).value();
}

TEST(EngineLoopMisuse, CreateRefusesWhatCannotWork) {
  EXPECT_EQ(EngineLoop::create(small_config(), nullptr).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(EngineLoop::create({}, std::make_shared<CountingRunner>()).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(
      EngineLoop::create(small_config(), std::make_shared<CountingRunner>(), {.max_unfinished = -1})
          .status()
          .code(),
      StatusCode::kInvalidArgument);
}

TEST(EngineLoopMisuse, NullAndEmptyEverywhere) {
  const auto runner = std::make_shared<CountingRunner>();
  const auto loop = make_loop(runner);
  EXPECT_EQ(Engine::create(small_config(), nullptr).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(loop->submit(text_request(3, 1), nullptr).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(loop->submit(text_request(3, 1), EngineLoop::OutputCallback()).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(loop->stream({}).status().code(), StatusCode::kInvalidArgument);
  Request without_length = text_request(5, 1);
  without_length.media.resize(1);
  EXPECT_EQ(loop->stream(without_length).status().code(), StatusCode::kPlaceholderMismatch);
  for (const int32_t num_sequences : {0, -1, std::numeric_limits<int32_t>::max()}) {
    Request request = text_request(3, 1);
    request.num_sequences = num_sequences;
    EXPECT_EQ(loop->stream(request).status().code(), StatusCode::kInvalidArgument);
  }
  for (const RequestId id : {RequestId{0}, std::numeric_limits<RequestId>::max()}) {
    EXPECT_EQ(loop->abort(id).code(), StatusCode::kNotFound);
    EXPECT_EQ(loop->finish(id, -1).code(), StatusCode::kNotFound);
  }
  // An item without a payload is the runner's to refuse; this one asks for none.
  Request bare = text_request(5, 10);
  bare.media.push_back({.offset = 1, .length = 2});
  EXPECT_EQ(tokens_of(loop->stream(bare).value()->collect(kLong).value()), counted(14, 8));
  EXPECT_TRUE(loop->drain(kLong).ok());
  EXPECT_TRUE(loop->drain(microseconds::min()).ok());
  EXPECT_EQ(runner->num_held(), 0u);
}

TEST(EngineLoopMisuse, UseAfterShutdown) {
  const auto runner = std::make_shared<CountingRunner>();
  const auto loop = make_loop(runner);
  ASSERT_TRUE(loop->shutdown().ok());
  EXPECT_TRUE(loop->shutdown(ShutdownMode::kNow).ok()) << "twice is nothing new";
  EXPECT_TRUE(loop->drain().ok());
  EXPECT_EQ(loop->stream(text_request(3, 1)).status().code(), StatusCode::kShutdown);
  EXPECT_EQ(loop->stream({}).status().code(), StatusCode::kShutdown);
  EXPECT_EQ(loop->abort(1).code(), StatusCode::kNotFound);
  EXPECT_EQ(loop->snapshot().status().code(), StatusCode::kShutdown);
  EXPECT_EQ(loop->reset_caches().code(), StatusCode::kShutdown);
  EXPECT_EQ(loop->check_invariants().status().code(), StatusCode::kShutdown);
  EXPECT_EQ(loop->metrics().requests_rejected, 2u);
}

TEST(EngineLoopMisuse, CallbacksMaySubmitAndAbort) {
  const auto runner = std::make_shared<CountingRunner>();
  const auto loop = make_loop(runner, {.max_unfinished = 1});
  std::promise<void> done;
  int ends = 0;
  Status full;
  std::function<void(const RequestOutput&)> chain = [&](const RequestOutput& output) {
    if (ends == 0 && !output.finished())
      full = loop->submit(text_request(3, 1), chain, {.place_timeout = kLong}).status();
    if (!output.finished()) return;
    if (++ends == 50) return done.set_value();
    // The place of the one that ends is free already.
    const Result<RequestId> next = loop->submit(text_request(3, 1), chain);
    EXPECT_TRUE(next.ok()) << next.status().message();
    if (next.ok() && ends % 2 == 0) {
      EXPECT_TRUE(loop->abort(next.value()).ok());
    }
  };
  ASSERT_TRUE(loop->submit(text_request(3, 1), chain).ok());
  done.get_future().get();
  EXPECT_EQ(full.code(), StatusCode::kOverloaded) << "it must not wait for itself";
  ASSERT_TRUE(loop->drain(kLong).ok());
  EXPECT_EQ(loop->metrics().requests_aborted, 24u);
}

TEST(EngineLoopMisuse, CallbacksMayNotWaitForTheirOwnThread) {
  Gate gate;  // until both are there, so that the other one still runs
  const auto runner = std::make_shared<CountingRunner>();
  runner->before_step = [&](const StepPlan&) { gate.pass(); };
  const auto loop = make_loop(runner);
  const auto other = loop->stream(text_request(3, 1, 50)).value();
  std::vector<Status> seen;
  std::promise<void> done;
  const auto id = loop->submit(text_request(3, 1, 1), [&](const RequestOutput&) {
    seen = {loop->drain(), loop->shutdown(), loop->shutdown(ShutdownMode::kNow),
            other->collect().status()};
    EXPECT_TRUE(loop->snapshot().ok());
    EXPECT_TRUE(loop->check_invariants().ok());
    EXPECT_EQ(loop->reset_caches().code(), StatusCode::kInvalidArgument) << "requests run";
    static_cast<void>(other->wait(microseconds::max()));  // returns at once
    done.set_value();
  });
  ASSERT_TRUE(id.ok());
  gate.open();
  done.get_future().get();
  for (const Status& status : seen) EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(loop->status().ok());
}

TEST(EngineLoopMisuse, RunnerMayNotReachTheEngine) {
  const auto runner = std::make_shared<CountingRunner>();
  EngineLoop* inner = nullptr;
  std::vector<Status> seen;
  Result<RequestId> nested = Status();
  runner->before_step = [&](const StepPlan& plan) {
    if (!seen.empty()) return;
    seen = {inner->snapshot().status(), inner->reset_caches(), inner->drain(), inner->shutdown()};
    nested = inner->submit(text_request(3, 1), [](const RequestOutput&) {});
    EXPECT_TRUE(inner->abort(plan.sequences[0].request).ok()) << "takes effect after the step";
  };
  const auto loop = make_loop(runner);
  inner = loop.get();
  const auto request = loop->stream(text_request(3, 1, 50)).value();
  EXPECT_EQ(request->collect(kLong).value().at(0).finish_reason, FinishReason::kAborted);
  ASSERT_TRUE(loop->drain(kLong).ok());
  for (const Status& status : seen) EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(nested.ok());
}

TEST(EngineLoopMisuse, CallbackThatThrowsEndsItsRequestOnly) {
  const auto runner = std::make_shared<CountingRunner>();
  const auto loop = make_loop(runner);
  std::atomic<int> calls = 0;
  const auto thrower = [&](const RequestOutput&) {
    ++calls;
    throw std::runtime_error("a host's bug");
  };
  ASSERT_TRUE(loop->submit(text_request(5, 1, 50), thrower).ok());
  ASSERT_TRUE(loop->submit(text_request(5, 1, 1), [](const RequestOutput&) { throw 1; }).ok());
  const auto other = loop->stream(text_request(5, 10)).value();
  EXPECT_EQ(tokens_of(other->collect(kLong).value()), counted(14, 8));
  ASSERT_TRUE(loop->drain(kLong).ok());
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(loop->metrics().requests_aborted, 1u);
  EXPECT_EQ(loop->metrics().blocks_used, 0);
}

// The handle goes in the middle of a callback: what it keeps lives until that callback has
// returned.
TEST(EngineLoopMisuse, DestroyInsideACallback) {
  for (int round = 0; round < 20; ++round) {
    Gate gate;  // until both are there, so that the other one still runs
    auto runner = std::make_shared<CountingRunner>();
    runner->before_step = [&](const StepPlan&) { gate.pass(); };
    const std::weak_ptr<CountingRunner> watched = runner;
    auto loop = std::make_shared<std::unique_ptr<EngineLoop>>(make_loop(runner));
    runner.reset();
    std::promise<void> gone;
    const auto other = (*loop)->stream(text_request(3, 1, 60)).value();
    auto alive = std::shared_ptr<void>(nullptr, [&](void*) { gone.set_value(); });
    const auto id = (*loop)->submit(text_request(3, 1, 50), [&, loop, alive](const auto&) {
      loop->reset();
      EXPECT_FALSE(watched.expired());
    });
    alive.reset();
    ASSERT_TRUE(id.ok());
    gate.open();
    EXPECT_EQ(other->collect(kLong).value().at(0).finish_reason, FinishReason::kAborted);
    gone.get_future().get();  // the callback, and with it all that it kept, was given back
    EXPECT_TRUE(other->abort().ok());
  }
}

// Likewise in the middle of a step. Nobody can join the thread: it lets the runner go last of all.
TEST(EngineLoopMisuse, DestroyInsideTheRunner) {
  for (const bool overlapping : {false, true}) {
    EngineConfig config = small_config();
    config.async_schedule = overlapping;
    CountingRunner* made = overlapping ? new OverlappingRunner : new CountingRunner;
    std::promise<void> gone;
    std::shared_ptr<CountingRunner> runner(made, [&](CountingRunner* last) {
      EXPECT_EQ(last->num_held(), 0u);
      delete last;
      gone.set_value();
    });
    Gate gate;
    std::unique_ptr<EngineLoop> loop;
    made->before_step = [&](const StepPlan&) {
      gate.pass();
      if (made->steps == 3) loop.reset();
    };
    loop = EngineLoop::create(config, std::move(runner)).value();
    const auto first = loop->stream(text_request(3, 1, 50)).value();
    const auto second = loop->stream(text_request(3, 100, 50)).value();
    gate.open();
    EXPECT_EQ(first->collect(kLong).value().at(0).finish_reason, FinishReason::kAborted);
    EXPECT_EQ(second->collect(kLong).value().at(0).finish_reason, FinishReason::kAborted);
    gone.get_future().get();
    EXPECT_TRUE(first->abort().ok());
  }
}

// What a handle's destructor does twice: once by hand, by many at once, and then by itself.
TEST(EngineLoopMisuse, ShutdownTwiceAtOnce) {
  const auto runner = std::make_shared<CountingRunner>();
  auto loop = make_loop(runner);
  const auto request = loop->stream(text_request(3, 1, 60)).value();
  std::vector<std::thread> threads;
  std::atomic<int> ok = 0;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      ok += loop->shutdown(t % 2 == 0 ? ShutdownMode::kNow : ShutdownMode::kGraceful).ok();
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ok, 8);
  EXPECT_TRUE(request->collect(kLong).value().at(0).finished());
  EXPECT_EQ(runner->num_held(), 0u);
  loop.reset();
}

TEST(EngineLoopMisuse, StreamsOutliveTheLoop) {
  const auto runner = std::make_shared<CountingRunner>();
  auto loop = make_loop(runner);
  const auto done = loop->stream(text_request(5, 10)).value();
  ASSERT_TRUE(loop->drain(kLong).ok());
  loop.reset();
  EXPECT_EQ(tokens_of(done->collect(kLong).value()), counted(14, 8));
  EXPECT_TRUE(done->abort().ok());
  EXPECT_TRUE(done->wait(microseconds::max()).value().empty());
}

TEST(EngineLoopMisuse, DestroyWhileOthersCall) {
  for (int round = 0; round < 20; ++round) {
    const auto runner = std::make_shared<CountingRunner>();
    auto loop = make_loop(runner, {.max_unfinished = 4});
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&loop] {
        while (true) {
          const auto made = loop->stream(text_request(3, 1), {.place_timeout = kLong});
          if (made.status().code() == StatusCode::kShutdown) return;
          if (made.ok()) static_cast<void>(made.value()->collect(kLong));
        }
      });
    }
    // Waiting submitters are woken, so that they can leave before the handle goes.
    EXPECT_TRUE(loop->shutdown(ShutdownMode::kNow).ok());
    for (std::thread& thread : threads) thread.join();
    loop.reset();
  }
}

#if !defined(__SANITIZE_THREAD__)  // which cannot follow a process with threads through fork()
TEST(EngineLoopMisuse, ForkedChild) {
  const auto runner = std::make_shared<CountingRunner>();
  auto loop = make_loop(runner);
  auto request = loop->stream(text_request(5, 10)).value();
  ASSERT_TRUE(loop->drain(kLong).ok());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto closed = [](const Status& s) { return s.code() == StatusCode::kShutdown; };
    const bool ok = closed(loop->stream(text_request(3, 1)).status()) && closed(loop->abort(1)) &&
                    closed(loop->drain()) && closed(loop->shutdown()) && closed(loop->status()) &&
                    closed(loop->snapshot().status()) &&
                    closed(request->wait(microseconds::max()).status()) &&
                    closed(request->collect().status()) && loop->metrics().requests_submitted == 0;
    request.reset();
    loop.reset();
    _exit(ok ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(tokens_of(request->collect(kLong).value()), counted(14, 8));
}
#endif

}  // namespace
}  // namespace mmcore::testing
