// What a caller submits and what it gets back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mmcore/media.h"
#include "mmcore/sampling.h"
#include "mmcore/status.h"
#include "mmcore/types.h"

namespace mmcore {

struct Request {
  std::vector<TokenId> prompt_token_ids;  // placeholders already expanded
  std::vector<MediaItem> media;           // in prompt order
  SamplingParams sampling;
  int32_t priority = 0;  // smaller runs first; needs SchedulingPolicy::kPriority or a custom policy
  std::string
      cache_salt;  // requests with different salts never share a cached block or encoder output
  uint64_t lora_id = 0;  // 0 = none
  // Sequences to generate from the prompt, which is computed once. Sequence i gives what a request
  // for one sequence with the seed sequence_seed(sampling.seed, i) gives; only the first one gives
  // prompt logprobs.
  int32_t num_sequences = 1;
  // Microseconds from submission after which the request ends with kError and
  // StatusCode::kTimeout; 0 = never. Looked at before each step.
  int64_t timeout_us = 0;        // until its last token
  int64_t queue_timeout_us = 0;  // until its first step
  // For ModelRunner::accept; the engine hands it on and forgets it.
  void* user_data = nullptr;
};

enum class FinishReason : int32_t {
  kNone = 0,    // still running
  kStop = 1,    // EOS, a stop token, or Engine::finish by a stop string
  kLength = 2,  // max_tokens, max_model_len or the KV pool's capacity
  kAborted = 3,
  kError = 4,  // RequestOutput::error says why
};

/// What changed for one sequence of a request in one step (or by an abort). Handed out once, in
/// order. Each sequence has one last output.
struct RequestOutput {
  RequestId id = 0;
  int32_t sequence = 0;  // of Request::num_sequences
  std::vector<SampledToken> new_tokens;
  std::vector<std::vector<TokenLogprob>>
      new_prompt_logprobs;  // one entry a prompt position from 1 on
  FinishReason finish_reason = FinishReason::kNone;
  TokenId stop_token = -1;  // the stop_token_ids entry that ended it; -1 for EOS and other reasons
  Status error;             // with kError
  int32_t num_cached_tokens =
      0;  // prompt tokens that came from the prefix cache at first scheduling
  int32_t num_preemptions = 0;
  bool finished() const { return finish_reason != FinishReason::kNone; }
};

}  // namespace mmcore
