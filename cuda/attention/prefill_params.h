// What the kernels of prefill and varlen attention are given, whichever of them runs.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "mmcore/status.h"
#include "ops/attention/prefill_cut.h"
#include "ops/attention/problem.h"

namespace mmcore::cuda {

/// How raw products become exponents of 2. transform(raw) = cap_out * tanh(raw * cap_in) with a
/// soft cap, raw * factor without; weights are exp2(multiplier * (transformed - their maximum)).
struct ScoreScale {
  float multiplier;  // above 0
  float factor;      // read only where `transform` is set: a scale that is not positive
  float cap_in;
  float cap_out;  // 0: no soft cap
  bool transform;
};

/// A plan's cut of tiles between blocks, see ops/attention/prefill_cut.h. Only wgmma kernels use
/// it.
struct PrefillCuts {
  const int32_t* cut = nullptr;  // [2]: chunk, or 0 for whole tiles, and steps; null: whole tiles
  const ops::PrefillWorker* workers = nullptr;  // [num_workers]
  int32_t* counters = nullptr;                  // [num_workers, 2], 0 at rest
  float* partials = nullptr;                    // of prefill_partial_bytes
  int32_t num_workers = 0;                      // blocks, in any case
};

struct PrefillParams {
  ops::AttentionProblem p;
  const int32_t* tiles;  // [max_tiles, 2]: sequence, first row; null: found from query_start
  const int32_t* count;  // [1], where there are tiles
  int32_t max_tiles;
  PrefillCuts cuts;    // of the tiles
  int64_t query_rows;  // rows of q
  int64_t key_rows;    // rows of contiguous k and v; 0 where they are paged
  ScoreScale score;
  bool vector_q;   // every row and head begins at a multiple of 16 bytes
  bool vector_kv;  // likewise, or of 8 bytes where they are e4m3
  bool vector_out;
};

/// Fills in all but the tiles.
PrefillParams prefill_params(const ops::AttentionProblem& problem);

/// Runs the best kernel for the current device. `op` is what errors name.
Status launch_attention(const char* op, const PrefillParams& params, cudaStream_t stream);

/// Any pair of float dtypes, any strides; float32 throughout. Slow.
Status launch_prefill_plain(const char* op, const PrefillParams& params, cudaStream_t stream);

/// q, k and v of one 16-bit dtype; mma.sync, from compute capability 8.0 on. One file a head dim.
template <int D>
Status launch_prefill_mma(const char* op, const PrefillParams& params, cudaStream_t stream);

/// q of a 16-bit dtype, k and v of e4m3; otherwise as above, and what no other kernel takes.
template <int D>
Status launch_prefill_e4m3(const char* op, const PrefillParams& params, cudaStream_t stream);

}  // namespace mmcore::cuda
