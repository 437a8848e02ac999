// C runners that take a step while the one before it runs: the seam of step.overlap for C.
#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <deque>
#include <mutex>
#include <set>
#include <thread>

#include "c_api/c_world.h"

namespace mmcore::testing {
namespace {

/// "Samples" the token after the newest one, on a thread of its own, as a device would: begin only
/// hands over. Answers are written between begin and the return of end, on that thread.
class DeviceHost {
 public:
  DeviceHost() : device_([this] { work(); }) {}
  ~DeviceHost() {
    {
      const std::scoped_lock lock(mutex_);
      closing_ = true;
    }
    changed_.notify_all();
    device_.join();
  }

  mmcore_runner_functions functions() const {
    mmcore_runner_functions f{};
    f.struct_size = sizeof(f);
    f.accept = [](void* context, uint64_t, const mmcore_submission*) -> mmcore_status {
      ++static_cast<DeviceHost*>(context)->held;
      return MMCORE_OK;
    };
    f.release = [](void* context, uint64_t) { --static_cast<DeviceHost*>(context)->held; };
    f.begin = [](void* context, const mmcore_step* step, mmcore_step_result* result) {
      return static_cast<DeviceHost*>(context)->begin(step, result);
    };
    f.end = [](void* context, const mmcore_step* step, mmcore_step_result* result) {
      return static_cast<DeviceHost*>(context)->end(step, result);
    };
    return f;
  }

  // Of the engine's thread, or set while nothing runs.
  std::function<mmcore_status(const mmcore_step*, mmcore_step_result*)> on_begin;
  std::function<mmcore_status(const mmcore_step*, mmcore_step_result*)> on_end;
  std::atomic<int> held = 0;
  size_t most_begun = 0;
  int64_t unknown_tokens = 0;
  std::vector<uint64_t> ended;

 private:
  struct Work {
    const mmcore_step* step;
    mmcore_step_result* result;
  };

  mmcore_status begin(const mmcore_step* step, mmcore_step_result* result) {
    EXPECT_EQ(step->struct_size, sizeof(mmcore_step));
    if (on_begin) {
      const mmcore_status status = on_begin(step, result);
      if (status != MMCORE_OK) return status;
    }
    for (int64_t i = 0; i < step->num_tokens; ++i) {
      const bool unknown = step->token_ids[i] < 0;
      unknown_tokens += unknown;
      EXPECT_EQ(unknown, step->token_sources != nullptr && step->token_sources[i] >= 0);
    }
    {
      const std::scoped_lock lock(mutex_);
      begun_.push_back({step, result});
      queue_.push_back({step, result});
    }
    changed_.notify_all();
    most_begun = std::max(most_begun, begun_.size());
    return MMCORE_OK;
  }

  mmcore_status end(const mmcore_step* step, mmcore_step_result* result) {
    EXPECT_FALSE(begun_.empty());
    EXPECT_EQ(begun_.front().step, step) << "steps end in the order of their begin";
    EXPECT_EQ(begun_.front().result, result);
    begun_.pop_front();
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_.contains(step->step); });
    done_.erase(step->step);
    ended.push_back(step->step);
    lock.unlock();
    return on_end ? on_end(step, result) : MMCORE_OK;
  }

  void work() {
    std::vector<int32_t> samples;  // of the step before
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const Work next = queue_.front();
      queue_.pop_front();
      lock.unlock();
      const mmcore_step* step = next.step;
      std::vector<int32_t> tokens(step->token_ids, step->token_ids + step->num_tokens);
      for (int64_t i = 0; step->token_sources != nullptr && i < step->num_tokens; ++i) {
        const int32_t source = step->token_sources[i];
        if (source >= 0) tokens[static_cast<size_t>(i)] = samples.at(static_cast<size_t>(source));
      }
      samples.assign(static_cast<size_t>(step->num_sample_rows), 0);
      for (size_t i = 0; i < samples.size(); ++i) {
        samples[i] = (tokens[static_cast<size_t>(step->sample_rows[i])] + 1) % 1000;
        next.result->tokens[i] = samples[i];
      }
      lock.lock();
      done_.insert(step->step);
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool closing_ = false;
  std::deque<Work> queue_;
  std::deque<Work> begun_;
  std::set<uint64_t> done_;
  std::thread device_;  // last: it uses all of the above
};

class CApiOverlap : public ::testing::Test {
 protected:
  void open(bool async_schedule = true) {
    const mmcore_runner_functions functions = host.functions();
    mmcore_runner runner = 0;
    ASSERT_EQ(mmcore_runner_create(&functions, &host, &runner), MMCORE_OK) << mmcore_last_error();
    mmcore_config config = small_c_config();
    config.async_schedule = async_schedule ? 1 : 0;
    ASSERT_EQ(mmcore_engine_create(&config, runner, &engine), MMCORE_OK) << mmcore_last_error();
    EXPECT_EQ(mmcore_runner_destroy(runner), MMCORE_OK) << "the engine keeps it";
  }
  void TearDown() override {
    if (engine == 0) return;
    EXPECT_EQ(mmcore_engine_destroy(engine), MMCORE_OK) << mmcore_last_error();
    EXPECT_EQ(host.held, 0) << "every accepted request is released";
  }
  mmcore_request submit(const CRequest& request) {
    mmcore_request handle = 0;
    EXPECT_EQ(mmcore_engine_submit(engine, &request.submission, &handle), MMCORE_OK)
        << mmcore_last_error();
    return handle;
  }
  CHeard finish(mmcore_request request) {
    const CHeard heard = read_all(request);
    EXPECT_EQ(heard.last_read, MMCORE_END);
    EXPECT_EQ(mmcore_request_destroy(request), MMCORE_OK);
    return heard;
  }
  /// After all has ended.
  mmcore_metrics metrics() {
    EXPECT_EQ(mmcore_engine_drain(engine, kLongUs), MMCORE_OK);
    mmcore_metrics out{};
    out.struct_size = sizeof(out);
    EXPECT_EQ(mmcore_engine_metrics(engine, &out), MMCORE_OK);
    EXPECT_EQ(out.blocks_used, 0);
    return out;
  }

