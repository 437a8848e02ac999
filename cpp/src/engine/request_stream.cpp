#include <iterator>
#include <map>
#include <utility>

#include "engine/engine_loop_impl.h"
#include "engine/joined_output.h"
#include "engine/request_channel.h"

namespace mmcore {

// ---- The channel -------------------------------------------------------------------------------

void RequestStream::Channel::deliver(RequestOutput& output) {
  const std::scoped_lock lock(mutex_);
  const bool last = output.finished();
  if (!abandoned_) outputs_.push_back(std::move(output));
  num_unfinished_ -= last;
  news_.notify_all();
}

void RequestStream::Channel::close() noexcept {
  const std::scoped_lock lock(mutex_);
  closed_ = true;
  news_.notify_all();
}

void RequestStream::Channel::abandon() {
  std::vector<RequestOutput> dropped;  // freed without the lock
  const std::scoped_lock lock(mutex_);
  abandoned_ = true;
  dropped.swap(outputs_);
}

Result<std::vector<RequestOutput>> RequestStream::Channel::take(
    std::chrono::steady_clock::time_point deadline, bool for_end) {
  std::unique_lock lock(mutex_);
  const auto ready = [&] {
    return num_unfinished_ == 0 || closed_ || (!for_end && !outputs_.empty());
  };
  if (!news_.wait_until(lock, deadline, ready))
    return Status(StatusCode::kTimeout, "The request gave nothing in the time to wait.");
  if (closed_ && num_unfinished_ > 0 && outputs_.empty())
    return Status(StatusCode::kShutdown, "The loop broke down before the request's end.");
  return std::exchange(outputs_, {});
}

bool RequestStream::Channel::complete() const {
  const std::scoped_lock lock(mutex_);
  return num_unfinished_ == 0;
}

bool RequestStream::Channel::taken() const {
  const std::scoped_lock lock(mutex_);
  return num_unfinished_ == 0 && outputs_.empty();
}

// ---- The stream --------------------------------------------------------------------------------

RequestStream::RequestStream(std::shared_ptr<Channel> channel, std::weak_ptr<EngineLoop::Impl> loop)
    : channel_(std::move(channel)), loop_(std::move(loop)) {}

RequestStream::~RequestStream() {
  const std::shared_ptr<EngineLoop::Impl> loop = loop_.lock();
  if (loop != nullptr && !loop->check_process().ok()) return;
  if (!channel_->complete() && loop != nullptr) static_cast<void>(loop->end(id_, std::nullopt));
  channel_->abandon();
}

Result<std::vector<RequestOutput>> RequestStream::wait(std::chrono::microseconds timeout) {
  const std::shared_ptr<EngineLoop::Impl> loop = loop_.lock();
  if (loop != nullptr) MMCORE_RETURN_IF_ERROR(loop->check_process());
  const bool may_wait = loop == nullptr || !loop->on_own_thread();
  return channel_->take(deadline_after(may_wait ? timeout : std::chrono::microseconds(0)), false);
}

Result<std::vector<RequestOutput>> RequestStream::collect(std::chrono::microseconds timeout) {
  const std::shared_ptr<EngineLoop::Impl> loop = loop_.lock();
  if (loop != nullptr) {
    MMCORE_RETURN_IF_ERROR(loop->check_process());
    if (loop->on_own_thread() && !channel_->complete())
      return Status::invalid_argument(
          "collect was called on the loop's thread, which would wait for itself.");
  }
  Result<std::vector<RequestOutput>> taken = channel_->take(deadline_after(timeout), true);
  if (!taken.ok()) return taken;
  std::map<int32_t, RequestOutput> by_sequence;
  for (RequestOutput& next : taken.value())
    join_output(by_sequence[next.sequence], std::move(next));
  std::vector<RequestOutput> out;
  for (auto& [sequence, output] : by_sequence) out.push_back(std::move(output));
  return out;
}

bool RequestStream::ended() const { return channel_->taken(); }

Status RequestStream::abort() {
  if (channel_->complete()) return {};
  const std::shared_ptr<EngineLoop::Impl> loop = loop_.lock();
  if (loop == nullptr) return {};
  const Status status = loop->end(id_, std::nullopt);
  return status.code() == StatusCode::kNotFound ? Status() : status;  // it ended meanwhile
}

}  // namespace mmcore
