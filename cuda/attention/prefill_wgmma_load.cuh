// What loads for wgmma attention: bulk copies of queries, keys and values.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "attention/prefill_maps.h"
#include "attention/prefill_params.h"
#include "attention/prefill_wgmma_shape.cuh"

namespace mmcore::cuda {
namespace wgmma {

/// Where tiles of keys, or of values, are brought: swizzled panels that products read.
template <class S>
struct PanelRing {
  static constexpr int kKeys = S::kKeys;
  static constexpr int kStages = S::kStages;
  static constexpr int kPanels = S::kPanels;
  static constexpr int kPanelBytes = S::kKeyPanel;
  static constexpr int kRowBytes = 128;
};

/// One warp: boxes of keys, or of values, the last of a tile's first. `rows`, of each stage: where
/// not null, how many rows of the tile are keys, and -1 behind the last tile.
template <class To>
__device__ __forceinline__ void load_rows(const PrefillParams& a, const CUtensorMap& map,
                                          int32_t box_rows, uint32_t stages, uint64_t* full,
                                          uint64_t* free, int32_t* rows = nullptr) {
  constexpr int kKeys = To::kKeys, kStageBytes = To::kPanels * To::kPanelBytes;
  const int lane = threadIdx.x & 31;
  const int panel = lane % To::kPanels, box = lane / To::kPanels;
  const uint32_t to =
      stages + static_cast<uint32_t>(panel * To::kPanelBytes + box * box_rows * To::kRowBytes);
  const ops::AttentionProblem& p = a.p;
  const bool paged = p.block_tables != nullptr;
  Ring<To::kStages> ring;
  WorkItem item{};
  for (ItemCursor<kKeys> items(a); items.next(item);) {
    const QueryTile& tile = item.tile;
    const KeySpan span = item.keys;
    const int32_t kv_head = item.head / (p.heads / p.kv_heads);
    const int32_t start = paged ? 0 : p.kv_start[tile.sequence];
    // Of this lane's box in tile t; read a tile ahead.
    const auto block_of = [&](int32_t t) {
      const int32_t row = t * kKeys + box * box_rows;
      if (!paged || t < span.begin || row >= tile.keys || box * box_rows >= kKeys) return 0;
      return p.block_tables[tile.sequence * p.table_stride + (row >> p.block_shift)];
    };
    int32_t block = block_of(span.end - 1);
    for (int32_t t = span.end - 1; t >= span.begin; --t) {
      const int32_t first = t * kKeys;
      const int32_t keys = min(kKeys, tile.keys - first);
      const int32_t boxes = (keys + box_rows - 1) / box_rows;
      const int32_t next = block_of(t - 1);
      int32_t row = start + first + box * box_rows;
      if (paged) row &= (1 << p.block_shift) - 1;
      hopper::barrier_wait(address(&free[ring.stage]), ring.parity ^ 1);
      if (lane == 0) {
        if (rows != nullptr) rows[ring.stage] = keys;
        hopper::barrier_expect(
            address(&full[ring.stage]),
            static_cast<uint32_t>(boxes * box_rows * To::kRowBytes * To::kPanels));
      }
      __syncwarp();
      if (box < boxes) {
        hopper::copy_box(to + static_cast<uint32_t>(ring.stage * kStageBytes), map,
                         address(&full[ring.stage]), panel * kPanelColumns, kv_head, row, block);
      }
      block = next;
      ring.next();
    }
  }
  if (rows == nullptr) return;
  hopper::barrier_wait(address(&free[ring.stage]), ring.parity ^ 1);
  if (lane == 0) {
    rows[ring.stage] = -1;
    hopper::barrier_arrive(address(&full[ring.stage]));
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
template <class S>
__device__ __forceinline__ void load_queries(const PrefillParams& a, QueryLoader<S> loader) {
  WorkItem item{};
  for (ItemCursor<S::kKeys> items(a); items.next(item);) loader.load(item);
  loader.finish();
}

/// The load group: a warp keys, one values, one queries. Keys come to `to`, values behind them;
/// `at` has their barriers.
template <class To, class S, class Barriers>
__device__ __forceinline__ void load_tiles(const PrefillParams& a, const AttentionMaps& maps,
                                           QueryLoader<S> queries, uint32_t to, Barriers& at,
                                           int32_t* rows) {
  constexpr int kBytes = To::kStages * To::kPanels * To::kPanelBytes;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (warp == 0) {
    load_rows<To>(a, maps.k, maps.box_rows, to, at.keys_full, at.keys_free, rows);
  } else if (warp == 1) {
    load_rows<To>(a, maps.v, maps.box_rows, to + kBytes, at.values_full, at.values_free);
  } else if (warp == 2) {
    load_queries<S>(a, queries);
  }
}

}  // namespace wgmma
}  // namespace mmcore::cuda
