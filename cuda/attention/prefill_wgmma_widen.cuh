// What widens keys and values of e4m3 for wgmma attention: tiles come as they are, as those of 16
// bits do, and four warps widen a quarter of their rows each to the queries' type, on their way to
// where products read them. Keys of a tile go before the values of the tile in front of it: their
// places are free earlier, and products want them first. What these warps wait for most are their
// own stores, whose registers they need again; registers and less arithmetic are what helps.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <bit>
#include <cstdint>
#include <type_traits>

#include "attention/prefill_maps.h"
#include "attention/prefill_wgmma_load.cuh"
#include "attention/prefill_wgmma_shape.cuh"

namespace mmcore::cuda {
namespace wgmma {

template <class T, class KV>
inline constexpr bool kWidened = !std::is_same_v<T, KV>;

inline constexpr int kWidenWarps = 4;

/// Where tiles wait to be widened: rows side by side.
template <class S>
struct StagedRing {
  static constexpr int kKeys = S::kKeys;
  static constexpr int kStages = S::kStagedTiles;
  static constexpr int kPanels = 1;
  static constexpr int kPanelBytes = S::kStagedBytes;
  static constexpr int kRowBytes = S::kStagedBytes / S::kKeys;
};

/// What those that load share with those that widen.
template <class S>
struct Staging {
  uint64_t keys_full[S::kStagedTiles], keys_free[S::kStagedTiles];
  uint64_t values_full[S::kStagedTiles], values_free[S::kStagedTiles];
  int32_t rows[S::kStagedTiles];  // of a tile of keys; -1: there are no more
};

/// Values of bfloat16 may be left smaller by this power of two, where weights are made larger for
/// it: then nothing is multiplied when they are widened, and sums stay in range.
inline constexpr int kExponentOff = 120;
inline constexpr float kExponentFactor = 0x1p120f;
template <class S, class T>
inline constexpr int kWeightsRaised =
    S::kWidenGroup && std::is_same_v<T, __nv_bfloat16> ? kExponentOff / 2 : 0;

/// Two e4m3, sign-extended to 16 bits each, as two T. Sign, exponent and mantissa go where T has
/// them. The exponent is then off by the difference of the biases, of subnormals, too, which are
/// T's: a multiplication by a power of two makes all of them right. A NaN becomes 480.
template <class T, bool kMultiply>
__device__ __forceinline__ uint32_t widen_pair(uint32_t two) {
  uint32_t out;
  if constexpr (std::is_same_v<T, __half>) {
    asm("mul.f16x2 %0, %1, %2;" : "=r"(out) : "r"(two << 7 & 0xbf80bf80u), "r"(0x5c005c00u));
  } else if constexpr (kMultiply) {
    asm("mul.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(two << 4 & 0x87f087f0u), "r"(0x7b807b80u));
  } else {
    out = two << 4 & 0x87f087f0u;
  }
  return out;
}

/// The two lower bytes, or the two upper ones, sign-extended to 16 bits each.
template <bool kUpper>
__device__ __forceinline__ uint32_t extend(uint32_t four) {
  uint32_t two;
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(two) : "r"(four), "n"(kUpper ? 0xb3a2 : 0x9180));
  return two;
}

/// One warp: kRows rows of D e4m3, side by side at `from`, to rows of T in panels; from column
/// kFirst on. A power of two of lanes has 8 elements each of one row.
template <int D, class T, int kRows, bool kMultiply = true, int kFirst = 0>
__device__ __forceinline__ void widen_rows(uint32_t from, uint32_t to, uint32_t nothing) {
  constexpr int kLanes = static_cast<int>(std::bit_floor(static_cast<unsigned>(D - kFirst) / 8));
  constexpr int kRowsAtOnce = 32 / kLanes, kSteps = kRows / kRowsAtOnce;
  constexpr int kBatch = kSteps < 4 ? kSteps : 4;  // as many are read while as many are widened
  const int lane = threadIdx.x & 31;
  const int row = lane / kLanes, column = kFirst / 8 + lane % kLanes;  // in pieces of 8
  const uint32_t own_from = from + static_cast<uint32_t>(row * D + column * 8);
  const uint32_t own_to = to + static_cast<uint32_t>(column / 8 * Shape<D>::kKeyPanel + row * 128);
  uint2 held[2][kBatch];
  const auto load = [&](int batch) {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      uint2& x = held[batch & 1][i];
      asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                   : "=r"(x.x), "=r"(x.y)
                   : "r"(own_from + static_cast<uint32_t>((batch * kBatch + i) * kRowsAtOnce * D))
                   : "memory");
    }
  };
  load(0);
#pragma unroll
  for (int batch = 0; batch < kSteps / kBatch; ++batch) {
    if (batch + 1 < kSteps / kBatch) load(batch + 1);
    uint32_t words[kBatch][4];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const uint2 x = held[batch & 1][i];
      words[i][0] = widen_pair<T, kMultiply>(extend<false>(x.x));
      words[i][1] = widen_pair<T, kMultiply>(extend<true>(x.x));
      words[i][2] = widen_pair<T, kMultiply>(extend<false>(x.y));
      words[i][3] = widen_pair<T, kMultiply>(extend<true>(x.y));
    }
    // Nothing is written before all of it is there, as addresses seem to depend on it: ptxas would
    // widen 8 elements at a time in the same registers, and wait until they have been read.
    uint32_t last = 0;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) last |= words[i][3];
    const uint32_t batch_to = own_to + (last & nothing);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int down = (batch * kBatch + i) * kRowsAtOnce;
      const int piece = (column ^ (row + down)) & 7;
      asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(
                       batch_to + static_cast<uint32_t>(down * 128 + piece * 16)),
                   "r"(words[i][0]), "r"(words[i][1]), "r"(words[i][2]), "r"(words[i][3])
                   : "memory");
    }
  }
  if constexpr (kFirst + 8 * kLanes < D)
    widen_rows<D, T, kRows, kMultiply, kFirst + 8 * kLanes>(from, to, nothing);
}

