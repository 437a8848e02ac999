// One request that a C host reads: its outputs wait here until they are copied into its buffers.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

#include "mmcore/c_api.h"
#include "mmcore/engine_loop.h"

namespace mmcore::c_api {

/// Shows `from` as the library's own memory, which lives as long as `from` and `scratch`.
struct OutputScratch {
  std::vector<int32_t> tokens;
  std::vector<mmcore_logprob> logprobs;
  std::vector<int32_t> logprob_counts;
  std::vector<mmcore_logprob> prompt_logprobs;
  std::vector<int32_t> prompt_logprob_counts;
};
mmcore_output view_output(const RequestOutput& from, OutputScratch& scratch);

class ReadableRequest : public std::enable_shared_from_this<ReadableRequest> {
 public:
  explicit ReadableRequest(int32_t num_sequences) : num_unfinished_(num_sequences) {}

  /// What the loop calls. Once it is destroyed nothing comes any more.
  EngineLoop::OutputCallback make_callback();
  void submitted(std::weak_ptr<EngineLoop> loop, RequestId id);
  RequestId id() const;

  mmcore_status read(int64_t timeout_us, mmcore_output* output);
  mmcore_status collect(int64_t timeout_us, mmcore_output* output);
  Status abort();
  /// Aborts it, and sends away who waits to read.
  void close();

 private:
  void push(const RequestOutput& output);
  void end();
  std::shared_ptr<EngineLoop> loop() const;
  bool over() const;
  mmcore_status nothing_left() const;
  static mmcore_status give(const RequestOutput& from, const mmcore_output& in,
                            mmcore_output* output);

  mutable std::mutex mutex_;
  std::condition_variable news_;
  std::deque<RequestOutput> outputs_;
  int32_t num_unfinished_;  // sequences whose last output has not come
  bool cut_ = false;        // nothing comes any more, whether or not all had an end
  bool closed_ = false;     // by the host
  std::weak_ptr<EngineLoop> loop_;
  RequestId id_ = 0;
};

}  // namespace mmcore::c_api
