// Outputs waiting to be taken, in order. Objects and their vectors are used again when the caller
// hands its old batch back, so that a steady decode allocates nothing.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "mmcore/request.h"

namespace mmcore {

class OutputQueue {
 public:
  /// Appends an output for `id` with every other field at its default.
  RequestOutput& push(RequestId id) {
    if (size_ == items_.size()) items_.emplace_back();
    RequestOutput& output = items_[size_++];
    output.id = id;
    output.sequence = 0;
    output.new_tokens.clear();
    output.new_prompt_logprobs.clear();
    output.finish_reason = FinishReason::kNone;
    output.stop_token = -1;
    if (!output.error.ok()) output.error = Status();
    output.num_cached_tokens = 0;
    output.num_preemptions = 0;
    return output;
  }

  /// Exchanges the queue's content for `batch`, whose content is discarded.
  void take(std::vector<RequestOutput>& batch) {
    items_.resize(size_);
    items_.swap(batch);
    size_ = 0;
  }

 private:
  std::vector<RequestOutput> items_;  // [0, size_) wait; the rest are spare
  size_t size_ = 0;
};

}  // namespace mmcore
