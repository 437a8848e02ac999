#include "native/encoder_store.h"

#include <string>

namespace mmcore::native {

EncoderStore::EncoderStore(const Place& place, DType dtype, int64_t rows, int64_t item_rows,
                           int64_t hidden_size)
    : item_rows_(item_rows), rows_(dtype, {rows, hidden_size}, place.device) {
  for (int64_t first = rows / item_rows * item_rows; first > 0; first -= item_rows)
    free_.push_back(first - item_rows);
}

void EncoderStore::evict(const std::vector<EncoderSlot>& slots) {
  for (const EncoderSlot slot : slots) {
    const auto found = outputs_.find(slot);
    if (found == outputs_.end()) continue;
    free_.push_back(found->second);
    outputs_.erase(found);
  }
}

Result<int64_t> EncoderStore::add(EncoderSlot slot) {
  const auto [at, added] = outputs_.try_emplace(slot);
  if (!added) return at->second;
  if (free_.empty()) {
    outputs_.erase(at);
    return Status::invalid_argument(
        "there is room for " + std::to_string(outputs_.size()) +
        " encoded images, and all of it is taken; give the engine encoder_cache_rows of at most " +
        std::to_string(rows_.view().size(0)) + ", or load the runner with more");
  }
  at->second = free_.back();
  free_.pop_back();
  return at->second;
}

Status EncoderStore::find_rows(const StepPlan& plan, std::vector<int64_t>& sources) const {
  sources.clear();
  if (plan.embeddings.empty()) return {};
  sources.assign(plan.token_ids.size(), -1);
  for (const EmbeddingCopy& copy : plan.embeddings) {
    const auto found = outputs_.find(copy.slot);
    if (found == outputs_.end() || int64_t{copy.src_row} + copy.num_rows > item_rows_)
      return Status::internal("the encoder output of slot " + std::to_string(copy.slot) +
                              " is not there, or shorter than the plan says");
    for (int32_t i = 0; i < copy.num_rows; ++i)
      sources[static_cast<size_t>(copy.dst_row + i)] = found->second + copy.src_row + i;
  }
  return {};
}

}  // namespace mmcore::native
