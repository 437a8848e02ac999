// The seam between the engine and whatever computes the model: Python modules, a native model, or
// the host's own.
//
// Threads: all calls come from the thread that calls Engine::step. Ownership: the plan belongs to
// the engine and is valid during the call of execute(), or from begin() to its end(). The runner
// owns all tensors: weights, KV cache, encoder outputs.
#pragma once

#include <cstdint>
#include <vector>

#include "mmcore/export.h"
#include "mmcore/request.h"
#include "mmcore/sampling.h"
#include "mmcore/status.h"
#include "mmcore/types.h"

namespace mmcore {

/// One sequence's share of a step. Rows are rows of the flat arrays of StepPlan.
struct ScheduledSequence {
  RequestId request = 0;
  int32_t sequence = 0;      // of the request: 0 unless it asked for several
  int32_t first_row = 0;     // rows [first_row, first_row + num_tokens)
  int32_t num_tokens = 0;    // >= 1
  int32_t num_computed = 0;  // tokens of the sequence whose KV is already in the cache
  bool is_prefill = false;   // more than its newest token was missing before the step
  // Index into sample_rows and sampling, or -1: a chunk that does not reach the newest token.
  int32_t sample_row = -1;
};

/// An item to run through the encoder before the decoder runs. Its output, which requests with the
/// same item may share, is kept under `slot` until `evict` names it. Slots are never used twice.
struct EncodeItem {
  RequestId request = 0;
  int32_t item_index = 0;  // index into Request::media
  EncoderSlot slot = -1;
  int64_t num_embeddings = 0;
};

/// Rows of an encoder output that overwrite embedding rows of this step:
///   embeddings[dst_row + i] = output(slot)[src_row + i] for i in [0, num_rows)
struct EmbeddingCopy {
  RequestId request = 0;
  int32_t item_index = 0;
  EncoderSlot slot = -1;
  int32_t src_row = 0;
  int32_t dst_row = 0;
  int32_t num_rows = 0;
};

/// Copies a whole KV block, in all layers, before anything of the step is written. No block is the
/// source of one copy and the destination of another.
struct BlockCopy {
  BlockId src = 0;
  BlockId dst = 0;
};

/// Copies a whole KV block, in all layers, between the device and the host tier
/// (EngineConfig::num_host_blocks).
struct HostCopy {
  BlockId block = 0;
  int32_t host_block = 0;  // in [0, num_host_blocks)
};

/// All that one forward pass needs. With EngineConfig::share_within_step a sequence's table may
/// name blocks that an earlier sequence of the same plan fills; each layer therefore writes the
/// keys and values of all rows before it reads any. Arrays are flat and contiguous; T rows
/// (tokens), N sequences, S sampled rows. The order of work: evict, host_saves, host_loads,
/// block_copies, encode, embeddings, decoder, sampling.
struct StepPlan {
  uint64_t step = 0;
  std::vector<ScheduledSequence> sequences;  // [N], decodes first
  std::vector<TokenId> token_ids;            // [T]; -1: not known yet, see token_sources
  // Empty if all tokens are known, else [T]: where token_ids has -1, the index into the samples of
  // the step begun before this one whose token it is; -1 elsewhere. Only in steps that overlap.
  std::vector<int32_t> token_sources;
  std::vector<int64_t> positions;     // [T]
  std::vector<int64_t> slot_mapping;  // [T] block * block_size + offset
  std::vector<int32_t> query_start;   // [N + 1] prefix sums of num_tokens
  std::vector<int32_t> seq_lens;      // [N] tokens in the cache after the step
  std::vector<int32_t> block_tables;  // [N, block_table_width], padded with 0
  int32_t block_table_width = 0;      // a multiple of 8, perhaps more than the longest table
  int32_t max_query_len = 0;
  int32_t max_seq_len = 0;
  std::vector<int32_t> sample_rows;             // [S] rows of T whose logits are sampled
  std::vector<SampleRow> sampling;              // [S]
  std::vector<int32_t> prompt_logprob_rows;     // rows of T whose logits give prompt logprobs
  std::vector<TokenId> prompt_logprob_targets;  // the token that really follows each of those rows
  std::vector<int32_t> prompt_logprob_counts;   // how many alternatives each asks for
  // Device to host, all of them before anything else is written; then host to device. No host block
  // is filled twice, no block loaded twice.
  std::vector<HostCopy> host_saves;
  std::vector<HostCopy> host_loads;
  std::vector<BlockCopy> block_copies;
  std::vector<EncodeItem> encode;         // run these first, in any grouping
  std::vector<EmbeddingCopy> embeddings;  // then merge these (extended models)
  // Drop these encoder outputs before encoding. After a failed step a slot may be named again, or
  // may be one that the runner never filled.
  std::vector<EncoderSlot> evict;
};

/// The runner's answer to one plan.
struct StepResult {
  std::vector<SampledToken> tokens;  // [S], in the order of sample_rows; each below vocab_size
  std::vector<std::vector<TokenLogprob>> prompt_logprobs;  // one a prompt_logprob_rows entry
  /// Requests that cannot go on (an image that its processor refuses, say), each with its reason.
  /// If this is not empty the step did not happen: it is rolled back, these requests fail, the
  /// others run again.
  std::vector<std::pair<RequestId, Status>> failed;
};

/// Fills in the unknown tokens of `plan` from the result of the step before it, for a runner that
/// has it on the host. Afterwards no token is unknown: where that step failed, and so will the
/// result of this one be dropped, they are 0.
MMCORE_API void fill_unknown_tokens(StepPlan& plan, const StepResult& previous);

class MMCORE_API ModelRunner {
 public:
  virtual ~ModelRunner();

  /// Tells of a request that passed every check, before any step may name it: the place to take the
  /// payloads of its items, which the engine forgets. An error Status refuses the request with it;
  /// then no release follows. Must not call the engine. By default Ok.
  virtual Status accept(RequestId request, const Request& content);

  /// Runs one step. On an error Status the engine rolls the step back and runs its sequences one by
  /// one to find the one at fault; exceptions other than InternalError count as an error Status,
  /// and so does a result of the wrong size. `result` comes in empty. Must not call the engine.
  virtual Status execute(const StepPlan& plan, StepResult& result) = 0;

  /// Whether the runner takes a step while the one before it runs. With
  /// EngineConfig::async_schedule the engine then calls begin() and end() instead of execute().
  virtual bool overlaps() const;

  /// Takes a step and returns when its work is launched. At most two steps are begun and not ended;
  /// they run in the order of their begin(), one after the other. Unknown tokens are those that the
  /// step begun before this one samples; the runner may write token_ids. `plan` stays as it is, and
  /// both stay where they are, until this step's end(), by when `result` is complete. With an error
  /// Status, an exception or requests in `result.failed` the step was not taken, and end() is not
  /// called for it. Must not call the engine.
  virtual Status begin(StepPlan& plan, StepResult& result);

  /// Waits for the oldest step begun; like execute() otherwise. When a step fails, the one begun
  /// behind it is ended too, and its result dropped. Must not call the engine.
  virtual Status end();

  /// Tells that a request is gone, and that no step begun has a row of it: host-side state (pixels,
  /// preprocessed tensors) may be dropped. Encoder outputs stay until `evict` names them. Must not
  /// call the engine.
  virtual void release(RequestId request);

  /// Blocks of host memory that the runner can save KV blocks to. An engine with more
  /// num_host_blocks than this is refused.
  virtual int32_t num_host_blocks() const;
};

}  // namespace mmcore