/// One warp: zeroes rows [begin, kRows) where widen_rows() has written them. No key belongs to
/// them: what came there may be large, or not a number, and a weight of 0 would not make it go
/// away.
template <int D, int kRows>
__device__ __forceinline__ void clear_rows(uint32_t to, int32_t begin) {
  __syncwarp();
#pragma unroll
  for (int panel = 0; panel < Shape<D>::kPanels; ++panel) {
    for (int at = max(begin, 0) * 128 + static_cast<int>(threadIdx.x & 31) * 16; at < kRows * 128;
         at += 32 * 16) {
      asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(
                       to + static_cast<uint32_t>(panel * Shape<D>::kKeyPanel + at)),
                   "r"(0)
                   : "memory");
    }
  }
}

/// One warp: its quarter of the rows of all tiles, from `staged_at` to `keys_at` and `values_at`.
template <int D, class T, class S>
__device__ __forceinline__ void widen_tiles(const PrefillParams& a, uint32_t keys_at,
                                            uint32_t values_at, uint32_t staged_at,
                                            BarriersOf<S>& barriers, Staging<S>& staging) {
  constexpr int kRows = S::kKeys / kWidenWarps;
  const int lane = threadIdx.x & 31, warp = static_cast<int>(threadIdx.x) % kGroup / 32;
  const int32_t first = warp * kRows;
  const uint32_t nothing = static_cast<uint32_t>(a.p.block_shift) >> 8;  // 0; no compiler knows
  const auto arrive = [&](uint64_t& barrier) {
    if (lane == 0) hopper::barrier_arrive(address(&barrier));
  };
  // Then the rows are where `to` says, and what was in `from` may be replaced.
  const auto widen = [&]<bool kMultiply>(uint32_t from, uint32_t to, uint64_t& free) {
    widen_rows<D, T, kRows, kMultiply>(from + static_cast<uint32_t>(first * D),
                                       to + static_cast<uint32_t>(first * 128), nothing);
    __syncwarp();
    arrive(free);
  };
  const auto publish = [&](uint64_t& full) {
    hopper::fence_async();
    __syncwarp();
    arrive(full);
  };

  Ring<S::kStages> key_ring;
  Ring<S::kStages> value_ring;
  Ring<S::kStagedTiles> staged_keys;
  Ring<S::kStagedTiles> staged_values;
  for (int32_t before = -1;;) {  // rows of the tile whose values are next; -1: none
    hopper::barrier_wait(address(&staging.keys_full[staged_keys.stage]), staged_keys.parity);
    const int32_t rows = __shfl_sync(kFullWarp, lane == 0 ? staging.rows[staged_keys.stage] : 0, 0);
    if (rows >= 0) {
      hopper::barrier_wait(address(&barriers.keys_free[key_ring.stage]), key_ring.parity ^ 1);
      widen.template operator()<true>(
          staged_at + static_cast<uint32_t>(staged_keys.stage * S::kStagedBytes),
          keys_at + static_cast<uint32_t>(key_ring.stage * S::kKeyBytes),
          staging.keys_free[staged_keys.stage]);
      publish(barriers.keys_full[key_ring.stage]);
      key_ring.next();
      staged_keys.next();
    }
    if (before >= 0) {
      const uint32_t to = values_at + static_cast<uint32_t>(value_ring.stage * S::kKeyBytes);
      hopper::barrier_wait(address(&barriers.values_free[value_ring.stage]), value_ring.parity ^ 1);
      hopper::barrier_wait(address(&staging.values_full[staged_values.stage]),
                           staged_values.parity);
      widen.template operator()<kWeightsRaised<S, T> == 0>(
          staged_at +
              static_cast<uint32_t>((S::kStagedTiles + staged_values.stage) * S::kStagedBytes),
          to, staging.values_free[staged_values.stage]);
      if (before < first + kRows) {
        clear_rows<D, kRows>(to + static_cast<uint32_t>(first * 128), before - first);
      }
      publish(barriers.values_full[value_ring.stage]);
      value_ring.next();
      staged_values.next();
    }
    if (rows < 0) return;
    before = rows;
  }
}

}  // namespace wgmma
}  // namespace mmcore::cuda
