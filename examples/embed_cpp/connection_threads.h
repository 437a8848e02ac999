// Threads for connections: one each while it is busy, made when none is idle, up to a limit.
#pragma once

#include <httplib.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace service {

/// A client that waits for its answer holds a thread, so there are as many as clients, not as
/// cores. Connections beyond the limit wait for a thread.
class ConnectionThreads final : public httplib::TaskQueue {
 public:
  // void, or bool in newer releases of cpp-httplib.
  using Enqueued = decltype(std::declval<httplib::TaskQueue&>().enqueue({}));

  explicit ConnectionThreads(size_t limit) : limit_(limit) {}

  Enqueued enqueue(std::function<void()> task) override;
  void shutdown() override;

 private:
  void work();

  const size_t limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  size_t idle_ = 0;
  bool ending_ = false;
};

}  // namespace service
