// Attention of a few query rows over the paged cache: bound by how fast keys and values are read.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "host/device.h"
#include "mmcore/status.h"
#include "ops/attention/gpu_plan.h"
#include "ops/attention/problem.h"

namespace mmcore::cuda {

/// The parts of a plan that decode needs, in device memory, and memory for partial results.
struct DecodeWork {
  const ops::DecodeWorker* workers;
  const ops::DecodeSequence* sequences;
  int32_t* counters;  // [num_workers], 0 before and after the call
  int32_t num_workers;
  int32_t max_rows;    // of a unit: 8 or 16
  float* workspace;    // of paged_attention_workspace_bytes
  int32_t num_blocks;  // of the cache
};

/// Writes the rows of `out` of all sequences in decode. Pointers in `problem` are device pointers.
Status launch_decode(const ops::AttentionProblem& problem, const DecodeWork& work,
                     const DeviceFacts& facts, cudaStream_t stream);

}  // namespace mmcore::cuda
