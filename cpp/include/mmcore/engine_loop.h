// An engine with a thread of its own: any thread submits, the loop's thread steps.
//
// Threads: every function may be called from any thread, at any time before the destructor, and
// from inside callbacks and runners, which run on the loop's thread. What would wait for that
// thread from itself is refused with kInvalidArgument, or does not wait; each function says which.
// No lock is held while a callback or the runner runs. An idle loop sleeps; nothing polls.
//
// Ownership: the loop owns its Engine, shares the runner, and keeps both until its thread has
// ended. A RequestStream may outlive the loop. After fork() the child has no loop's thread: there
// every function gives kShutdown, and the destructor leaves the parent's memory alone.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mmcore/config.h"
#include "mmcore/engine.h"
#include "mmcore/export.h"
#include "mmcore/local.h"
#include "mmcore/model_runner.h"
#include "mmcore/request.h"
#include "mmcore/status.h"

namespace mmcore {

struct EngineLoopOptions {
  // Requests that were submitted and have not ended; further ones are kOverloaded, or wait for a
  // place (SubmitOptions). 0 = no limit. EngineConfig's limits on the queue hold as well; what they
  // refuse ends with kError and kOverloaded as its only output.
  int32_t max_unfinished = 1024;
};

struct SubmitOptions {
  // How long submit may wait for a place. Ignored on the loop's thread, which must not wait.
  std::chrono::microseconds place_timeout{0};
};

enum class ShutdownMode : int32_t {
  kGraceful = 0,  // what was submitted runs to its end
  kNow = 1,       // it ends with kAborted after the step that runs
};

class RequestStream;

class MMCORE_API EngineLoop {
 public:
  /// Called on the loop's thread for each output of a request, in order; the last one of each of
  /// its sequences is finished(). The output is valid during the call. It may submit, abort and
  /// read metrics; time that it takes is taken from every request. If it throws, its request is
  /// aborted and it is called no more.
  using OutputCallback = std::function<void(const RequestOutput& output)>;

  /// Checks `config`, makes the engine and starts the thread.
  static Result<std::unique_ptr<EngineLoop>> create(const EngineConfig& config,
                                                    std::shared_ptr<ModelRunner> runner,
                                                    const EngineLoopOptions& options = {});

  /// Shuts down with kNow. On the loop's own thread (a callback dropped the last reference) it does
  /// not wait: the loop ends after that callback, on its own, with everything that it keeps.
  ~EngineLoop();
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  /// Checks a request on the calling thread and hands it to the loop. Every accepted request gets
  /// exactly one last output a sequence, whatever happens afterwards. Fails with what
  /// Engine::submit refuses, kOverloaded without a place, kShutdown once the loop drains. Waits for
  /// a place only.
  Result<RequestId> submit(Request request, OutputCallback on_output, const SubmitOptions& = {});

  /// Likewise, for outputs to be pulled. Dropping the stream aborts its request.
  Result<std::unique_ptr<RequestStream>> stream(Request request, const SubmitOptions& = {});

  /// Asks for the end of a request, which comes as its last output; outputs made before may still
  /// come first. kNotFound if it has ended or never was. Does not wait.
  Status abort(RequestId id);

  /// Likewise for one sequence, with kStop: Engine::finish.
  Status finish(RequestId id, int32_t sequence = 0);

  /// Accepts nothing more and waits until all requests have ended and their callbacks returned.
  /// kTimeout if that takes longer; it goes on all the same. Refused on the loop's thread.
  Status drain(std::chrono::microseconds timeout = std::chrono::microseconds::max());

  /// Accepts nothing more, ends all requests as `mode` says, ends the thread and waits for that. Ok
  /// if the loop had ended before. Another call may turn kGraceful into kNow. Refused on the loop's
  /// thread.
  Status shutdown(ShutdownMode mode = ShutdownMode::kGraceful);

  /// Ok while requests are accepted; kShutdown once the loop drains; kInternal, with the reason,
  /// when the engine broke, which has ended every request with that error.
  Status status() const;

  /// The engine's metrics after its last step. Requests on their way to it count as waiting, ones
  /// that the loop refused as rejected. Does not wait for a step.
  EngineMetrics metrics() const;

  /// Engine::snapshot, reset_caches and check_invariants between two steps, which these wait for.
  /// Refused inside the runner.
  Result<EngineSnapshot> snapshot() const;
  Status reset_caches();
  Result<std::vector<std::string>> check_invariants() const;

  /// The resolved configuration.
  const EngineConfig& config() const;

  /// Longest prompt + output that the pool can hold for one sequence.
  int64_t max_servable_tokens() const;

  /// Whether the caller is a callback or the runner.
  bool on_loop_thread() const;

 private:
  friend class RequestStream;
  class MMCORE_LOCAL Impl;
  explicit EngineLoop(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

/// The outputs of one request, pulled. Any thread may use it; each output goes to one caller.
class MMCORE_API RequestStream {
 public:
  /// Aborts the request if it has not ended.
  ~RequestStream();
  RequestStream(const RequestStream&) = delete;
  RequestStream& operator=(const RequestStream&) = delete;

  RequestId id() const { return id_; }

  /// Moves out everything new, waiting for it at most `timeout`. kTimeout if nothing came; empty
  /// once the request has ended and all was taken. Does not wait on the loop's thread.
  Result<std::vector<RequestOutput>> wait(std::chrono::microseconds timeout);

  /// Waits for the end, and joins what has not been taken into one output a sequence: all its new
  /// tokens, with the end's reason. On kTimeout nothing is lost: call again. Refused on the loop's
  /// thread while the request runs.
  Result<std::vector<RequestOutput>> collect(
      std::chrono::microseconds timeout = std::chrono::microseconds::max());

  /// Whether every output was taken, the last one included.
  bool ended() const;

  /// EngineLoop::abort; Ok if it has ended.
  Status abort();

 private:
  friend class EngineLoop;
  class MMCORE_LOCAL Channel;
  RequestStream(std::shared_ptr<Channel> channel, std::weak_ptr<EngineLoop::Impl> loop);
  std::shared_ptr<Channel> channel_;
  std::weak_ptr<EngineLoop::Impl> loop_;
  RequestId id_ = 0;
};

}  // namespace mmcore
