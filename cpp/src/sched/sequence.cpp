#include "sched/sequence.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace mmcore {

Sequence::Sequence(RequestId request_id, Request&& request, int32_t block_size, int32_t logits_size,
                   std::span<const TokenId> eos_token_ids)
    : tokens(std::move(request.prompt_token_ids)),
      order{request.priority, request_id},
      prompt_len(static_cast<int32_t>(tokens.size())),
      max_tokens(request.sampling.max_tokens),
      min_tokens(request.sampling.min_tokens),
      ignore_eos(request.sampling.ignore_eos),
      has_stop_tokens(!request.sampling.stop_token_ids.empty()),
      num_items(static_cast<int32_t>(request.media.size())),
      slots(request.media.size(), -1),
      chain(block_size, SpanMap(std::move(request.media)), std::move(request.cache_salt),
            request.lora_id),
      sampling(std::move(request.sampling)) {
  sampling.top_k = std::min(sampling.top_k, logits_size);
  if (min_tokens == 0) return;
  banned = sampling.stop_token_ids;
  if (!ignore_eos) banned.insert(banned.end(), eos_token_ids.begin(), eos_token_ids.end());
}

SampleRow Sequence::fixed_sample_row() const {
  SampleRow row;
  row.temperature = sampling.temperature;
  row.top_p = sampling.top_p;
  row.top_k = sampling.top_k;
  row.min_p = sampling.min_p;
  row.presence_penalty = sampling.presence_penalty;
  row.frequency_penalty = sampling.frequency_penalty;
  row.repetition_penalty = sampling.repetition_penalty;
  row.seed = sampling.seed;
  row.num_logprobs = sampling.num_logprobs;
  row.logit_bias = sampling.logit_bias;
  row.allowed_tokens = sampling.allowed_token_ids;
  return row;
}

void Sequence::update_sample_row(SampleRow& row) const {
  const auto prompt = static_cast<size_t>(prompt_len);
  const size_t outputs = tokens.size() - prompt;
  row.counter = outputs;
  row.prompt_tokens = {tokens.data(), prompt};
  row.output_tokens = {tokens.data() + prompt, outputs};
  row.banned_tokens = {};
  if (num_outputs() < min_tokens) row.banned_tokens = banned;
}

}  // namespace mmcore
