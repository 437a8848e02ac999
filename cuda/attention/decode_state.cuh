// What a warp has while it reads the tiles of a unit, and how it leaves the warp.
#pragma once

#include <cstdint>
#include <type_traits>

#include "attention/decode_tile.cuh"
#include "attention/decode_unit.cuh"

namespace mmcore::cuda {

inline constexpr int kMaxDecodeWarps = 8;

/// Warps of a block, at most, and whether registers are kept few enough that two blocks of so many
/// find room on a multiprocessor: without that none could begin beside the kernel in front, and of
/// 16 clusters, which do not find 128 multiprocessors, one would wait for another's end.
template <class KV, int kDim, int kColumns>
struct DecodeThreads {
  static constexpr bool kFloat8 = sizeof(KV) == 1;
  static constexpr bool kTwoBlocks = kColumns == 1 && kDim <= (kFloat8 ? 96 : 64);
  static constexpr int kBlocks = kTwoBlocks ? 2 : 1;
  // Parts that a thread reads at once in a merge; 6 registers each.
  static constexpr int kPartsAtOnce = kTwoBlocks ? 8 : kColumns == 1 && kDim >= 128 ? 16 : 12;
};

/// How sums of kColumns * 8 rows go through shared memory: some steps of 16 dims at a time, as many
/// as a stage of the warp's ring takes. Rows of a multiple of 32 dims are swizzled and others
/// padded, against bank conflicts.
template <class KV, int kDim, int kColumns>
struct DecodeSums {
  using Tile = DecodeTile<KV, kDim>;
  static constexpr int kSteps = Tile::kSteps;
  static constexpr int kRows = 8 * kColumns;
  static constexpr int kPairs = Tile::kStageBytes / (4 * kRows * 32);  // of steps, swizzled
  static constexpr bool kSwizzled = kSteps % 2 == 0 && kPairs > 0;
  static constexpr int kMost = kSwizzled ? 2 * kPairs : (Tile::kStageBytes / (4 * kRows) - 4) / 16;
  static constexpr int kStepsAtOnce = kMost < kSteps ? kMost : kSteps;
  static constexpr int kStride = kStepsAtOnce * 16 + (kSwizzled ? 0 : 4);
  static_assert(kStepsAtOnce >= 1 && kRows * kStride * 4 <= Tile::kStageBytes);

  static __device__ __forceinline__ int offset(int row, int dim) {
    return row * kStride + (kSwizzled ? dim ^ ((row & 6) << 2) : dim);
  }
};

/// Sums of 8 kColumns query rows over the tiles of a warp. Column c of step n (rows 8 n + 2 (lane %
/// 4) + c) is this thread's where it holds sums.
template <class T, class KV, int kDim, int kColumns>
struct DecodeState {
  using Tile = DecodeTile<KV, kDim>;
  // Weights and values are multiplied as this: e4m3 is exact in both, weights are finer in __half.
  using Value = std::conditional_t<sizeof(KV) == 1, __half, T>;
  // Queries and keys as this, so that e4m3 needs but one conversion: queries are brought near 2^10
  // by a power of two, exactly, but for elements below 2^-24 of the largest, which round.
  using Key = Value;
  static constexpr bool kScaled = !std::is_same_v<Key, T>;
  using Sums = DecodeSums<KV, kDim, kColumns>;

  // How far scores in base 2 may be above the maximum that weights are based on.
  static constexpr float kSlack = 8;

  uint32_t q[Tile::kSteps][kColumns][2];
  float out[Tile::kSteps][kColumns][4];
  float top[kColumns][2];
  float weights[kColumns][2];  // of this thread's keys
  int begin[kColumns][2];
  int end[kColumns][2];
  // Of e4m3: what takes a product of a scaled query to a score, or to what a cap bends.
  float unscale[kColumns][2];
  int all_begin, all_end;  // keys that all rows see

  __device__ __forceinline__ void start(const DecodeParams& p, const DecodeUnit& u, int lane) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int row = 8 * n + lane / 4;
      const DecodeRow at = row_of(p, u, min(row, u.rows - 1));
      const char* from = p.q + at.query * p.q_row_stride + at.head * p.q_head_stride;
      if (Tile::kWide && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
        load_wide_queries(from, n, row < u.rows, lane);
      } else {
#pragma unroll
        for (int s = 0; s < Tile::kSteps; ++s) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int dim = query_dim<KV, kDim>(s, half, lane);
            q[s][n][half] = row < u.rows && dim < kDim
                                ? __ldcg(reinterpret_cast<const unsigned int*>(from + 2 * dim))
                                : 0u;
          }
        }
      }