  DeviceHost host;
  mmcore_engine engine = 0;
};

TEST_F(CApiOverlap, StepsAreHandedOverWhileOthersRun) {
  open();
  EXPECT_EQ(finish(submit(CRequest(6, 10, 20))).tokens, counted_after(15, 20));
  const mmcore_request first = submit(CRequest(6, 100, 20));
  const mmcore_request second = submit(CRequest(9, 200, 20));
  EXPECT_EQ(finish(first).tokens, counted_after(105, 20));
  EXPECT_EQ(finish(second).tokens, counted_after(208, 20));
  const mmcore_metrics m = metrics();
  EXPECT_EQ(m.tokens_generated, 60u);
  EXPECT_GE(m.steps_ahead, 19u) << "of the request that ran alone";
  EXPECT_EQ(host.most_begun, 2u);
  EXPECT_GE(host.unknown_tokens, 19);
  EXPECT_TRUE(std::ranges::is_sorted(host.ended));
}

TEST_F(CApiOverlap, AStoppedSequenceHasASurplusRow) {
  open();
  CRequest content(6, 10, 20);
  const int32_t stop[] = {20};
  content.sampling.stop_token_ids = stop;
  content.sampling.num_stop_token_ids = 1;
  EXPECT_EQ(finish(submit(content)).tokens, counted_after(15, 5));
  EXPECT_EQ(metrics().rows_surplus, 1u);
}

TEST_F(CApiOverlap, AStepThatFailsTakesTheNextOneAlong) {
  int ends = 0;
  host.on_end = [&](const mmcore_step*, mmcore_step_result* result) -> mmcore_status {
    if (++ends != 4) return MMCORE_OK;
    std::strcpy(result->message, "the device is busy");
    return MMCORE_OVERLOADED;
  };
  open();
  EXPECT_EQ(finish(submit(CRequest(6, 10, 12))).tokens, counted_after(15, 12))
      << "a fault that passes costs nobody a request";
  const mmcore_metrics m = metrics();
  EXPECT_EQ(m.steps_failed, 1u);
  EXPECT_EQ(m.requests_failed, 0u);
  EXPECT_EQ(host.ended.size(), m.steps + 2) << "the one that failed, and the one built on it";
}

TEST_F(CApiOverlap, AStepThatIsNotTakenIsNotEnded) {
  int begins = 0;
  host.on_begin = [&](const mmcore_step*, mmcore_step_result*) {
    return ++begins == 4 ? MMCORE_OVERLOADED : MMCORE_OK;
  };
  open();
  EXPECT_EQ(finish(submit(CRequest(6, 10, 12))).tokens, counted_after(15, 12));
  const mmcore_metrics m = metrics();
  EXPECT_EQ(m.steps_failed, 1u);
  EXPECT_EQ(host.ended.size(), m.steps);
}

TEST_F(CApiOverlap, ARequestThatIsNamedFailsAlone) {
  for (const bool by_begin : {true, false}) {
    const auto fault = [by_begin](const mmcore_step* step, mmcore_step_result* result) {
      for (int64_t i = 0; i < step->num_sequences; ++i) {
        if (step->token_ids[step->sequences[i].first_row] != 500) continue;
        result->sequence_status[i] = MMCORE_MEDIA_ERROR;
        std::strcpy(result->message, "the picture is torn");
        return by_begin ? MMCORE_MEDIA_ERROR : MMCORE_OK;
      }
      return MMCORE_OK;
    };
    host.on_begin = host.on_end = nullptr;
    (by_begin ? host.on_begin : host.on_end) = fault;
    open();
    const mmcore_request good = submit(CRequest(5, 10, 12));
    const CHeard heard = finish(submit(CRequest(5, 500, 12)));
    EXPECT_EQ(heard.error, MMCORE_MEDIA_ERROR);
    EXPECT_EQ(heard.message, "the picture is torn");
    EXPECT_EQ(finish(good).tokens, counted_after(14, 12));
    EXPECT_EQ(metrics().requests_failed, 1u);
    EXPECT_EQ(mmcore_engine_destroy(engine), MMCORE_OK);
    engine = 0;
    EXPECT_EQ(host.held, 0);
  }
}

TEST_F(CApiOverlap, ARequestThatIsAlwaysRefusedIsFound) {
  host.on_begin = [](const mmcore_step* step, mmcore_step_result*) {
    for (int64_t i = 0; i < step->num_sequences; ++i)
      if (step->token_ids[step->sequences[i].first_row] == 500) return MMCORE_INTERNAL;
    return MMCORE_OK;
  };
  open();
  const mmcore_request good = submit(CRequest(5, 10, 12));
  const CHeard heard = finish(submit(CRequest(5, 500, 12)));
  EXPECT_EQ(heard.error, MMCORE_INTERNAL);
  EXPECT_NE(heard.message.find("begin gave status 10"), std::string::npos) << heard.message;
  EXPECT_EQ(finish(good).tokens, counted_after(14, 12));
}

TEST_F(CApiOverlap, ADestroyedEngineTakesItsStepsBack) {
  open();
  const mmcore_request request = submit(CRequest(5, 10, 50));
  int32_t token = 0;
  mmcore_output output{};
  output.struct_size = sizeof(output);
  output.tokens = &token;
  output.tokens_capacity = 1;
  ASSERT_EQ(mmcore_request_read(request, kLongUs, &output), MMCORE_OK);
  EXPECT_EQ(mmcore_engine_destroy(engine), MMCORE_OK);
  engine = 0;
  EXPECT_EQ(host.held, 0);
  EXPECT_NE(finish(request).finish_reason, MMCORE_FINISH_NONE);
}

TEST_F(CApiOverlap, WithoutTheOptionStepsRunOneByOne) {
  open(/*async_schedule=*/false);
  EXPECT_EQ(finish(submit(CRequest(6, 10, 20))).tokens, counted_after(15, 20));
  EXPECT_EQ(metrics().steps_ahead, 0u);
  EXPECT_EQ(host.most_begun, 1u);
  EXPECT_EQ(host.unknown_tokens, 0);
}

TEST_F(CApiOverlap, OneAtATimeRefusalsAreTold) {
  host.on_begin = [](const mmcore_step* step, mmcore_step_result* result) -> mmcore_status {
    if (step->token_ids[0] != 500) return MMCORE_OK;
    result->sequence_status[0] = MMCORE_MEDIA_ERROR;
    return MMCORE_MEDIA_ERROR;
  };
  open(/*async_schedule=*/false);
  EXPECT_EQ(finish(submit(CRequest(5, 500))).error, MMCORE_MEDIA_ERROR);
  EXPECT_EQ(finish(submit(CRequest(5, 10))).tokens, counted_after(14, 8));
}

TEST_F(CApiTest, ARunnerWithoutBeginRunsAsEver) {
  mmcore_config config = small_c_config();
  config.async_schedule = 1;
  open(config);
  const mmcore_request request = submit(CRequest(6, 10, 20));
  EXPECT_EQ(read_all(request).tokens, counted_after(15, 20));
  mmcore_request_destroy(request);
  // And one that was built before there was a begin: what lies behind its struct is not read.
  mmcore_runner_functions functions = host.functions();
  functions.struct_size = offsetof(mmcore_runner_functions, begin);
  functions.begin = [](void*, const mmcore_step*, mmcore_step_result*) -> mmcore_status {
    return MMCORE_INTERNAL;
  };
  mmcore_runner older = 0;
  EXPECT_EQ(mmcore_runner_create(&functions, &host, &older), MMCORE_OK) << mmcore_last_error();
  EXPECT_EQ(mmcore_runner_destroy(older), MMCORE_OK);
  EXPECT_EQ(host.destroyed.exchange(0), 1);
}

TEST_F(CApiTest, BeginAndEndComeTogether) {
  mmcore_runner_functions functions = host.functions();
  functions.begin = functions.execute;
  mmcore_runner made = 0;
  EXPECT_EQ(mmcore_runner_create(&functions, &host, &made), MMCORE_INVALID_ARGUMENT);
  EXPECT_NE(std::string(mmcore_last_error()).find("end"), std::string::npos);
  functions.begin = nullptr;
  functions.end = functions.execute;
  EXPECT_EQ(mmcore_runner_create(&functions, &host, &made), MMCORE_INVALID_ARGUMENT);
  EXPECT_EQ(made, 0u);
}

}  // namespace
}  // namespace mmcore::testing
