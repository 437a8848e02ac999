#include "native/encoder_store.h"

#include <cstring>
#include <string>

namespace mmcore::native {

void EncoderStore::evict(const std::vector<EncoderSlot>& slots) {
  for (const EncoderSlot slot : slots) outputs_.erase(slot);
}

TensorView EncoderStore::add(EncoderSlot slot, int64_t rows) {
  HostTensor& output = outputs_[slot];
  output = HostTensor(dtype_, {rows, hidden_size_});
  return output.view();
}

Status EncoderStore::gather(const StepPlan& plan) {
  rows_ = source_ = {};
  if (plan.embeddings.empty()) return {};
  int64_t total = 0;
  for (const EmbeddingCopy& copy : plan.embeddings) total += copy.num_rows;
  if (!gathered_.present() || gathered_.view().size(0) < total)
    gathered_ = HostTensor(dtype_, {total, hidden_size_});
  sources_.assign(plan.token_ids.size(), -1);
  int64_t row = 0;
  for (const EmbeddingCopy& copy : plan.embeddings) {
    const auto found = outputs_.find(copy.slot);
    if (found == outputs_.end() ||
        int64_t{copy.src_row} + copy.num_rows > found->second.view().size(0))
      return Status::internal("the encoder output of slot " + std::to_string(copy.slot) +
                              " is not there, or shorter than the plan says");
    const TensorView from = found->second.rows(copy.src_row, copy.num_rows);
    std::memcpy(gathered_.rows(row, copy.num_rows).data, from.data,
                static_cast<size_t>(from.numel()) * size_of(dtype_));
    for (int32_t i = 0; i < copy.num_rows; ++i)
      sources_[static_cast<size_t>(copy.dst_row + i)] = row++;
  }
  rows_ = gathered_.rows(0, total);
  source_ = TensorView(sources_.data(), DType::kInt64, {static_cast<int64_t>(sources_.size())});
  return {};
}

}  // namespace mmcore::native
