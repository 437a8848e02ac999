#include "sched/sequence.h"

#include <algorithm>
#include <utility>

namespace mmcore {

Sequence::Sequence(RequestId request_id, Request&& request, int32_t block_size, int32_t logits_size,
                   std::span<const TokenId> eos_token_ids)
    : tokens(std::move(request.prompt_token_ids)),
      prompt_len(static_cast<int32_t>(tokens.size())),
      ignore_eos(request.sampling.ignore_eos),
      max_tokens(request.sampling.max_tokens),
      min_tokens(request.sampling.min_tokens),
      order{request.priority, request_id},
      slots(request.media.size(), -1),
      chain(block_size, SpanMap(std::move(request.media)), std::move(request.cache_salt),
            request.lora_id),
      sampling(std::move(request.sampling)) {
  if (min_tokens > 0) {
    banned = sampling.stop_token_ids;
    if (!ignore_eos) banned.insert(banned.end(), eos_token_ids.begin(), eos_token_ids.end());
  }
  sample_row.temperature = sampling.temperature;
  sample_row.top_p = sampling.top_p;
  sample_row.top_k = std::min(sampling.top_k, logits_size);
  sample_row.min_p = sampling.min_p;
  sample_row.presence_penalty = sampling.presence_penalty;
  sample_row.frequency_penalty = sampling.frequency_penalty;
  sample_row.repetition_penalty = sampling.repetition_penalty;
  sample_row.seed = sampling.seed;
  sample_row.num_logprobs = sampling.num_logprobs;
  sample_row.logit_bias = sampling.logit_bias;
  sample_row.allowed_tokens = sampling.allowed_token_ids;
}

const SampleRow& Sequence::refresh_sample_row() {
  const auto prompt = static_cast<size_t>(prompt_len);
  const size_t outputs = tokens.size() - prompt;
  sample_row.counter = outputs;
  sample_row.prompt_tokens = {tokens.data(), prompt};
  sample_row.output_tokens = {tokens.data() + prompt, outputs};
  sample_row.banned_tokens =
      num_outputs() < min_tokens ? std::span<const TokenId>(banned) : std::span<const TokenId>();
  return sample_row;
}

}  // namespace mmcore
