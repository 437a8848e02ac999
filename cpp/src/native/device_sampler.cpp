#include "native/device_sampler.h"

#include <algorithm>
#include <utility>

#include "mmcore/ops.h"

namespace mmcore::native {

DeviceSampler::DeviceSampler(const Place& place, int64_t rows, int64_t vocab)
    : place_(place),
      most_(rows),
      tokens_(DType::kInt32, {rows}, place.device),
      workspace_(DType::kUInt8, {ops::sample_tensors_workspace_bytes(rows, vocab)}, place.device) {
  Result<gpu::Memory> memory =
      gpu::Memory::pinned(place.device, rows * static_cast<int64_t>(sizeof(TokenId)));
  Result<gpu::Event> event = gpu::Event::make(place.device);
  status_ = !memory.ok() ? memory.status() : event.status();
  if (!status_.ok()) return;
  host_tokens_ = std::move(memory).value();
  done_ = std::move(event).value();
}

bool DeviceSampler::takes(std::span<const SampleRow> rows) const {
  return static_cast<int64_t>(rows.size()) <= most_ &&
         std::ranges::all_of(rows, [](const SampleRow& row) {
           return row.presence_penalty == 0.0f && row.frequency_penalty == 0.0f &&
                  row.repetition_penalty == 1.0f && row.num_logprobs < 0 &&
                  row.logit_bias.empty() && row.allowed_tokens.empty() && row.banned_tokens.empty();
         });
}

Status DeviceSampler::pick(const TensorView& logits, const StepTensors& step,
                           std::span<const TokenId>& tokens) const {
  const int64_t S = logits.size(0);
  const TensorView picked = tokens_.rows(0, S);
  MMCORE_RETURN_IF_ERROR(ops::sample_tensors({.logits = logits,
                                              .temperature = rows_of(step.temperature, 0, S),
                                              .top_p = rows_of(step.top_p, 0, S),
                                              .min_p = rows_of(step.min_p, 0, S),
                                              .top_k = rows_of(step.top_k, 0, S),
                                              .seed = rows_of(step.seed, 0, S),
                                              .counter = rows_of(step.counter, 0, S),
                                              .tokens = picked,
                                              .workspace = workspace_.view()},
                                             place_.stream));
  MMCORE_RETURN_IF_ERROR(
      copy(place_, host_tokens_.data(), picked.data, S * static_cast<int64_t>(sizeof(TokenId))));
  MMCORE_RETURN_IF_ERROR(done_.record(place_.stream));
  MMCORE_RETURN_IF_ERROR(done_.wait());
  tokens = {static_cast<const TokenId*>(host_tokens_.data()), static_cast<size_t>(S)};
  return {};
}

}  // namespace mmcore::native
