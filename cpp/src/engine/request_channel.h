// The outputs of one request between the loop's thread, which fills, and a stream's readers.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "engine/output_sink.h"

namespace mmcore {

// Holds at most the outputs of one request, which its max_tokens bounds.
class RequestStream::Channel : public OutputSink {
 public:
  explicit Channel(int32_t num_sequences) : num_unfinished_(num_sequences) {}

  void deliver(RequestOutput& output) override;
  void close() noexcept override;

  /// Drops what is there and what still comes: nobody reads any more.
  void abandon();
  /// Waits for something to take, or with `for_end` for the end, until `deadline`; moves all out.
  /// kTimeout leaves everything.
  Result<std::vector<RequestOutput>> take(std::chrono::steady_clock::time_point deadline,
                                          bool for_end);
  /// Whether the last output has come.
  bool complete() const;
  /// Whether it was taken as well.
  bool taken() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable news_;
  std::vector<RequestOutput> outputs_;
  int32_t num_unfinished_;  // sequences whose last output has not come
  bool abandoned_ = false;
  bool closed_ = false;
};

}  // namespace mmcore
