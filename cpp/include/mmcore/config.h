// Limits and policies of an engine. Checked once, by Engine::create; the Python mirror has the same
// fields.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "mmcore/types.h"

namespace mmcore {

class QueuePolicy;  // queue_policy.h

enum class SchedulingPolicy : int32_t { kFcfs = 0, kPriority = 1, kLongestPrefix = 2 };

struct EngineConfig {
  // KV cache
  int32_t block_size = 16;  // tokens a block: any of 1, 2, 4, 8, 16, 32, 64, 128
  int32_t num_blocks = 0;   // blocks of the pool, the null block included; >= 2
  bool enable_prefix_caching = true;
  // A prompt adopts blocks that another one fills in the same step. Off for a runner whose layers
  // do not write all keys and values of a step before they read any.
  bool share_within_step = true;
  // Blocks of host memory that keep what is evicted from the pool, until it is needed again or
  // their own least recently used ones go. 0 = off; needs prefix caching, and a runner that has
  // them.
  int32_t num_host_blocks = 0;
  uint64_t hash_key = 0;   // key of the prefix hash; 0 = drawn at random at start
  int32_t hash_bits = 64;  // tests truncate the hash to force collisions; results must not change

  // Scheduling
  int32_t max_model_len = 0;              // prompt + output tokens of one sequence
  int32_t max_num_seqs = 256;             // sequences in one step
  int32_t max_num_batched_tokens = 2048;  // token budget of one step, decodes first
  bool enable_chunked_prefill =
      true;  // off: a prompt runs in one step, max_num_batched_tokens >= max_model_len
  int32_t max_prefill_chunk = 0;  // longest chunk of one sequence in one step; 0 = the token budget
  SchedulingPolicy policy = SchedulingPolicy::kFcfs;
  std::shared_ptr<QueuePolicy> custom_policy;  // of a C++ host; if set, `policy` is not used
  // A sequence that was preempted this often enters again only with room for its whole life, and is
  // never preempted after that. 0: nobody is ever preempted.
  int32_t max_preemptions = 4;
  // Of what running sequences are expected to grow by, the percentage that must be free before
  // another one enters. 0: a block for each, so that more run at once and more are preempted.
  int32_t headroom = 100;
  int32_t max_queued_requests = 0;  // waiting requests; 0 = no limit
  int64_t max_queued_tokens = 0;    // their tokens, unless nothing else waits; 0 = no limit
  // Step k + 1 is planned and handed over while step k runs, if the runner overlaps() steps; the
  // tokens are the same.
  bool async_schedule = false;

  // Time, which counts for deadlines and the watchdog only
  std::function<int64_t()> clock_us;  // never goes back; empty = the machine's steady clock
  int64_t step_watchdog_us = 0;  // a run of the model that takes longer is counted; 0 = not watched

  // Media
  bool multimodal = false;  // false: a request with media is refused
  bool split_media_items =
      true;  // false (seed-level models): an item's span runs whole, in one step
  int64_t encoder_budget =
      0;  // embedding rows that one step may encode; 0 = max_num_batched_tokens
  int64_t encoder_cache_rows =
      0;  // embedding rows that the encoder cache holds; 0 = 4 * encoder_budget

  // The model, and limits that protect it
  int32_t vocab_size = 0;  // rows of the embedding table: prompt ids must be below
  int32_t logits_size =
      0;  // columns of the logits: bias, allowed and stop ids must be below; 0 = vocab_size
  std::vector<TokenId> eos_token_ids;
  int32_t max_logprobs = 20;
  int32_t max_logit_bias = 300;
  int32_t max_stop_token_ids = 256;
  int32_t max_sequences = 128;  // of one request
};

}  // namespace mmcore
