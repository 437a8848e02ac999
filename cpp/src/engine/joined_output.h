// Outputs of one sequence, joined into one: all its new tokens, with the last one's reason.
#pragma once

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "mmcore/request.h"

namespace mmcore {

/// Puts `next` behind `all`, which is empty or holds earlier outputs of the same sequence.
inline void join_output(RequestOutput& all, RequestOutput&& next) {
  std::vector<SampledToken> tokens = std::move(all.new_tokens);
  auto prompt_logprobs = std::move(all.new_prompt_logprobs);
  std::ranges::move(next.new_tokens, std::back_inserter(tokens));
  std::ranges::move(next.new_prompt_logprobs, std::back_inserter(prompt_logprobs));
  all = std::move(next);
  all.new_tokens = std::move(tokens);
  all.new_prompt_logprobs = std::move(prompt_logprobs);
}

}  // namespace mmcore
