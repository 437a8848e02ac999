// Where the outputs of one request go: a host's callback, or a stream that is read elsewhere.
#pragma once

#include <utility>

#include "mmcore/engine_loop.h"

namespace mmcore {

/// Called by the loop's thread alone.
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  /// Gives the next output, which may be moved from. What it throws ends the request.
  virtual void deliver(RequestOutput& output) = 0;
  /// Tells that nothing comes any more, although the end was not given.
  virtual void close() noexcept {}
};

class CallbackSink : public OutputSink {
 public:
  explicit CallbackSink(EngineLoop::OutputCallback callback) : callback_(std::move(callback)) {}
  void deliver(RequestOutput& output) override { callback_(output); }

 private:
  EngineLoop::OutputCallback callback_;
};

}  // namespace mmcore
