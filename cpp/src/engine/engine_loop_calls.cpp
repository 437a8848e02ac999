// EngineLoop::Impl: what other threads call.
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "engine/engine_loop_impl.h"
#include "sched/admission.h"

namespace mmcore {

std::chrono::steady_clock::time_point deadline_after(std::chrono::microseconds timeout) {
  constexpr std::chrono::microseconds kLongest = std::chrono::hours(24 * 365);
  const auto zero = std::chrono::microseconds(0);
  return std::chrono::steady_clock::now() + std::clamp(timeout, zero, kLongest);
}

EngineLoop::Impl::Impl(std::shared_ptr<ModelRunner> runner, std::unique_ptr<Engine> engine,
                       const EngineLoopOptions& options)
    : config_(engine->config()),
      max_servable_tokens_(engine->max_servable_tokens()),
      max_unfinished_(options.max_unfinished),
      process_(getpid()),
      metrics_(engine->metrics()),
      runner_(std::move(runner)),
      engine_(std::move(engine)) {}

void EngineLoop::Impl::start(const std::shared_ptr<Impl>& impl) {
  impl->thread_ = std::thread([impl] { impl->run(); });
}

void EngineLoop::Impl::let_go(std::shared_ptr<Impl> impl) {
  if (!impl->check_process().ok()) {
    // The thread, and whatever it held, exist in the parent only: nothing here may be touched.
    static auto* const kept = new std::vector<std::shared_ptr<Impl>>();
    kept->push_back(std::move(impl));
    return;
  }
  if (!impl->on_own_thread()) {
    static_cast<void>(impl->shutdown(ShutdownMode::kNow));
    return;
  }
  const std::scoped_lock lock(impl->mutex_);
  impl->draining_ = impl->closing_ = impl->now_ = true;
  if (impl->thread_.joinable()) impl->thread_.detach();
}

Status EngineLoop::Impl::check_process() const {
  if (process_ == getpid()) return {};
  return {StatusCode::kShutdown,
          "This process was forked from the loop's and has no thread for it; make a loop of its "
          "own."};
}

Status EngineLoop::Impl::refused_here(const char* call) const {
  return Status::invalid_argument(std::string(call) +
                                  " was called on the loop's thread, which would wait for itself. "
                                  "Call it from another one.");
}

// Why nothing is accepted; with the lock.
Status EngineLoop::Impl::closed() const {
  if (!broken_.ok()) return {StatusCode::kShutdown, broken_.message()};
  if (draining_) return {StatusCode::kShutdown, "The loop drains: it accepts no more requests."};
  return {};
}

bool EngineLoop::Impl::has_place() const {
  return max_unfinished_ == 0 || std::ssize(live_) < max_unfinished_;
}

Result<RequestId> EngineLoop::Impl::submit(Request&& request, std::shared_ptr<OutputSink> sink,
                                           const SubmitOptions& options) {
  MMCORE_RETURN_IF_ERROR(check_process());
  const Status valid = check_request(request, config_);
  std::unique_lock lock(mutex_);
  const auto refuse = [&](Status status) -> Result<RequestId> {
    ++num_refused_;
    return status;
  };
  const auto may_go_on = [&] { return draining_ || has_place(); };
  if (!draining_ && !valid.ok()) return refuse(valid);
  if (!may_go_on() && options.place_timeout.count() > 0 && !on_own_thread())
    place_.wait_until(lock, deadline_after(options.place_timeout), may_go_on);
  if (draining_) return refuse(closed());
  if (!has_place())
    return refuse({StatusCode::kOverloaded, std::to_string(max_unfinished_) +
                                                " requests have not ended (max_unfinished). Try "
                                                "again later."});
  const RequestId id = last_id_ + 1;
  const int32_t num_sequences = request.num_sequences;
  live_.emplace(id, num_sequences);
  try {
    inbox_.emplace_back(Submission{id, std::move(request), std::move(sink)});
  } catch (...) {
    live_.erase(id);
    throw;
  }
  last_id_ += static_cast<RequestId>(num_sequences);
  ++num_on_their_way_;
  wake_.notify_one();
  return id;
}

Status EngineLoop::Impl::end(RequestId id, std::optional<int32_t> sequence) {
  MMCORE_RETURN_IF_ERROR(check_process());
  const std::scoped_lock lock(mutex_);
  const auto it = live_.find(id);
  const int32_t index = sequence.value_or(0);
  if (it == live_.end() || index < 0 || index >= it->second) {
    const std::string of = index == 0 ? "" : " and a sequence " + std::to_string(index);
    return {StatusCode::kNotFound, "No unfinished request has id " + std::to_string(id) + of + "."};
  }
  inbox_.emplace_back(Ending{id, sequence});
  wake_.notify_one();
  return {};
}

Status EngineLoop::Impl::drain(std::chrono::microseconds timeout) {
  MMCORE_RETURN_IF_ERROR(check_process());
  if (on_own_thread()) return refused_here("drain");
  const auto deadline = deadline_after(timeout);
  std::unique_lock lock(mutex_);
  draining_ = true;
  place_.notify_all();
  const auto quiet = [&] { return exited_ || (live_.empty() && inbox_.empty() && !busy_); };
  if (quiet_.wait_until(lock, deadline, quiet)) return {};
  return {StatusCode::kTimeout, std::to_string(live_.size()) + " requests have not ended."};
}

Status EngineLoop::Impl::shutdown(ShutdownMode mode) {
  MMCORE_RETURN_IF_ERROR(check_process());
  if (on_own_thread()) return refused_here("shutdown");
  std::thread thread;
  {
    std::unique_lock lock(mutex_);
    draining_ = closing_ = true;
    now_ |= mode == ShutdownMode::kNow;
    wake_.notify_one();
    place_.notify_all();
    quiet_.wait(lock, [&] { return exited_; });
    thread.swap(thread_);
  }
  if (thread.joinable()) thread.join();
  return {};
}

Status EngineLoop::Impl::status() const {
  MMCORE_RETURN_IF_ERROR(check_process());
  const std::scoped_lock lock(mutex_);
  return broken_.ok() ? closed() : broken_;
}

EngineMetrics EngineLoop::Impl::metrics() const {
  if (!check_process().ok()) return {};
  const std::scoped_lock lock(mutex_);
  EngineMetrics metrics = metrics_;
  metrics.num_waiting += num_on_their_way_;
  metrics.requests_rejected += num_refused_;
  return metrics;
}

Status EngineLoop::Impl::visit(const char* call, const std::function<void(Engine&)>& visitor) {
  MMCORE_RETURN_IF_ERROR(check_process());
  if (on_own_thread()) {
    if (in_engine_)
      return Status::invalid_argument(
          std::string(call) + " was called from inside ModelRunner; call it between steps.");
    visitor(*engine_);
    return {};
  }
  const auto visit = std::make_shared<Visit>(Visit{&visitor, {}});
  std::unique_lock lock(mutex_);
  if (exited_) return closed();
  inbox_.emplace_back(visit);
  wake_.notify_one();
  visited_.wait(lock, [&] { return visit->visitor == nullptr; });
  return visit->status;
}

}  // namespace mmcore
