// Attention of 128 query rows of one head on Hopper: two warpgroups of 64 rows multiply with wgmma.
// Where heads are wide they take turns, so that one computes a softmax while the other's products
// run; within a group, scores of the next keys and sums over values run during the softmax of the
// keys between. A third group loads, all through tensor maps: a warp keys, one values, one queries;
// boxes of keys are runs of rows on one page. Blocks stay and go from tile to tile.
#pragma once

#include <cuda.h>

#include <algorithm>
#include <cstdint>

#include "attention/prefill_maps.h"
#include "attention/prefill_softmax.cuh"
#include "attention/prefill_tile.cuh"
#include "device/convert.cuh"
#include "device/hopper.cuh"
#include "device/hopper_products.cuh"
#include "host/device.h"

namespace mmcore::cuda {
namespace wgmma_before {

inline constexpr int kGroup = 128;  // threads
inline constexpr int kThreads = 3 * kGroup;
inline constexpr int kMultiplyRegisters = 232;
inline constexpr int kLoadRegisters = 40;
inline constexpr int kPanelColumns = 64;  // a row of a panel is 128 bytes
inline constexpr int kQueryPanel = kPrefillTileRows * 128;

/// Shared memory: queries, then keys, then values of each stage, all in panels of 64 columns; what
/// is left of a head dim in the last panel is zeros.
template <int D>
struct Shape {
  static constexpr int kKeys = D > 128 ? 64 : 128;
  static constexpr int kPanels = (D + kPanelColumns - 1) / kPanelColumns;
  static constexpr int kSteps = (D + 15) / 16;
  static constexpr int kStages = D > 64 ? 2 : 4;
  static constexpr int kQueryStages = D > 128 ? 1 : 2;
  // Narrow heads have more softmax than products: the two groups had better not wait for each
  // other, and a group's weights come before it waits for its products.
  static constexpr bool kTurns = D > 64;
  static constexpr bool kWeightsBeforeWait = !kTurns;
  static constexpr int kKeyPanel = kKeys * 128;
  static constexpr int kQueryBytes = kPanels * kQueryPanel;
  static constexpr int kKeyBytes = kPanels * kKeyPanel;
  static constexpr int kSharedBytes =
      kQueryStages * kQueryBytes + 2 * kStages * kKeyBytes + 1024;  // to align
};

/// What the loaders say of a tile besides its queries. sequence -1: there are no more.
struct TileNote {
  QueryTile tile;
  int32_t head;
  int32_t first_row;  // of q and out
};

/// Barriers at fixed places; "full" ones count loads, "free" ones warps that have read.
template <int kStages, int kQueryStages>
struct Barriers {
  uint64_t query_full[kQueryStages], query_free[kQueryStages];
  uint64_t keys_full[kStages], keys_free[kStages];
  uint64_t values_full[kStages], values_free[kStages];
};

using hopper::Ring;

__device__ __forceinline__ uint32_t address(const void* shared) {
  return hopper::shared_address(shared);
}

template <class S>
using BarriersOf = Barriers<S::kStages, S::kQueryStages>;

/// The tiles of key rows that a tile of queries sees: [begin, end).
template <int kKeys>
__device__ __forceinline__ KeySpan key_tiles(const PrefillParams& a, const QueryTile& tile) {
  const KeySpan span = visible(a.p, tile, tile.first, tile.first + tile.rows() - 1);
  if (span.end <= span.begin) return {0, 0};
  return {span.begin / kKeys, (span.end + kKeys - 1) / kKeys};
}

/// Calls f(tile, head) for this block's tiles, heads that share keys one after another. Rounds run
/// to and fro, so that a block which had the longest of one has the shortest of the next.
template <class F>
__device__ __forceinline__ void for_each_tile(const PrefillParams& a, F&& f) {
  const int32_t tiles = a.tiles != nullptr ? min(*a.count, a.max_tiles) : a.max_tiles;
  const auto blocks = static_cast<int32_t>(gridDim.x), block = static_cast<int32_t>(blockIdx.x);
  const int32_t items = tiles * a.p.heads;
  for (int32_t first = 0, back = 0; first < items; first += blocks, back ^= 1) {
    const int32_t item = first + (back != 0 ? blocks - 1 - block : block);
    if (item >= items) continue;
    QueryTile tile;
    if (!find_tile(a, item / a.p.heads, tile) || tile.rows() <= 0) continue;
    f(tile, item % a.p.heads);
  }
}

/// One warp: boxes of keys, or of values, the last of a tile's first.
template <class S>
__device__ __forceinline__ void load_rows(const PrefillParams& a, const CUtensorMap& map,
                                          int32_t box_rows, uint32_t stages, uint64_t* full,
                                          uint64_t* free) {
  const int lane = threadIdx.x & 31;
  const int panel = lane % S::kPanels, box = lane / S::kPanels;
  const uint32_t to = stages + static_cast<uint32_t>(panel * S::kKeyPanel + box * box_rows * 128);
  const ops::AttentionProblem& p = a.p;
  const bool paged = p.block_tables != nullptr;
  Ring<S::kStages> ring;
  for_each_tile(a, [&](const QueryTile& tile, int32_t head) {
    const int32_t kv_head = head / (p.heads / p.kv_heads);
    const KeySpan span = key_tiles<S::kKeys>(a, tile);
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
  });
}

/// One warp: the queries of tile after tile, and their notes. Rows past a sequence's last are those
/// of the next, or zeros: what becomes of them is not stored.
template <class S>
__device__ __forceinline__ void load_queries(const PrefillParams& a, const CUtensorMap& map,
                                             uint32_t queries_at, TileNote* notes,
                                             BarriersOf<S>& barriers) {
  const bool leads = (threadIdx.x & 31) == 0;
  Ring<S::kQueryStages> ring;
  const auto await_free = [&] {
    hopper::barrier_wait(address(&barriers.query_free[ring.stage]), ring.parity ^ 1);
  };
  for_each_tile(a, [&](const QueryTile& tile, int32_t head) {
    const int32_t first_row = a.p.query_start[tile.sequence] + tile.first;
    const uint32_t full = address(&barriers.query_full[ring.stage]);
    if (leads) {
      await_free();
      notes[ring.stage] = {tile, head, first_row};
      hopper::barrier_expect(full, S::kQueryBytes);
#pragma unroll
      for (int panel = 0; panel < S::kPanels; ++panel) {
        hopper::copy_box(
            queries_at + static_cast<uint32_t>(ring.stage * S::kQueryBytes + panel * kQueryPanel),
            map, full, panel * kPanelColumns, head, first_row, 0);
      }
    }
    __syncwarp();
    ring.next();
  });
  if (leads) {
    await_free();
    notes[ring.stage].tile.sequence = -1;
    hopper::barrier_arrive(address(&barriers.query_full[ring.stage]));
  }
}

/// Zeroes the rows of a stage of values that no key belongs to: what memory holds there may be NaN,
/// and a weight of 0 would not make it go away. Both groups do it, each before it reads.
template <class S>
__device__ __forceinline__ void clear_values(uint32_t values, int32_t rows, int group) {
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
#pragma unroll
  for (int panel = 0; panel < S::kPanels; ++panel) {
    for (int at = rows * 128 + thread * 16; at < S::kKeyPanel; at += kGroup * 16) {
      asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(
                       values + static_cast<uint32_t>(panel * S::kKeyPanel + at)),
                   "r"(0)
                   : "memory");
    }
  }
  hopper::fence_async();
  hopper::named_sync(3 + group, kGroup);
}

/// One warpgroup: 64 rows of each tile.
template <int D, class T>
__device__ __forceinline__ void multiply(const PrefillParams& a, uint32_t queries_at,
                                         uint32_t keys_at, uint32_t values_at,
                                         const TileNote* notes, BarriersOf<Shape<D>>& barriers,
                                         int group) {
  using S = Shape<D>;
  const ops::AttentionProblem& p = a.p;
  const int lane = threadIdx.x & 31, warp = static_cast<int>(threadIdx.x) % kGroup / 32;
  const int own_row = 64 * group + 16 * warp;             // the warp's first, within the tile
  const int my_turn = 1 + group, other_turn = 2 - group;  // named barriers
  const auto await_turn = [&] {
    if constexpr (S::kTurns) hopper::named_sync(my_turn, 2 * kGroup);
  };
  const auto pass_turn = [&] {
    if constexpr (S::kTurns) hopper::named_arrive(other_turn, 2 * kGroup);
  };
  if (group == 1) pass_turn();

  const auto release = [&](uint64_t& barrier) {
    if (lane == 0) hopper::barrier_arrive(address(&barrier));
  };
  Ring<S::kStages> ring;
  Ring<S::kStages> value_ring;
  for (Ring<S::kQueryStages> query_ring;; query_ring.next()) {
    hopper::barrier_wait(address(&barriers.query_full[query_ring.stage]), query_ring.parity);
    const TileNote now = notes[query_ring.stage];
    const uint32_t my_queries =
        queries_at + static_cast<uint32_t>(query_ring.stage * S::kQueryBytes + 64 * 128 * group);
    if (now.tile.sequence < 0) break;
    const QueryTile& tile = now.tile;
    const KeySpan span = key_tiles<S::kKeys>(a, tile);
    const int32_t row = tile.first + own_row;
    const KeySpan spans[2] = {visible(p, tile, row + lane / 4),
                              visible(p, tile, row + lane / 4 + 8)};
    const int32_t begin[2] = {spans[0].begin, spans[1].begin};
    const int32_t end[2] = {spans[0].end, spans[1].end};
    const int32_t all_begin = visible(p, tile, row + 15).begin, all_end = visible(p, tile, row).end;

    float o[D / 2] = {};
    SoftmaxRows softmax;
    if (span.begin < span.end) {
      float s[S::kKeys / 2];
      uint32_t weights[S::kKeys / 16][4];
      const auto issue_scores = [&](int stage) {
        const hopper::Operand queries(my_queries);
        const hopper::Operand keys(keys_at + static_cast<uint32_t>(stage * S::kKeyBytes));
        hopper::begin_products();
#pragma unroll
        for (int d = 0; d < S::kSteps; ++d) {
          const uint32_t column = (d & 3) * 32;  // bytes within a panel
          hopper::multiply_shared<T>(s, queries.at((d >> 2) * kQueryPanel + column),
                                     keys.at((d >> 2) * S::kKeyPanel + column), d > 0);
        }
        hopper::commit_products();
      };
      const auto issue_values = [&](int stage) {
        const hopper::Operand values(values_at + static_cast<uint32_t>(stage * S::kKeyBytes),
                                     S::kKeyPanel);
        hopper::begin_products();
#pragma unroll
        for (int j = 0; j < S::kKeys / 16; ++j) {
          hopper::multiply_registers<T>(o, weights[j], values.at(j * 16 * 128));
        }
        hopper::commit_products();
      };
      const auto to_weights = [&](int32_t t, float(&factor)[2]) {
        if (a.score.transform) transform_scores(s, a.score);
        const int32_t first = t * S::kKeys;
        if (first < all_begin || first + S::kKeys > all_end) mask_scores(s, first, begin, end);
        return softmax.update(s, a.score.multiplier, factor);
      };
      const auto pack_weights = [&] {
#pragma unroll
        for (int i = 0; i < S::kKeys / 4; ++i) {
          weights[i >> 2][i & 3] = pack<T>(s[2 * i], s[2 * i + 1]);
        }
      };

      int32_t t = span.end - 1;
      float factor[2];
      hopper::barrier_wait(address(&barriers.keys_full[ring.stage]), ring.parity);
      await_turn();
      issue_scores(ring.stage);
      pass_turn();
      hopper::await_products<0>();
      hopper::hold(s);
      release(barriers.keys_free[ring.stage]);
      to_weights(t, factor);
      pack_weights();
      if (tile.keys - t * S::kKeys < S::kKeys) {
        hopper::barrier_wait(address(&barriers.values_full[value_ring.stage]), value_ring.parity);
        clear_values<S>(values_at + static_cast<uint32_t>(value_ring.stage * S::kKeyBytes),
                        tile.keys - t * S::kKeys, group);
      }
      for (--t; t >= span.begin; --t) {
        ring.next();
        hopper::barrier_wait(address(&barriers.keys_full[ring.stage]), ring.parity);
        await_turn();
        issue_scores(ring.stage);
        hopper::barrier_wait(address(&barriers.values_full[value_ring.stage]), value_ring.parity);
        issue_values(value_ring.stage);
        pass_turn();
        hopper::await_products<1>();
        hopper::hold(s);
        release(barriers.keys_free[ring.stage]);
        const bool rescale = to_weights(t, factor);
        // Never true. Without a branch that depends on all weights ptxas 13.0 computes half of them
        // after the wait, when none of this group's products run.
        if constexpr (S::kWeightsBeforeWait) {
          if (softmax.sum[0] + softmax.sum[1] < 0.0f) __trap();
        }
        hopper::await_products<0>();
        hopper::hold(o);
        release(barriers.values_free[value_ring.stage]);
        if (rescale) rescale_rows(o, factor);
        pack_weights();
        value_ring.next();
      }
      hopper::barrier_arrive(address(&barriers.query_free[query_ring.stage]));
      hopper::barrier_wait(address(&barriers.values_full[value_ring.stage]), value_ring.parity);
      issue_values(value_ring.stage);
      hopper::await_products<0>();
      hopper::hold(o);
      release(barriers.values_free[value_ring.stage]);
      ring.next();
      value_ring.next();
    } else {
      hopper::barrier_arrive(address(&barriers.query_free[query_ring.stage]));
    }

    float inverse[2];
    softmax.inverse(inverse);
    const int own = own_row + lane / 4;
    T* const out = static_cast<T*>(p.out) + (now.first_row + int64_t{own}) * p.out_row_stride +
                   now.head * p.out_head_stride;
    T* const out_rows[2] = {own < tile.rows() ? out : nullptr,
                            own + 8 < tile.rows() ? out + 8 * p.out_row_stride : nullptr};
    store_rows<T, D>(o, inverse, out_rows, a.vector_out);
  }
  if (group == 0) await_turn();  // takes the turn nobody needs
}

template <int D, class T>
__global__ void __launch_bounds__(kThreads, 1)
    prefill(const __grid_constant__ PrefillParams a, const __grid_constant__ AttentionMaps maps) {
#if defined(MMCORE_HOPPER)
  using S = Shape<D>;
  extern __shared__ uint8_t shared[];
  __shared__ BarriersOf<S> barriers;
  __shared__ TileNote notes[S::kQueryStages];
  const uint32_t queries_at = (address(shared) + 1023) / 1024 * 1024;
  const uint32_t keys_at = queries_at + S::kQueryStages * S::kQueryBytes;
  const uint32_t values_at = keys_at + S::kStages * S::kKeyBytes;
  if (threadIdx.x == 0) {
    constexpr uint32_t kReadingWarps = 8;
    for (int i = 0; i < S::kQueryStages; ++i) {
      hopper::barrier_init(address(&barriers.query_full[i]), 1);
      // The note is read by ordinary instructions: every thread arrives for itself. A warp's
      // arrival for all of its lanes is as good, but no race checker can tell.
      hopper::barrier_init(address(&barriers.query_free[i]), 2 * kGroup);
    }
    for (int i = 0; i < S::kStages; ++i) {
      hopper::barrier_init(address(&barriers.keys_full[i]), 1);
      hopper::barrier_init(address(&barriers.keys_free[i]), kReadingWarps);
      hopper::barrier_init(address(&barriers.values_full[i]), 1);
      hopper::barrier_init(address(&barriers.values_free[i]), kReadingWarps);
    }
    hopper::barrier_init_fence();
  }
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / kGroup;
  if (group == 0) {
    hopper::give_registers<kLoadRegisters>();
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (warp == 0) {
      load_rows<S>(a, maps.k, maps.box_rows, keys_at, barriers.keys_full, barriers.keys_free);
    } else if (warp == 1) {
      load_rows<S>(a, maps.v, maps.box_rows, values_at, barriers.values_full, barriers.values_free);
    } else if (warp == 2) {
      load_queries<S>(a, maps.q, queries_at, notes, barriers);
    }
  } else {
    hopper::take_registers<kMultiplyRegisters>();
    multiply<D, T>(a, queries_at, keys_at, values_at, notes, barriers, group - 1);
  }
#else
  asm("trap;");
#endif
}

template <int D, class T>
Status launch(const char* op, const PrefillParams& a, const DeviceFacts& facts,
              cudaStream_t stream) {
  using S = Shape<D>;
  AttentionMaps maps;
  MMCORE_RETURN_IF_ERROR(attention_maps(op, a, S::kKeys, maps));
  MMCORE_RETURN_IF_ERROR(allow_shared(op, prefill<D, T>, S::kSharedBytes));
  const auto blocks = std::min<int64_t>(int64_t{a.max_tiles} * a.p.heads, facts.multiprocessors);
  prefill<D, T><<<static_cast<unsigned>(blocks), kThreads, S::kSharedBytes, stream>>>(a, maps);
  return launch_status(op);
}

}  // namespace wgmma_before
}  // namespace mmcore::cuda
