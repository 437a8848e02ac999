#include "sched/sequence.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace mmcore {

Sequence::Sequence(RequestId request_id, Request&& source, int32_t block_size, int32_t logits_size,
                   std::span<const TokenId> eos_token_ids)
    : tokens(std::move(source.prompt_token_ids)),
      order{source.priority, request_id},
      prompt_len(static_cast<int32_t>(tokens.size())),
      max_tokens(source.sampling.max_tokens),
      min_tokens(source.sampling.min_tokens),
      ignore_eos(source.sampling.ignore_eos),
      has_stop_tokens(!source.sampling.stop_token_ids.empty()),
      reads_history(source.sampling.reads_history || source.sampling.presence_penalty != 0 ||
                    source.sampling.frequency_penalty != 0 ||
                    source.sampling.repetition_penalty != 1),
      num_items(static_cast<int32_t>(source.media.size())),
      slots(source.media.size(), -1),
      chain(block_size, SpanMap(std::move(source.media)), std::move(source.cache_salt),
            source.lora_id),
      sampling(std::move(source.sampling)) {
  sampling.top_k = std::min(sampling.top_k, logits_size);
  if (min_tokens == 0) return;
  banned = sampling.stop_token_ids;
  if (!ignore_eos) banned.insert(banned.end(), eos_token_ids.begin(), eos_token_ids.end());
}

Sequence Sequence::sibling(int32_t sibling_index) const {
  Sequence other = *this;
  other.tokens.resize(static_cast<size_t>(prompt_len));
  other.order.id = request() + static_cast<RequestId>(sibling_index);
  other.index = static_cast<uint16_t>(sibling_index);
  other.computed = 0;
  other.first_live_item = 0;
  other.state = SequenceState::kWaiting;
  other.first_run_done = false;
  other.reserved = false;
  other.in_flight = 0;
  other.pending_sample = -1;
  other.table = BlockTable();
  other.borrowed = 0;
  other.num_cached_tokens = 0;
  other.num_preemptions = 0;
  other.prompt_logprobs_done = 0;
  other.times_passed = 0;
  other.admitted_in = 0;
  other.slots.assign(slots.size(), -1);
  other.sampling.num_prompt_logprobs = -1;
  other.sampling.seed = sequence_seed(sampling.seed, sibling_index);
  return other;
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
