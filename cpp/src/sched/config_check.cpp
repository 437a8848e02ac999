#include <limits>
#include <string>

#include "sched/admission.h"

namespace mmcore {
namespace {

Status at_least(const char* name, int64_t value, int64_t minimum) {
  if (value >= minimum) return {};
  return Status::invalid_argument(std::string(name) + " must be at least " +
                                  std::to_string(minimum) + ", got " + std::to_string(value) + ".");
}

bool is_block_size(int32_t size) { return size >= 1 && size <= 128 && (size & (size - 1)) == 0; }

Status check_minima(const EngineConfig& c) {
  MMCORE_RETURN_IF_ERROR(at_least("num_blocks", c.num_blocks, 2));
  MMCORE_RETURN_IF_ERROR(at_least("num_host_blocks", c.num_host_blocks, 0));
  if (c.num_host_blocks == std::numeric_limits<int32_t>::max())
    return Status::invalid_argument("num_host_blocks must be at most 2147483646.");
  MMCORE_RETURN_IF_ERROR(at_least("max_model_len", c.max_model_len, 2));
  MMCORE_RETURN_IF_ERROR(at_least("max_num_seqs", c.max_num_seqs, 1));
  MMCORE_RETURN_IF_ERROR(at_least("max_num_batched_tokens", c.max_num_batched_tokens, 1));
  MMCORE_RETURN_IF_ERROR(at_least("max_prefill_chunk", c.max_prefill_chunk, 0));
  MMCORE_RETURN_IF_ERROR(at_least("max_preemptions", c.max_preemptions, 0));
  if (c.headroom < 0 || c.headroom > 100)
    return Status::invalid_argument("headroom is a percentage in [0, 100], got " +
                                    std::to_string(c.headroom) + ".");
  MMCORE_RETURN_IF_ERROR(at_least("max_queued_requests", c.max_queued_requests, 0));
  MMCORE_RETURN_IF_ERROR(at_least("max_queued_tokens", c.max_queued_tokens, 0));
  MMCORE_RETURN_IF_ERROR(at_least("step_watchdog_us", c.step_watchdog_us, 0));
  MMCORE_RETURN_IF_ERROR(at_least("encoder_budget", c.encoder_budget, 0));
  MMCORE_RETURN_IF_ERROR(at_least("encoder_cache_rows", c.encoder_cache_rows, 0));
  MMCORE_RETURN_IF_ERROR(at_least("vocab_size", c.vocab_size, 1));
  MMCORE_RETURN_IF_ERROR(at_least("logits_size", c.logits_size, 0));
  MMCORE_RETURN_IF_ERROR(at_least("max_logprobs", c.max_logprobs, 0));
  MMCORE_RETURN_IF_ERROR(at_least("max_logit_bias", c.max_logit_bias, 0));
  MMCORE_RETURN_IF_ERROR(at_least("max_sequences", c.max_sequences, 1));
  if (c.max_sequences > std::numeric_limits<uint16_t>::max())
    return Status::invalid_argument("max_sequences must be at most 65535, got " +
                                    std::to_string(c.max_sequences) + ".");
  return at_least("max_stop_token_ids", c.max_stop_token_ids, 0);
}

}  // namespace

Result<EngineConfig> resolve_config(EngineConfig c) {
  if (!is_block_size(c.block_size))
    return Status::invalid_argument("block_size must be 1, 2, 4, 8, 16, 32, 64 or 128, got " +
                                    std::to_string(c.block_size) + ".");
  if (Status s = check_minima(c); !s.ok()) return s;
  if (c.num_host_blocks > 0 && !c.enable_prefix_caching)
    return Status::invalid_argument("num_host_blocks is " + std::to_string(c.num_host_blocks) +
                                    ", but without enable_prefix_caching nothing is kept. Enable "
                                    "it, or set num_host_blocks to 0.");
  if (c.hash_bits < 1 || c.hash_bits > 64)
    return Status::invalid_argument("hash_bits must be in [1, 64], got " +
                                    std::to_string(c.hash_bits) + ".");
  if (c.policy != SchedulingPolicy::kFcfs && c.policy != SchedulingPolicy::kPriority &&
      c.policy != SchedulingPolicy::kLongestPrefix)
    return Status::invalid_argument("policy is not a SchedulingPolicy: " +
                                    std::to_string(static_cast<int32_t>(c.policy)) + ".");
  if (!c.enable_chunked_prefill && c.max_num_batched_tokens < c.max_model_len)
    return Status::invalid_argument(
        "max_num_batched_tokens (" + std::to_string(c.max_num_batched_tokens) +
        ") is smaller than max_model_len (" + std::to_string(c.max_model_len) +
        "), so a prompt might never fit into a step. Raise max_num_batched_tokens, lower "
        "max_model_len or enable chunked prefill.");
  if (c.encoder_budget == 0) c.encoder_budget = c.max_num_batched_tokens;
  if (c.encoder_cache_rows == 0) {
    c.encoder_cache_rows = c.encoder_budget > std::numeric_limits<int64_t>::max() / 4
                               ? c.encoder_budget
                               : 4 * c.encoder_budget;
  }
  if (c.logits_size == 0) c.logits_size = c.vocab_size;
  for (const TokenId id : c.eos_token_ids) {
    if (id < 0 || id >= c.logits_size)
      return Status::invalid_argument("eos_token_ids must be in [0, " +
                                      std::to_string(c.logits_size) + "), got " +
                                      std::to_string(id) + ".");
  }
  return c;
}

}  // namespace mmcore
