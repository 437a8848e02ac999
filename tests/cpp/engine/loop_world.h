// Runners and helpers for tests of EngineLoop and of the C API. Nothing sleeps: what has to wait
// waits for a Gate.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "engine/harness.h"
#include "mmcore/engine_loop.h"

namespace mmcore::testing {

/// Closed until it is opened, for good.
class Gate {
 public:
  void open() {
    const std::scoped_lock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

/// "Samples" the token after the newest one, modulo the vocabulary.
class CountingRunner : public ModelRunner {
 public:
  explicit CountingRunner(int32_t vocab_size = 1000) : vocab_size_(vocab_size) {}

  Status accept(RequestId request, const Request& content) override {
    (void)content;
    const std::scoped_lock lock(mutex_);
    held_.insert(request);
    return {};
  }
  Status execute(const StepPlan& plan, StepResult& result) override {
    ++steps;
    if (before_step) before_step(plan);
    if (fail_with) throw InternalError(fail_with);
    for (const int32_t row : plan.sample_rows) {
      SampledToken sampled;
      sampled.token = (plan.token_ids[static_cast<size_t>(row)] + 1) % vocab_size_;
      result.tokens.push_back(sampled);
    }
    return {};
  }
  void release(RequestId request) override {
    const std::scoped_lock lock(mutex_);
    held_.erase(request);
  }

  size_t num_held() const {
    const std::scoped_lock lock(mutex_);
    return held_.size();
  }

  std::function<void(const StepPlan&)> before_step;  // set before the first request
  std::atomic<const char*> fail_with = nullptr;
  std::atomic<int64_t> steps = 0;

 private:
  const int32_t vocab_size_;
  mutable std::mutex mutex_;
  std::set<RequestId> held_;
};

/// Likewise, with a step taken while the one before it is not yet ended.
class OverlappingRunner : public CountingRunner {
 public:
  bool overlaps() const override { return true; }
  Status begin(StepPlan& plan, StepResult& result) override {
    fill_unknown_tokens(plan, newest_);
    MMCORE_RETURN_IF_ERROR(execute(plan, result));
    newest_ = result;
    num_begun_ += result.failed.empty();
    return {};
  }
  Status end() override {
    --num_begun_;
    return {};
  }
  size_t num_begun() const { return num_begun_; }  // of the loop's thread

 private:
  StepResult newest_;
  size_t num_begun_ = 0;
};

/// What CountingRunner gives for a prompt that ends with `last`.
inline std::vector<TokenId> counted(TokenId last, int32_t count, int32_t vocab_size = 1000) {
  std::vector<TokenId> out;
  for (int32_t i = 1; i <= count; ++i) out.push_back((last + i) % vocab_size);
  return out;
}

inline std::vector<TokenId> tokens_of(const std::vector<RequestOutput>& outputs) {
  std::vector<TokenId> out;
  for (const RequestOutput& output : outputs)
    for (const SampledToken& token : output.new_tokens) out.push_back(token.token);
  return out;
}

constexpr std::chrono::seconds kLong{60};  // for what must not take long

}  // namespace mmcore::testing
