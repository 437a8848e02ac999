// Whether a sequence ends with the token it was just given.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "mmcore/request.h"
#include "sched/sequence.h"

namespace mmcore {

struct StopDecision {
  FinishReason reason = FinishReason::kNone;
  TokenId stop_token = -1;  // of stop_token_ids; -1 for EOS and lengths
};

/// Looks at the last of the first `size` tokens of `sequence`, which is an output. Stop tokens come
/// before lengths, and EOS before stop_token_ids. `length_limit` bounds prompt and outputs
/// together.
inline StopDecision check_stop(const Sequence& sequence, int32_t size,
                               std::span<const TokenId> eos_token_ids, int64_t length_limit) {
  const TokenId last = sequence.tokens[static_cast<size_t>(size) - 1];
  const int32_t num_outputs = size - sequence.prompt_len;
  if (num_outputs > sequence.min_tokens) {
    if (!sequence.ignore_eos && std::ranges::find(eos_token_ids, last) != eos_token_ids.end())
      return {FinishReason::kStop, -1};
    if (sequence.has_stop_tokens) {
      const std::vector<TokenId>& stops = sequence.sampling.stop_token_ids;
      if (std::ranges::find(stops, last) != stops.end()) return {FinishReason::kStop, last};
    }
  }
  if (num_outputs >= sequence.max_tokens || size >= length_limit)
    return {FinishReason::kLength, -1};
  return {};
}

}  // namespace mmcore
