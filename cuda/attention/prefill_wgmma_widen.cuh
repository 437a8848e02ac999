// What loads keys and values of e4m3 for wgmma attention: they come as they are, and are widened to
// the queries' type on their way to where products read them. Each of the four warps has a quarter
// of a tile's rows, one place for those of keys and one for those of values; it asks for the next
// of one kind before it widens the other.
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

inline constexpr int kLoadWarps = 4;

/// What the warps that widen have besides.
struct WidenShared {
  uint64_t full[kLoadWarps][2];  // of each warp: its keys have come, its values
  WorkItem opening;              // of the first one, the item whose queries it asks for next
};

/// Bytes of keys and values that wait to be widened.
template <int D>
inline constexpr int kStagedBytes = 2 * Shape<D>::kKeys * D;

/// Two e4m3, sign-extended to 16 bits each, as two T. Sign, exponent and mantissa go where T has
/// them. The exponent is then off by the difference of the biases, of subnormals, too, which are
/// T's: a multiplication by a power of two makes all of them right. A NaN becomes 480.
template <class T, bool kRaw>
__device__ __forceinline__ uint32_t widen_pair(uint32_t two) {
  uint32_t out;
  if constexpr (std::is_same_v<T, __half>) {
    asm("mul.f16x2 %0, %1, %2;" : "=r"(out) : "r"(two << 7 & 0xbf80bf80u), "r"(0x5c005c00u));
  } else if constexpr (kRaw) {
    out = two << 4 & 0x87f087f0u;
  } else {
    asm("mul.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(two << 4 & 0x87f087f0u), "r"(0x7b807b80u));
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
template <int D, class T, int kRows, bool kRaw = false, int kFirst = 0>
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
      words[i][0] = widen_pair<T, kRaw>(extend<false>(x.x));
      words[i][1] = widen_pair<T, kRaw>(extend<true>(x.x));
      words[i][2] = widen_pair<T, kRaw>(extend<false>(x.y));
      words[i][3] = widen_pair<T, kRaw>(extend<true>(x.y));
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
    widen_rows<D, T, kRows, kRaw, kFirst + 8 * kLanes>(from, to, nothing);
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

/// One of the load group's warps: its quarter of all keys and values; the first one also queries.
/// An item's queries are asked for when its first keys are widened: all that a place for them may
/// have to wait for is widened by then.
template <int D, class T>
__device__ __forceinline__ void load_widened(const PrefillParams& a, const AttentionMaps& maps,
                                             QueryLoader<Shape<D>> queries, uint32_t keys_at,
                                             uint32_t values_at, uint32_t staged_at,
                                             BarriersOf<Shape<D>>& barriers, WidenShared& staged) {
  using S = Shape<D>;
  constexpr int kRows = S::kKeys / kLoadWarps;
  const ops::AttentionProblem& p = a.p;
  const int lane = threadIdx.x & 31, warp = static_cast<int>(threadIdx.x) / 32;
  const uint32_t own_staged = staged_at + static_cast<uint32_t>(warp * 2 * kRows * D);
  const int32_t box_rows = maps.box_rows;

  struct {
    int32_t rows;  // of this warp's that keys belong to
    bool opens;    // the first of the item's
    bool there;
  } waiting{};
  ItemCursor<S::kKeys> items(a);
  WorkItem item{};
  const QueryTile& tile = item.tile;
  const KeySpan& span = item.keys;
  int32_t kv_head = 0;
  int32_t t = -1, block = 0;
  Ring<S::kStages> ring;
  uint32_t staged_parity = 0;
  const uint32_t nothing = static_cast<uint32_t>(p.block_shift) >> 8;  // 0; no compiler knows
  // The page of this lane's box in tile t of keys.
  const auto block_of = [&](int32_t of) {
    const int32_t row = of * S::kKeys + warp * kRows + lane * box_rows;
    if (of < span.begin || row >= tile.keys || lane * box_rows >= kRows) return 0;
    return p.block_tables[tile.sequence * p.table_stride + (row >> p.block_shift)];
  };

  // Each round widens what waits and asks for the next, first keys, then values.
  for (bool more = true; more || waiting.there;) {
    bool opens = false;
    if (more && t < span.begin) {
      more = items.next(item);
      if (more) {
        t = span.end - 1;
        kv_head = item.head / (p.heads / p.kv_heads);
        block = block_of(t);
        opens = true;
      }
    }
    const bool asks = more && t >= span.begin;
    const int32_t first = t * S::kKeys + warp * kRows;
    const int32_t rows = min(kRows, tile.keys - first);
    const int32_t row = (first + lane * box_rows) & ((1 << p.block_shift) - 1);
    const int32_t next_block = asks ? block_of(t - 1) : 0;
    if (waiting.there && waiting.opens && warp == 0) queries.load(staged.opening);
#pragma unroll 1
    for (int kind = 0; kind < 2; ++kind) {
      const uint32_t from = own_staged + static_cast<uint32_t>(kind * kRows * D);
      const uint32_t arrived = address(&staged.full[warp][kind]);
      if (waiting.there) {
        const uint32_t to = (kind == 0 ? keys_at : values_at) +
                            static_cast<uint32_t>(ring.stage * S::kKeyBytes + warp * kRows * 128);
        hopper::barrier_wait(
            address(&(kind == 0 ? barriers.keys_free : barriers.values_free)[ring.stage]),
            ring.parity ^ 1);
        hopper::barrier_wait(arrived, staged_parity);
        widen_rows<D, T, kRows>(from, to, nothing);
        if (kind == 1 && waiting.rows < kRows) clear_rows<D, kRows>(to, waiting.rows);
        hopper::fence_async();
        __syncwarp();
        if (lane == 0) {
          hopper::barrier_arrive(
              address(&(kind == 0 ? barriers.keys_full : barriers.values_full)[ring.stage]));
        }
      }
      if (asks) {
        const int32_t boxes = rows > 0 ? (rows + box_rows - 1) / box_rows : 0;
        if (lane == 0) {
          hopper::barrier_expect(arrived, static_cast<uint32_t>(boxes * box_rows * D));
        }
        __syncwarp();
        if (lane < boxes) {
          hopper::copy_box(from + static_cast<uint32_t>(lane * box_rows * D),
                           kind == 0 ? maps.k : maps.v, arrived, 0, kv_head, row, block);
        }
      }
    }
    if (waiting.there) {
      ring.next();
      staged_parity ^= 1;
    }
    if (more && !asks && warp == 0) queries.load(item);  // it sees no keys
    if (opens && warp == 0 && lane == 0) staged.opening = item;
    waiting = {rows, opens, asks};
    block = next_block;
    --t;
  }
  if (warp == 0) queries.finish();
}

}  // namespace wgmma
}  // namespace mmcore::cuda
