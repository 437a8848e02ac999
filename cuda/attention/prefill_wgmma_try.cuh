// A kernel to be measured: warps that load, warps that widen, groups that multiply.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "attention/prefill_wgmma_load.cuh"
#include "attention/prefill_wgmma_shape.cuh"
#include "attention/prefill_wgmma_widen.cuh"

namespace mmcore::cuda {
namespace wgmma {

inline int try_of(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? std::atoi(value) : 0;
}

template <int D, int kQueries, int kStagedOfEach, int kRaised = 0>
struct TryShape : Shape<D> {
  using Base = Shape<D>;
  static constexpr int kQueryStages = kQueries;
  static constexpr bool kTurns = true;
  static constexpr bool kWeightsBeforeWait = false;
  static constexpr int kStaged = kStagedOfEach;
  static constexpr int kRaise = kRaised;
  static constexpr int kStagedTile = Base::kKeys * D;
  static constexpr int kSharedBytes = kQueryStages * Base::kQueryBytes +
                                      2 * Base::kStages * Base::kKeyBytes +
                                      2 * kStaged * kStagedTile + 1024;
};

template <int D, int kStagedOfEach, int kRaised>
inline constexpr bool kEarlyRelease<TryShape<D, 1, kStagedOfEach, kRaised>> = true;

/// What the warps that load and those that widen share.
template <class S>
struct Staging {
  uint64_t full[2][S::kStaged], free[2][S::kStaged];  // of keys, of values
  int32_t rows[S::kStaged];  // of a tile of keys, that there are; -1: there are no more
};

/// One warp: tiles of keys, or of values, as they are.
template <class S, int D>
__device__ __forceinline__ void load_staged(const PrefillParams& a, const CUtensorMap& map,
                                            int32_t box_rows, uint32_t to, Staging<S>& staging,
                                            int kind) {
  const int box = threadIdx.x & 31;
  const ops::AttentionProblem& p = a.p;
  Ring<S::kStaged> ring;
  WorkItem item{};
  for (ItemCursor<S::kKeys> items(a); items.next(item);) {
    const QueryTile& tile = item.tile;
    const KeySpan span = item.keys;
    const int32_t kv_head = item.head / (p.heads / p.kv_heads);
    const auto block_of = [&](int32_t t) {
      const int32_t row = t * S::kKeys + box * box_rows;
      if (t < span.begin || row >= tile.keys || box * box_rows >= S::kKeys) return 0;
      return p.block_tables[tile.sequence * p.table_stride + (row >> p.block_shift)];
    };
    int32_t block = block_of(span.end - 1);
    for (int32_t t = span.end - 1; t >= span.begin; --t) {
      const int32_t first = t * S::kKeys;
      const int32_t rows = min(S::kKeys, tile.keys - first);
      const int32_t boxes = (rows + box_rows - 1) / box_rows;
      const int32_t next = block_of(t - 1);
      const int32_t row = (first + box * box_rows) & ((1 << p.block_shift) - 1);
      const uint32_t full = address(&staging.full[kind][ring.stage]);
      hopper::barrier_wait(address(&staging.free[kind][ring.stage]), ring.parity ^ 1);
      if (box == 0) {
        if (kind == 0) staging.rows[ring.stage] = rows;
        hopper::barrier_expect(full, static_cast<uint32_t>(boxes * box_rows * D));
      }
      __syncwarp();
      if (box < boxes) {
        hopper::copy_box(
            to + static_cast<uint32_t>(ring.stage * S::kStagedTile + box * box_rows * D), map, full,
            0, kv_head, row, block);
      }
      block = next;
      ring.next();
    }
  }
  if (kind == 0) {
    hopper::barrier_wait(address(&staging.free[0][ring.stage]), ring.parity ^ 1);
    if (box == 0) {
      staging.rows[ring.stage] = -1;
      hopper::barrier_arrive(address(&staging.full[0][ring.stage]));
    }
  }
}

/// One of the four warps that widen a quarter of the rows of all tiles.
template <class S, int D, class T, bool kKeysFirst, bool kProfile>
__device__ __forceinline__ void widen_all(uint32_t keys_at, uint32_t values_at, uint32_t staged_at,
                                          BarriersOf<S>& barriers, Staging<S>& staging,
                                          uint32_t nothing) {
  constexpr int kRows = S::kKeys / kLoadWarps;
  const int lane = threadIdx.x & 31, warp = static_cast<int>(threadIdx.x) % kGroup / 32;
  const uint32_t own_from = staged_at + static_cast<uint32_t>(warp * kRows * D);
  const uint32_t own_to = static_cast<uint32_t>(warp * kRows * 128);
  Ring<S::kStages> ring;
  Ring<S::kStages> value_ring;
  Ring<S::kStaged> from;
  Ring<S::kStaged> value_from;
  int64_t spent[6] = {};
  int64_t then = 0;
  const auto lap = [&](int i) {
    if constexpr (kProfile) {
      const int64_t now = clock64();
      spent[i] += now - then;
      then = now;
    }
  };
  if constexpr (kProfile) then = clock64();
  const int64_t begin = then;
  int tiles = 0;
  int32_t before = -1;  // rows of the tile whose values are next; -1: none
  for (;;) {
    const uint32_t arrived = address(&staging.full[0][from.stage]);
    hopper::barrier_wait(arrived, from.parity);
    lap(0);
    int32_t rows = lane == 0 ? staging.rows[from.stage] : 0;
    rows = __shfl_sync(kFullWarp, rows, 0);
    const auto keys = [&] {
      if (rows < 0) return;
      hopper::barrier_wait(address(&barriers.keys_free[ring.stage]), ring.parity ^ 1);
      lap(4);
      widen_rows<D, T, kRows>(own_from + static_cast<uint32_t>(from.stage * S::kStagedTile),
                              keys_at + own_to + static_cast<uint32_t>(ring.stage * S::kKeyBytes),
                              nothing);
      __syncwarp();
      if (lane == 0) hopper::barrier_arrive(address(&staging.free[0][from.stage]));
      lap(3);
      hopper::fence_async();
      __syncwarp();
      if (lane == 0) hopper::barrier_arrive(address(&barriers.keys_full[ring.stage]));
      lap(5);
    };
    if constexpr (kKeysFirst) keys();
    if (before >= 0) {
      const uint32_t to =
          values_at + own_to + static_cast<uint32_t>(value_ring.stage * S::kKeyBytes);
      hopper::barrier_wait(address(&barriers.values_free[value_ring.stage]), value_ring.parity ^ 1);
      lap(1);
      hopper::barrier_wait(address(&staging.full[1][value_from.stage]), value_from.parity);
      lap(2);
      widen_rows<D, T, kRows, (S::kRaise > 0)>(
          own_from + static_cast<uint32_t>((S::kStaged + value_from.stage) * S::kStagedTile), to,
          nothing);
      __syncwarp();
      if (lane == 0) hopper::barrier_arrive(address(&staging.free[1][value_from.stage]));
      if (before < (warp + 1) * kRows) clear_rows<D, kRows>(to, before - warp * kRows);
      lap(3);
      hopper::fence_async();
      __syncwarp();
      if (lane == 0) hopper::barrier_arrive(address(&barriers.values_full[value_ring.stage]));
      lap(5);
    }
    if constexpr (!kKeysFirst) keys();
    if (before >= 0) {
      value_ring.next();
      value_from.next();
    }
    if (rows < 0) break;
    ++tiles;
    ring.next();
    from.next();
    before = rows;
  }
  if constexpr (kProfile) {
    if (blockIdx.x % 40 == 7 && warp == 1 && lane == 0 && tiles > 0) {
      printf(
          "block %d: %d tiles, cycles a tile %d: keys come %d values free %d come %d widen %d "
          "keys free %d fence %d\n",
          static_cast<int>(blockIdx.x), tiles, static_cast<int>((clock64() - begin) / tiles),
          static_cast<int>(spent[0] / tiles), static_cast<int>(spent[1] / tiles),
          static_cast<int>(spent[2] / tiles), static_cast<int>(spent[3] / tiles),
          static_cast<int>(spent[4] / tiles), static_cast<int>(spent[5] / tiles));
    }
  }
}

template <class S, int D, class T, class KV, bool kKeysFirst, int kLoad, bool kProfile>
__global__ void __launch_bounds__(512, 1) prefill_try(const __grid_constant__ PrefillParams a,
                                                      const __grid_constant__ AttentionMaps maps) {
#if defined(MMCORE_HOPPER)
  extern __shared__ uint8_t shared[];
  __shared__ BarriersOf<S> barriers;
  __shared__ Staging<S> staging;
  __shared__ ItemNote notes[S::kQueryStages];
  __shared__ bool last[2];
  const uint32_t queries_at = (address(shared) + 1023) / 1024 * 1024;
  const uint32_t keys_at = queries_at + S::kQueryStages * S::kQueryBytes;
  const uint32_t values_at = keys_at + S::kStages * S::kKeyBytes;
  const uint32_t staged_at = values_at + S::kStages * S::kKeyBytes;
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kQueryStages; ++i) {
      hopper::barrier_init(address(&barriers.query_full[i]), 1);
      hopper::barrier_init(address(&barriers.query_free[i]), 2 * kGroup);
    }
    for (int i = 0; i < S::kStages; ++i) {
      hopper::barrier_init(address(&barriers.keys_full[i]), kLoadWarps);
      hopper::barrier_init(address(&barriers.keys_free[i]), 8);
      hopper::barrier_init(address(&barriers.values_full[i]), kLoadWarps);
      hopper::barrier_init(address(&barriers.values_free[i]), 8);
    }
    for (int kind = 0; kind < 2; ++kind) {
      for (int i = 0; i < S::kStaged; ++i) {
        hopper::barrier_init(address(&staging.full[kind][i]), 1);
        hopper::barrier_init(address(&staging.free[kind][i]), kLoadWarps);
      }
    }
    hopper::barrier_init_fence();
  }
  __syncthreads();
  const int of_groups = static_cast<int>(threadIdx.x) / kGroup;
  if (of_groups == 0) {
    hopper::give_registers<kLoad>();
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (warp == 0) {
      load_staged<S, D>(a, maps.k, maps.box_rows, staged_at, staging, 0);
    } else if (warp == 1) {
      load_staged<S, D>(a, maps.v, maps.box_rows, staged_at + S::kStaged * S::kStagedTile, staging,
                        1);
    } else if (warp == 2) {
      load_queries<S>(a, QueryLoader<S>(a, maps.q, queries_at, notes, barriers));
    }
  } else if (of_groups == 1) {
    hopper::give_registers<96 - kLoad>();
    widen_all<S, D, T, kKeysFirst, kProfile>(keys_at, values_at, staged_at, barriers, staging,
                                             static_cast<uint32_t>(a.p.block_shift) >> 8);
  } else {
    const int group = of_groups - 2;
    hopper::take_registers<208>();
    multiply<D, T, KV, S>(a, queries_at, keys_at, values_at, notes, barriers, &last[group], group);
  }
#else
  asm("trap;");
#endif
}

template <class S, int D, class T, class KV, bool kKeysFirst, int kLoad = 40, bool kProfile = false>
Status launch_try(const char* op, const PrefillParams& a, const DeviceFacts& facts,
                  cudaStream_t stream) {
  AttentionMaps maps;
  MMCORE_RETURN_IF_ERROR(attention_maps(op, a, S::kKeys, maps));
  MMCORE_RETURN_IF_ERROR(
      allow_shared(op, prefill_try<S, D, T, KV, kKeysFirst, kLoad, kProfile>, S::kSharedBytes));
  const auto blocks = a.cuts.num_workers > 0 ? a.cuts.num_workers
                                             : std::min<int64_t>(int64_t{a.max_tiles} * a.p.heads,
                                                                 facts.multiprocessors);
  prefill_try<S, D, T, KV, kKeysFirst, kLoad, kProfile>
      <<<static_cast<unsigned>(blocks), 512, S::kSharedBytes, stream>>>(a, maps);
  return launch_status(op);
}

}  // namespace wgmma
}  // namespace mmcore::cuda