#pragma unroll
      for (int s = 0; s < Tile::kSteps; ++s) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[s][n][i] = 0;
      }
      if constexpr (sizeof(KV) == 1) {
        const float factor = p.cap_factor == 0 ? p.factor : p.cap_factor;
        unscale[n][0] = unscale[n][1] = factor;
      }
      if constexpr (kScaled) scale_queries(n, lane);
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const DecodeRow seen = row_of(p, u, min(8 * n + 2 * (lane % 4) + c, u.rows - 1));
        begin[n][c] = seen.begin;
        end[n][c] = seen.end;
        top[n][c] = kNoScore;
        weights[n][c] = 0;
      }
    }
    all_begin = p.window > 0 ? max(0, u.keys - p.window) : 0;
    all_end = p.causal ? u.keys - u.queries + 1 : u.keys;
  }

  /// Of wide rows a thread's dims of 4 steps are 32 bytes of queries.
  __device__ __forceinline__ void load_wide_queries(const char* from, int n, bool there, int lane) {
    if constexpr (Tile::kWide) {
#pragma unroll
      for (int s = 0; s < Tile::kSteps; s += 2) {
        const int dim = query_dim<KV, kDim>(s, 0, lane);
        const uint4 x = there ? __ldcg(reinterpret_cast<const uint4*>(from + 2 * dim)) : uint4{};
        q[s][n][0] = x.x;
        q[s][n][1] = x.y;
        q[s + 1][n][0] = x.z;
        q[s + 1][n][1] = x.w;
      }
    }
  }

  /// Queries of column n from T to Key. Lanes with the same lane / 4 have a row.
  __device__ __forceinline__ void scale_queries(int n, int lane) {
    float most = 0;
#pragma unroll
    for (int s = 0; s < Tile::kSteps; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 x = widened<T>(q[s][n][half]);
        most = fmaxf(most, fmaxf(fabsf(x.x), fabsf(x.y)));
      }
    }
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
      most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, step));
    }
    // The exponent's bits alone: 2^10 and 2^-10 times the power of two at or below `most`.
    const int exponent = static_cast<int>(__float_as_uint(most) >> 23);
    const int shift = exponent == 0 || exponent == 255 ? 0 : min(120, 137 - exponent);
    const float scale = __uint_as_float(static_cast<unsigned>(127 + shift) << 23);
#pragma unroll
    for (int s = 0; s < Tile::kSteps; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 x = widened<T>(q[s][n][half]);
        q[s][n][half] = packed<Key>(scale * x.x, scale * x.y);
      }
    }
    const float back = __uint_as_float(static_cast<unsigned>(127 - shift) << 23);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      unscale[n][c] *= __shfl_sync(kFullWarp, back, 4 * (2 * (lane % 4) + c));
    }
  }

  /// A tile's keys: weights for its values.
  __device__ __forceinline__ void weigh(const DecodeParams& p, int tile, uint32_t k, int lane,
                                        uint32_t (&weight)[kColumns][2]) {
    const int key = tile * Tile::kKeys;
    float x[kColumns][4];
    {
      float sums[2][kColumns][4] = {};  // two chains: a multiplication waits for the one before
      if constexpr (Tile::kWide) {
#pragma unroll
        for (int s = 0; s < Tile::kSteps; s += 4) {
          uint32_t keys[4][4];
          load_wide_keys<KV, kDim>(keys, k, s, lane);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int n = 0; n < kColumns; ++n) multiply<Key>(sums[i & 1][n], keys[i], q[s + i][n]);
          }
        }
      } else {
#pragma unroll
        for (int s = 0; s < Tile::kSteps; ++s) {
          uint32_t keys[4];
          load_keys<KV, kDim>(keys, k, s, lane);
#pragma unroll
          for (int n = 0; n < kColumns; ++n) multiply<Key>(sums[s & 1][n], keys, q[s][n]);
        }
      }
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float dot = sums[0][n][i] + sums[1][n][i];
          x[n][i] = sizeof(KV) == 1 ? unscale[n][i & 1] * dot : score(p, dot);
        }
      }
      if (sizeof(KV) == 1 && p.cap_factor != 0) {
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) x[n][i] = p.factor * bent(x[n][i]);
        }
      }
    }
    if (key < all_begin || key + Tile::kKeys > all_end) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int its_key = key + lane / 4 + (i / 2) * 8;
          if (its_key < begin[n][i & 1] || its_key >= end[n][i & 1]) x[n][i] = -INFINITY;
        }
      }
    }
    if constexpr (sizeof(KV) == 1) {
      // Weights up to 2^8 are as exact as others: most tiles need neither a maximum nor scaling.
      bool too_high = false;
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          too_high |= fmaxf(x[n][c], x[n][c + 2]) > top[n][c] + kSlack;
        }
      }
      if (__any_sync(kFullWarp, too_high)) raise(x);
    } else {
      raise(x);
    }
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        x[n][i] = fast_exp2(x[n][i] - top[n][i & 1]);
        weights[n][i & 1] += x[n][i];
      }
      weight[n][0] = transposed(packed<Value>(x[n][0], x[n][1]));
      weight[n][1] = transposed(packed<Value>(x[n][2], x[n][3]));
    }
  }

  /// Maxima are those of the scores, too, and sums as they are with these.
  __device__ __forceinline__ void raise(const float (&x)[kColumns][4]) {
    float keep[kColumns][2];
    bool higher = false;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float best = fmaxf(x[n][c], x[n][c + 2]);
#pragma unroll
        for (int step = 4; step < 32; step *= 2) {
          best = fmaxf(best, __shfl_xor_sync(kFullWarp, best, step));
        }
        best = fmaxf(best, top[n][c]);
        higher |= best > top[n][c];
        keep[n][c] = fast_exp2(top[n][c] - best);
        top[n][c] = best;
      }
    }
    if (__any_sync(kFullWarp, higher)) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        weights[n][0] *= keep[n][0];
        weights[n][1] *= keep[n][1];
