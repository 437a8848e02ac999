// The online softmax over accumulators of mma.m16n8 and wgmma, which lie alike: of each block of 8
// columns a thread holds 4 values, two neighbours of row lane / 4 and two of that row + 8, in the
// columns 2 * (lane % 4) and the next.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "attention/prefill_params.h"
#include "device/reduce.cuh"

namespace mmcore::cuda {

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof(bits));
  return bits;
}
template <>
__device__ __forceinline__ uint32_t pack<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

/// Soft cap, or a scale that is not positive. tanh through exp2: its absolute error is about 1e-7,
/// which tanh.approx (5e-4) would turn into visible errors of scores.
template <int kCount>
__device__ __forceinline__ void transform_scores(float (&s)[kCount], const ScoreScale& scale) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (scale.cap_out > 0.0f) {
      const float e = exp2_fast(2.885390082f * s[i] * scale.cap_in);  // exp(2x)
      s[i] = scale.cap_out * (1.0f - __fdividef(2.0f, 1.0f + fminf(e, 1e30f)));
    } else {
      s[i] *= scale.factor;
    }
  }
}

/// Hides keys outside of [begin, end) of each of the two rows. `key` is that of column 0.
template <int kCount>
__device__ __forceinline__ void mask_scores(float (&s)[kCount], int32_t key,
                                            const int32_t (&begin)[2], const int32_t (&end)[2]) {
  const int32_t own = key + 2 * static_cast<int32_t>(threadIdx.x & 3);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int32_t at = own + (i >> 2) * 8 + (i & 1);
    const int row = (i >> 1) & 1;
    if (at < begin[row] || at >= end[row]) s[i] = -INFINITY;
  }
}

/// Of the thread's two rows.
struct SoftmaxRows {
  // Exponents are taken relative to this. It follows the maximum only when that has grown by more
  // than kSlack: weights stay below 2^kSlack and the accumulators are seldom rescaled.
  float top[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0f, 0.0f};  // of this thread's columns
  static constexpr float kSlack = 8.0f;

  /// Turns scores into 2^kRaised of their weights. True: the accumulators must be multiplied by
  /// `factor`.
  template <int kRaised = 0, int kCount>
  __device__ __forceinline__ bool update(float (&s)[kCount], float multiplier, float (&factor)[2]) {
    float highest[2], most[2][4];  // four of a row: none waits for the one before
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      float& own = most[(i >> 1) & 1][(i & 1) + ((i >> 1) & 2)];
      own = i < 8 ? s[i] : fmaxf(own, s[i]);
    }
    bool grown = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      highest[r] = fmaxf(fmaxf(most[r][0], most[r][1]), fmaxf(most[r][2], most[r][3]));
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(kFullWarp, highest[r], 1));
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(kFullWarp, highest[r], 2));
      highest[r] = fmaxf(top[r], highest[r] * multiplier);
      grown |= highest[r] - top[r] > kSlack;  // false for -inf - -inf
      factor[r] = 1.0f;
    }
    const bool rescale = __any_sync(kFullWarp, grown);
    if (rescale) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (highest[r] > top[r]) factor[r] = exp2_fast(top[r] - highest[r]);
        sum[r] *= factor[r];
        top[r] = highest[r];
      }
    }
    float base[2], part[2][2] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      base[r] = top[r] == -INFINITY ? 0.0f : -top[r];
      if constexpr (kRaised != 0) base[r] += static_cast<float>(kRaised);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int r = (i >> 1) & 1;
      s[i] = exp2_fast(fmaf(s[i], multiplier, base[r]));
      part[r][i & 1] += s[i];
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] += part[r][0] + part[r][1];
    return rescale;
  }

  /// What the accumulators are to be multiplied by at the end: 0 for a row without keys.
  __device__ __forceinline__ void inverse(float (&inverse_sum)[2]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = sum[r] + __shfl_xor_sync(kFullWarp, sum[r], 1);
      total += __shfl_xor_sync(kFullWarp, total, 2);
      inverse_sum[r] = total > 0.0f ? __fdividef(1.0f, total) : 0.0f;
    }
  }
};

template <int kCount>
__device__ __forceinline__ void rescale_rows(float (&o)[kCount], const float (&factor)[2]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) o[i] *= factor[(i >> 1) & 1];
}

/// Writes D columns of the thread's two rows; null: a row that is not there. With `vectors` the
/// four lanes of a row exchange what they hold, so that each writes 16 bytes. Whole warps call it.
template <class T, int D, int kCount>
__device__ __forceinline__ void store_rows(const float (&o)[kCount], const float (&factor)[2],
                                           T* const (&rows)[2], bool vectors) {
  constexpr int kBlocks = D / 8;
  const int lane = threadIdx.x & 3;
  const bool odd = (lane & 1) != 0, high = (lane & 2) != 0;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    uint32_t w[kBlocks];
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      w[j] = pack<T>(o[4 * j + 2 * r] * factor[r], o[4 * j + 2 * r + 1] * factor[r]);
    }
    if (vectors) {
#pragma unroll
      for (int j = 0; j + 4 <= kBlocks; j += 4) {  // lane t ends up with all of block j + t
        const uint32_t x = __shfl_xor_sync(kFullWarp, odd ? w[j] : w[j + 1], 1);
        const uint32_t y = __shfl_xor_sync(kFullWarp, odd ? w[j + 2] : w[j + 3], 1);
        const uint32_t a0 = odd ? x : w[j], a1 = odd ? w[j + 1] : x;
        const uint32_t b0 = odd ? y : w[j + 2], b1 = odd ? w[j + 3] : y;
        const uint32_t c0 = __shfl_xor_sync(kFullWarp, high ? a0 : b0, 2);
        const uint32_t c1 = __shfl_xor_sync(kFullWarp, high ? a1 : b1, 2);
        if (rows[r] != nullptr) {
          *reinterpret_cast<uint4*>(rows[r] + 8 * (j + lane)) =
              high ? make_uint4(c0, c1, b0, b1) : make_uint4(a0, a1, c0, c1);
        }
      }
    }
    if (rows[r] == nullptr) continue;
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      if (vectors && j < kBlocks / 4 * 4) continue;
      T* at = rows[r] + 8 * j + 2 * lane;
      if (vectors) {
        *reinterpret_cast<uint32_t*>(at) = w[j];
      } else {
        T pair[2];
        __builtin_memcpy(pair, &w[j], sizeof(pair));
        at[0] = pair[0];
        at[1] = pair[1];
      }
    }
  }
}

}  // namespace mmcore::cuda
