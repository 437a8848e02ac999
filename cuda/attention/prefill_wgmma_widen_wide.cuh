// What loads and widens keys and values of e4m3 for wgmma attention where heads are so wide that
// the groups that multiply leave registers for one other: the warps that widen ask for their rows,
// too. Each of the four has a quarter of a tile's rows, one place for those of keys and one for
// those of values; it asks for the next of one kind before it widens the other.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "attention/prefill_maps.h"
#include "attention/prefill_wgmma_load.cuh"
#include "attention/prefill_wgmma_shape.cuh"
#include "attention/prefill_wgmma_widen.cuh"

namespace mmcore::cuda {
namespace wgmma {

/// What the warps that widen have besides.
struct WidenShared {
  uint64_t full[kWidenWarps][2];  // of each warp: its keys have come, its values
  WorkItem opening;               // of the first one, the item whose queries it asks for next
};

/// One of the load group's warps: its quarter of all keys and values; the first one also queries.
/// An item's queries are asked for when its first keys are widened: all that a place for them may
/// have to wait for is widened by then.
template <int D, class T, class S>
__device__ __forceinline__ void load_widened(const PrefillParams& a, const AttentionMaps& maps,
                                             QueryLoader<S> queries, uint32_t keys_at,
                                             uint32_t values_at, uint32_t staged_at,
                                             BarriersOf<S>& barriers, WidenShared& staged) {
  constexpr int kRows = S::kKeys / kWidenWarps;
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