#pragma unroll
        for (int s = 0; s < Tile::kSteps; ++s) {
#pragma unroll
          for (int i = 0; i < 4; ++i) out[s][n][i] *= keep[n][i & 1];
        }
      }
    }
  }

  __device__ __forceinline__ void add(uint32_t v, int lane, const uint32_t (&weight)[kColumns][2]) {
    if constexpr (Tile::kWide) {
#pragma unroll
      for (int s = 0; s < Tile::kSteps; s += 2) {
        uint32_t values[2][4];
        load_wide_values<KV, kDim>(values, v, s, lane);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
          for (int n = 0; n < kColumns; ++n) multiply<Value>(out[s + i][n], values[i], weight[n]);
        }
      }
    } else {
#pragma unroll
      for (int s = 0; s < Tile::kSteps; ++s) {
        uint32_t values[4];
        load_values<KV, kDim>(values, v, s, lane);
#pragma unroll
        for (int n = 0; n < kColumns; ++n) multiply<Value>(out[s][n], values, weight[n]);
      }
    }
  }

  /// The sum of row 8 n + 2 (lane % 4) + c over all keys.
  __device__ __forceinline__ float sum_of_weights(int n, int c) const {
    float sum = weights[n][c];
#pragma unroll
    for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(kFullWarp, sum, step);
    return sum;
  }
  /// put(dim, values of dims dim and dim + 1) for this thread's dims of that row. Of e4m3.
  template <class Put>
  __device__ __forceinline__ void each_pair(int n, int c, int lane, Put put) const {
    static_assert(sizeof(KV) == 1, "a thread's dims lie side by side");
#pragma unroll
    for (int s = 0; s < Tile::kSteps; ++s) {
      const int dim = 16 * s + value_dim<KV>(0, lane);
      if (dim < kDim) put(dim, make_float2(out[s][n][c], out[s][n][c + 2]));
    }
  }

  /// Maxima and sums of weights to sums[row].
  __device__ __forceinline__ void give_sums(float2* sums, int lane) const {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float sum = sum_of_weights(n, c);
        if (lane < 4) sums[8 * n + 2 * lane + c] = make_float2(top[n][c], sum);
      }
    }
  }

  /// Steps [kFirst, kFirst + kStepsAtOnce) to values[Sums::offset(row, dim)].
  template <int kFirst>
  __device__ __forceinline__ void give_values(float* values, int lane) const {
#pragma unroll
    for (int s = kFirst; s < kFirst + Sums::kStepsAtOnce && s < Tile::kSteps; ++s) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = 8 * n + 2 * (lane % 4) + (i & 1);
          const int dim = 16 * (s - kFirst) + value_dim<KV>(i / 2, lane);
          values[Sums::offset(row, dim)] = out[s][n][i];
        }
      }
    }
  }
};

}  // namespace mmcore::cuda
