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
  int64_t axis_stride;       // from a token's position on one axis to the next; 0: all the same
  const float* cos_sin;      // row p: rotary_dim/2 cosines, then as many sines
  int64_t cos_sin_stride;
  const int64_t* slot_mapping;
  int64_t block_size;
  int32_t q_heads;
  int32_t kv_heads;
  int32_t head_dim;
  int32_t rotary_dim;
  bool interleaved;
  int32_t sections[3];  // read where axis_stride is not 0
  bool sections_interleaved;
  float k_factor;  // what the cache's values are multiplied by, if it is float8_e4m3fn
  float v_factor;
};

/// The axis that frequency `i` belongs to: 0, 1 or 2. Inlined as in ops/simd/vec.h.
[[gnu::always_inline]] constexpr int32_t axis_of(const RopeKvWriteProblem& p, int32_t i) {
  const int32_t t = p.sections[0], h = p.sections[1], w = p.sections[2];
  if (!p.sections_interleaved) return i < t ? 0 : i < t + h ? 1 : 2;
  const int32_t turn = i % 3;
  return (turn == 1 && i < 3 * h) || (turn == 2 && i < 3 * w) ? turn : 0;
}

/// The row of cos_sin for frequency `i` of a token.
[[gnu::always_inline]] inline const float* turn_row(const RopeKvWriteProblem& p, int64_t token,
                                                    int32_t i) {
  const int64_t axis = p.axis_stride == 0 ? 0 : axis_of(p, i);
  return p.cos_sin + p.positions[axis * p.axis_stride + token] * p.cos_sin_stride;
}

/// Tokens [begin, end). The cache receives what k and v hold afterwards, in its own dtype.
void rope_kv_write_reference(const RopeKvWriteProblem& p, int64_t begin, int64_t end);
void rope_kv_write_avx2(const RopeKvWriteProblem& p, int64_t begin, int64_t end);
void rope_kv_write_avx512(const RopeKvWriteProblem& p, int64_t begin, int64_t end);

}  // namespace mmcore::ops
