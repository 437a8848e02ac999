// The sampling kernels' launchers and what they share. A call is
//   edit_rows (only where something changes logits), scan_segments, pick_tokens, then row_logprobs
// for rows that want them. All memory is the caller's, on the device unless said otherwise.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "mmcore/status.h"
#include "mmcore/types.h"
#include "ops/vocab_segments.h"

namespace mmcore::cuda {

using ops::kMostSegments;
/// The longest list of best tokens that row_logprobs makes.
inline constexpr int kMostLogprobs = 1024;

/// Logits [count, vocab], and the float32 copies of rows that were edited.
struct Rows {
  const void* logits;
  DType dtype;
  int64_t count;
  int64_t vocab;
  int64_t stride;            // elements
  const int32_t* edit_slot;  // [count]: row of `edited`, or -1; null: no row was edited
  float* edited;             // [slots, edited_stride]
  int64_t edited_stride;     // a multiple of 4
  bool aligned;              // every row of logits starts at a multiple of 16 bytes

  int64_t segments() const { return ops::num_segments(vocab); }
  int64_t segment_tokens() const { return ops::segment_tokens(vocab); }
};

/// Sampling parameters, an array of [count] each; as in sampling.h.
struct SampleColumns {
  const float* temperature;
  const float* top_p;
  const float* min_p;
  const int32_t* top_k;
  const int64_t* seed;     // bits of the uint64
  const int64_t* counter;  // likewise
};

/// What became of a row.
enum RowOutcome : int32_t {
  kPicked = 0,
  kNaNInLogits = 1,
  kNaNFromEdits = 2,
  kNothingLeft = 3,
  kBadParameters = 4
};

/// What changes the logits of one row. Lists are [begin, end) of EditLists::tokens; bias
/// [begin, end) of its pairs.
struct RowEdits {
  int32_t row;
  int32_t slot;
  int32_t allowed_begin, allowed_end;  // empty: all
  int32_t banned_begin, banned_end;
  int32_t prompt_begin, prompt_end;
  int32_t output_begin, output_end;
  int32_t bias_begin, bias_end;
  float repetition_penalty;
  float frequency_penalty;
  float presence_penalty;
};

struct EditLists {
  const RowEdits* edits;  // [count]
  int32_t count;
  const int32_t* tokens;
  const int32_t* bias_tokens;
  const float* bias;
  int32_t* marks;     // [slots, edited_stride], all zero before and after
  int32_t* raw_nans;  // [rows.count]: set to 1 where an edited row's logits hold a NaN
};

struct LogprobRequest {
  int32_t row;
  int32_t target;  // -1: the row's entry of `tokens`
  int32_t num;     // best tokens, at most kMostLogprobs and the vocabulary
  int32_t begin;   // of its num + 1 entries
};

struct LogprobEntry {
  int32_t token;  // -1: none, the list ends here
  float logprob;
  int32_t rank;
};

/// Copies rows, then masks, biases and penalises them, as cpp/src/ops/logit_edits.h says.
Status edit_rows(const Rows& rows, const EditLists& lists, cudaStream_t stream);
/// Summarises every segment of every row into `segments`.
Status scan_segments(const Rows& rows, const SampleColumns& columns, void* segments, Device device,
                     cudaStream_t stream);
/// Picks a token a row: tokens int32 [count], -1 where outcomes (RowOutcome [count], or null) says
/// why. `raw_nans` as in EditLists, or null.
Status pick_tokens(const Rows& rows, const SampleColumns& columns, const void* segments,
                   const int32_t* raw_nans, int32_t* tokens, int32_t* outcomes, Device device,
                   cudaStream_t stream);
/// Log-probabilities under the unedited logits. `outcomes` [requests] receives kPicked,
/// kNaNInLogits or kNothingLeft; a request whose token is -1 is left alone.
Status row_logprobs(const Rows& rows, const LogprobRequest* requests, int32_t count,
                    const int32_t* tokens, LogprobEntry* entries, int32_t* outcomes,
                    cudaStream_t stream);

}  // namespace mmcore::cuda
