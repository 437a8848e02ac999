// The engine, its thread, and what crosses between that thread and all others.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <variant>
#include <vector>

#include "engine/output_sink.h"
#include "mmcore/engine_loop.h"

namespace mmcore {

/// Now + `timeout`, for timeouts without end too.
std::chrono::steady_clock::time_point deadline_after(std::chrono::microseconds timeout);

//   any thread --- submit, end, visit ---> inbox_ ---> the loop's thread ---> engine_
//   any thread <--- live_, metrics_, flags ----------------/    \---> listeners_: callbacks,
//   streams
//
// mutex_ guards what both sides touch. It is never held while the engine, the runner, a callback or
// anything else of the host runs. What is below `runner_` belongs to the loop's thread alone.
class EngineLoop::Impl {
 public:
  Impl(std::shared_ptr<ModelRunner> runner, std::unique_ptr<Engine> engine,
       const EngineLoopOptions& options);
  static void start(const std::shared_ptr<Impl>& impl);
  /// Ends the loop for its handle's destructor, whatever thread that runs on.
  static void let_go(std::shared_ptr<Impl> impl);

  Result<RequestId> submit(Request&& request, std::shared_ptr<OutputSink> sink,
                           const SubmitOptions& options);
  /// Ends a request, or one sequence of it.
  Status end(RequestId id, std::optional<int32_t> sequence);
  Status drain(std::chrono::microseconds timeout);
  Status shutdown(ShutdownMode mode);
  Status status() const;
  EngineMetrics metrics() const;
  /// Runs `visitor` on the engine between two steps, and waits for it.
  Status visit(const char* call, const std::function<void(Engine&)>& visitor);

  const EngineConfig& config() const { return config_; }
  int64_t max_servable_tokens() const { return max_servable_tokens_; }
  bool on_own_thread() const { return std::this_thread::get_id() == thread_id_.load(); }
  /// Not Ok in a child process, which has no loop's thread.
  Status check_process() const;

 private:
  struct Submission {
    RequestId id = 0;
    Request request;
    std::shared_ptr<OutputSink> sink;  // null once handled
  };
  struct Ending {
    RequestId id = 0;
    std::optional<int32_t> sequence;  // none: the whole request
  };
  struct Visit {
    const std::function<void(Engine&)>* visitor = nullptr;  // null once handled
    Status status;
  };
  using Message = std::variant<Submission, Ending, std::shared_ptr<Visit>>;
  struct Listener {
    std::shared_ptr<OutputSink> sink;  // null once it threw
    std::vector<bool> ended;           // by sequence
    int32_t num_unfinished = 0;
  };

  Status refused_here(const char* call) const;
  Status closed() const;
  bool has_place() const;
  void run();
  void run_until_closed();
  bool next_batch();
  void handle(Submission& submission);
  void handle(const Ending& ending);
  void handle(const std::shared_ptr<Visit>& visit);
  void publish();
  void step();
  void dispatch();
  void deliver(RequestId id, Listener& listener, RequestOutput& output);
  void refuse(RequestId id, size_t num_sequences, OutputSink& sink, const Status& reason);
  void abort_all();
  void close_for(const Status& reason);
  void break_down(const Status& reason);
  void end_thread();

  const EngineConfig config_;
  const int64_t max_servable_tokens_;
  const int64_t max_unfinished_;
  const int64_t process_;
  std::atomic<std::thread::id> thread_id_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;     // the loop: there is something to do
  std::condition_variable place_;    // submit: a request has ended, or the loop closes
  std::condition_variable quiet_;    // drain, shutdown: all has ended, or the thread has
  std::condition_variable visited_;  // visit
  std::deque<Message> inbox_;
  int64_t num_on_their_way_ = 0;                 // submitted, unknown to metrics_
  std::unordered_map<RequestId, int32_t> live_;  // requests that have not ended: their sequences
  RequestId last_id_ = 0;
  EngineMetrics metrics_;
  uint64_t num_refused_ = 0;
  bool busy_ = false;      // the loop handles messages, steps or calls back
  bool draining_ = false;  // nothing is accepted
  bool closing_ = false;   // and the thread ends when everything has ended
  bool now_ = false;       // which is made to happen
  bool exited_ = false;
  Status broken_;
  std::thread thread_;

  std::shared_ptr<ModelRunner> runner_;
  std::unique_ptr<Engine> engine_;  // after the runner, which must outlive it
  std::unordered_map<RequestId, Listener> listeners_;
  std::deque<Message> messages_;        // the batch that is handled
  std::deque<Message> rest_;            // after a breakdown: the inbox as it was then
  int64_t num_handled_ = 0;             // submissions of it
  std::vector<RequestOutput> outputs_;  // of the last step
  std::vector<RequestId> over_;         // requests that end in them
  bool in_engine_ = false;              // the runner may be running
  bool abort_all_ = false;              // now_, when the batch was taken
};

}  // namespace mmcore
