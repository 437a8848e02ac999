// rope_kv_write as its kernels see it: checked pointers, strides in elements.
#pragma once

#include <cstdint>

#include "mmcore/types.h"

namespace mmcore::ops {

/// The greatest rotary dim that has kernels.
inline constexpr int32_t kMaxRotaryDim = 512;

struct RopeKvWriteProblem {
  struct Rows {  // [T, heads, D]
    void* data;
    int64_t row_stride;
    int64_t head_stride;
  };
  struct Cache {  // [B, P, heads, D]
    void* data;
    int64_t block_stride;
    int64_t row_stride;
    int64_t head_stride;
  };
  Rows q;  // q_heads = 0: absent
  Rows k;
  Rows v;         // null data: absent
  Cache k_cache;  // null data: no write
  Cache v_cache;
  DType dtype;
  DType cache_dtype;
  const int64_t* positions;  // null: no rotation
  const float* cos_sin;      // row p: rotary_dim/2 cosines, then as many sines
  int64_t cos_sin_stride;
  const int64_t* slot_mapping;
  int64_t block_size;
  int32_t q_heads;
  int32_t kv_heads;
  int32_t head_dim;
  int32_t rotary_dim;
  bool interleaved;
};

/// Tokens [begin, end). The cache receives what k and v hold afterwards, in its own dtype.
void rope_kv_write_reference(const RopeKvWriteProblem& p, int64_t begin, int64_t end);
void rope_kv_write_avx2(const RopeKvWriteProblem& p, int64_t begin, int64_t end);
void rope_kv_write_avx512(const RopeKvWriteProblem& p, int64_t begin, int64_t end);

}  // namespace mmcore::ops
