// How one sequence picks its next token: parameters of a request, and the rows a step hands to
// ops::sample.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "mmcore/types.h"

namespace mmcore {

/// Sampling parameters that act on token ids. Stop strings are text and belong to the detokenizer.
/// Ranges are checked by Engine::submit (the one validator); defaults are those of the seed-era
/// API.
struct SamplingParams {
  float temperature = 1.0f;          // >= 0; below 1e-5 means greedy
  float top_p = 1.0f;                // (0, 1]
  int32_t top_k = -1;                // -1 = off, else >= 1
  float min_p = 0.0f;                // [0, 1]
  float presence_penalty = 0.0f;     // [-2, 2], over output tokens
  float frequency_penalty = 0.0f;    // [-2, 2], over output tokens
  float repetition_penalty = 1.0f;   // (0, 2], over prompt and output tokens
  uint64_t seed = 0;                 // key of the counter-based generator
  int32_t max_tokens = 16;           // >= 1
  int32_t min_tokens = 0;            // stop tokens are masked until this many were generated
  int32_t num_logprobs = -1;         // -1 = none, k = the sampled token's and the k best
  int32_t num_prompt_logprobs = -1;  // likewise for every prompt position
  bool ignore_eos = false;
  // The runner itself reads the sequence's tokens (SampleRow::prompt_tokens, output_tokens), as a
  // logits processor does. Penalties need not set it.
  bool reads_history = false;
  std::vector<TokenId> stop_token_ids;                // EOS ids of the model are in EngineConfig
  std::vector<std::pair<TokenId, float>> logit_bias;  // at most EngineConfig::max_logit_bias
  std::vector<TokenId> allowed_token_ids;             // empty = all
};

/// The seed of sequence `index` of a request for several; that of the first is the request's own.
constexpr uint64_t sequence_seed(uint64_t seed, int32_t index) {
  return seed + static_cast<uint64_t>(index) * 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio
}

/// One row of logits to sample. Spans point into the engine's state and live until the step
/// commits. Used by ops::sample on every device; a caller without an engine fills it by hand.
/// In steps that overlap, prompt_tokens and output_tokens are empty where neither penalties nor
/// SamplingParams::reads_history need them.
struct SampleRow {
  float temperature = 1.0f;
  float top_p = 1.0f;
  int32_t top_k = -1;
  float min_p = 0.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;
  uint64_t seed = 0;
  uint64_t counter = 0;  // index of the token to generate: the same (seed, counter) gives the same
                         // draw in any batch
  int32_t num_logprobs = -1;
  std::span<const TokenId> prompt_tokens;
  std::span<const TokenId> output_tokens;
  std::span<const std::pair<TokenId, float>> logit_bias;
  std::span<const TokenId> allowed_tokens;  // empty = all
  std::span<const TokenId> banned_tokens;   // masked out (stop tokens before min_tokens)
};

/// One alternative of a logprob request.
struct TokenLogprob {
  TokenId token = 0;
  float logprob =
      0.0f;  // natural log of softmax over raw logits, before temperature, penalties and masks
  int32_t rank = 0;  // 1 = most likely
};

/// What ops::sample returns for a row: the token and, if asked for, its logprob first and then the
/// best ones.
struct SampledToken {
  TokenId token = -1;
  std::vector<TokenLogprob> logprobs;
};

}  // namespace mmcore
