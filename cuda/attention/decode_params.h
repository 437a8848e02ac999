// What decode kernels are given, and which of them exist.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "attention/decode.h"
#include "mmcore/types.h"

namespace mmcore::cuda {

/// Strides of q, out, k and v count bytes.
struct DecodeParams {
  const char* q;
  char* out;
  const char* k;
  const char* v;
  int64_t q_row_stride, q_head_stride;
  int64_t out_row_stride, out_head_stride;
  int64_t k_block_stride, k_row_stride, k_head_stride;
  int64_t v_block_stride, v_row_stride, v_head_stride;

  const int32_t* block_tables;
  int64_t table_stride;
  int32_t num_blocks;
  int32_t block_shift;

  const ops::DecodeWorker* workers;
  const ops::DecodeSequence* sequences;
  int32_t* counters;
  float* partials;       // [2 num_workers, max_rows, head_dim]
  float2* partial_sums;  // [2 num_workers, max_rows]: maximum in base 2, sum of weights
  int32_t max_rows;
  int32_t units;  // of a sequence
  bool teams;     // may be: blocks of decode_mma are in clusters of kDecodeCluster

  int32_t group;
  int32_t head_dim;
  int32_t window;
  bool causal;
  // Score in base 2: factor * q.k, or with a cap factor * tanh(cap_factor * q.k).
  float factor;
  float cap_factor;  // 0: no cap
  float v_scale;     // of sums over values
  DType dtype;
  DType kv_dtype;
};

/// With tensor cores: q of type T, keys and values of T or e4m3 and 16-byte aligned (8-byte where a
/// row of e4m3 is no multiple of 16 bytes). One file a head dim and type of keys.
template <class T, class KV, int kDim>
Status launch_decode_rows(const DecodeParams& params, int32_t workers, const DeviceFacts& facts,
                          cudaStream_t stream);
/// The same over e4m3 by what is measured to be best. all_units: of the call, at most.
template <class T, int kDim>
Status launch_decode_float8(const DecodeParams& params, int64_t all_units, int32_t workers,
                            const DeviceFacts& facts, cudaStream_t stream);
/// One value at a time in float32: any float types, any alignment.
Status launch_decode_plain(const DecodeParams& params, int32_t workers, cudaStream_t stream);

}  // namespace mmcore::cuda
