// What loads for wgmma attention: bulk copies of queries, and of keys and values that have their
// type.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "attention/prefill_params.h"
#include "attention/prefill_wgmma_shape.cuh"

namespace mmcore::cuda {
namespace wgmma {

/// One warp: boxes of keys, or of values, the last of a tile's first.
template <class S, bool kCuts = true>
__device__ __forceinline__ void load_rows(const PrefillParams& a, const CUtensorMap& map,
                                          int32_t box_rows, uint32_t stages, uint64_t* full,
                                          uint64_t* free) {
  const int lane = threadIdx.x & 31;
  const int panel = lane % S::kPanels, box = lane / S::kPanels;
  const uint32_t to = stages + static_cast<uint32_t>(panel * S::kKeyPanel + box * box_rows * 128);
  const ops::AttentionProblem& p = a.p;
  const bool paged = p.block_tables != nullptr;
  Ring<S::kStages> ring;
  WorkItem item{};
  for (ItemCursor<S::kKeys, kCuts> items(a); items.next(item);) {
    const QueryTile& tile = item.tile;
    const KeySpan span = item.keys;
    const int32_t kv_head = item.head / (p.heads / p.kv_heads);
    const int32_t start = paged ? 0 : p.kv_start[tile.sequence];
    // Of this lane's box in tile t; read a tile ahead.
    const auto block_of = [&](int32_t t) {
      const int32_t row = t * S::kKeys + box * box_rows;
      if (!paged || t < span.begin || row >= tile.keys || box * box_rows >= S::kKeys) return 0;
      return p.block_tables[tile.sequence * p.table_stride + (row >> p.block_shift)];
    };
    int32_t block = block_of(span.end - 1);
    for (int32_t t = span.end - 1; t >= span.begin; --t) {
      const int32_t first = t * S::kKeys;
      const int32_t boxes = (min(S::kKeys, tile.keys - first) + box_rows - 1) / box_rows;
      const int32_t next = block_of(t - 1);
      int32_t row = start + first + box * box_rows;
      if (paged) row &= (1 << p.block_shift) - 1;
      hopper::barrier_wait(address(&free[ring.stage]), ring.parity ^ 1);
      if (lane == 0) {
        hopper::barrier_expect(address(&full[ring.stage]),
                               static_cast<uint32_t>(boxes * box_rows * 128 * S::kPanels));
      }
      __syncwarp();
      if (box < boxes) {
        hopper::copy_box(to + static_cast<uint32_t>(ring.stage * S::kKeyBytes), map,
                         address(&full[ring.stage]), panel * kPanelColumns, kv_head, row, block);
      }
      block = next;
      ring.next();
    }
  }
}

/// A warp's loads of the queries of tile after tile, and their notes. Rows past a sequence's last
/// are those of the next, or zeros: what becomes of them is not stored.
template <class S>
class QueryLoader {
 public:
  __device__ __forceinline__ QueryLoader(const PrefillParams& a, const CUtensorMap& map,
                                         uint32_t queries_at, ItemNote* notes,
                                         BarriersOf<S>& barriers)
      : a_(a), map_(map), queries_at_(queries_at), notes_(notes), barriers_(barriers) {}

  /// Waits for a place. Only the first lane needs the item.
  __device__ __forceinline__ void load(const WorkItem& item) {
    if (leads()) {
      const int32_t first_row = a_.p.query_start[item.tile.sequence] + item.tile.first;
      const uint32_t full = address(&barriers_.query_full[ring_.stage]);
      await_free();
      notes_[ring_.stage] = {item, first_row};
      hopper::barrier_expect(full, S::kQueryBytes);
#pragma unroll
      for (int panel = 0; panel < S::kPanels; ++panel) {
        hopper::copy_box(
            queries_at_ + static_cast<uint32_t>(ring_.stage * S::kQueryBytes + panel * kQueryPanel),
            map_, full, panel * kPanelColumns, item.head, first_row, 0);
      }
    }
    __syncwarp();
    ring_.next();
  }

  /// Says that there are no more.
  __device__ __forceinline__ void finish() {
    if (!leads()) return;
    await_free();
    notes_[ring_.stage].item.tile.sequence = -1;
    hopper::barrier_arrive(address(&barriers_.query_full[ring_.stage]));
  }

 private:
  __device__ static __forceinline__ bool leads() { return (threadIdx.x & 31) == 0; }
  __device__ __forceinline__ void await_free() const {
    hopper::barrier_wait(address(&barriers_.query_free[ring_.stage]), ring_.parity ^ 1);
  }

  const PrefillParams& a_;
  const CUtensorMap& map_;
  uint32_t queries_at_;
  ItemNote* notes_;
  BarriersOf<S>& barriers_;
  Ring<S::kQueryStages> ring_;
};

/// One warp: all queries.
template <class S, bool kCuts = true>
__device__ __forceinline__ void load_queries(const PrefillParams& a, QueryLoader<S> loader) {
  WorkItem item{};
  for (ItemCursor<S::kKeys, kCuts> items(a); items.next(item);) loader.load(item);
  loader.finish();
}

}  // namespace wgmma
}  // namespace mmcore::cuda
