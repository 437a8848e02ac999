// Attention of 128 query rows of one head on Hopper: two warpgroups of 64 rows multiply with wgmma.
// Where heads are wide they take turns, so that one computes a softmax while the other's products
// run; within a group, scores of the next keys and sums over values run during the softmax of the
// keys between. A third group loads, all through tensor maps: a warp keys, one values, one queries;
// boxes of keys are runs of rows on one page. Keys and values of e4m3 pass through the registers of
// a fourth group, which widens them. Blocks stay and go from tile to tile; few tiles are cut
// between them.
#pragma once

#include <cuda.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "attention/prefill_maps.h"
#include "attention/prefill_softmax.cuh"
#include "attention/prefill_tile.cuh"
#include "attention/prefill_wgmma_load.cuh"
#include "attention/prefill_wgmma_merge.cuh"
#include "attention/prefill_wgmma_shape.cuh"
#include "attention/prefill_wgmma_widen.cuh"
#include "attention/prefill_wgmma_widen_wide.cuh"
#include "device/convert.cuh"
#include "device/hopper.cuh"
#include "device/hopper_products.cuh"
#include "host/device.h"

namespace mmcore::cuda {
namespace wgmma {

inline constexpr int kMultiplyRegisters = 232;
inline constexpr int kLoadRegisters = 40;
inline constexpr int kMultiplyWidenedRegisters = 208;
inline constexpr int kLoadToWidenRegisters = 32;
inline constexpr int kWidenRegisters = 64;
inline constexpr int kLoadAndWidenRegisters = 88;

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
template <int D, class T, class KV>
__device__ __forceinline__ void multiply(const PrefillParams& a, uint32_t queries_at,
                                         uint32_t keys_at, uint32_t values_at,
                                         const ItemNote* notes,
                                         BarriersOf<Shape<D, kWidened<T, KV>>>& barriers,
                                         bool* last, int group) {
  using S = Shape<D, kWidened<T, KV>>;
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
    const ItemNote now = notes[query_ring.stage];
    const uint32_t my_queries =
        queries_at + static_cast<uint32_t>(query_ring.stage * S::kQueryBytes + 64 * 128 * group);
    if (now.item.tile.sequence < 0) break;
    const QueryTile& tile = now.item.tile;
    const KeySpan span = now.item.keys;
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
        return softmax.update<kWeightsRaised<S, T>>(s, a.score.multiplier, factor);
      };
      const auto pack_weights = [&] {
#pragma unroll
        for (int i = 0; i < S::kKeys / 4; ++i) {
          weights[i >> 2][i & 3] = pack<T>(s[2 * i], s[2 * i + 1]);
        }
      };

      // Queries have been read when the last scores are there. The next have no other place.
      constexpr bool kEarly = S::kWidenGroup;
      const auto release_early = [&](int32_t t) {
        if (kEarly && t == span.begin) {
          hopper::barrier_arrive(address(&barriers.query_free[query_ring.stage]));
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
      release_early(t);
      to_weights(t, factor);
      pack_weights();
      if (!kWidened<T, KV> && tile.keys - t * S::kKeys < S::kKeys) {
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
        release_early(t);
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
      if (!kEarly) hopper::barrier_arrive(address(&barriers.query_free[query_ring.stage]));
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

    bool complete = true;
    if constexpr (D <= ops::kMostCutDim) {
      if (now.item.parts > 1) complete = merge_parts<D>(a.cuts, now.item, o, softmax, group, last);
    }
    if (complete) {
      float inverse[2];
      softmax.inverse(inverse);
      if constexpr (kWeightsRaised<S, T> > 0) {
        inverse[0] *= kExponentFactor;
        inverse[1] *= kExponentFactor;
      }
      if constexpr (kWidened<T, KV>) {
        inverse[0] *= p.v_scale;
        inverse[1] *= p.v_scale;
      }
      const int own = own_row + lane / 4;
      T* const out = static_cast<T*>(p.out) + (now.first_row + int64_t{own}) * p.out_row_stride +
                     now.item.head * p.out_head_stride;
      T* const out_rows[2] = {own < tile.rows() ? out : nullptr,
                              own + 8 < tile.rows() ? out + 8 * p.out_row_stride : nullptr};
      store_rows<T, D>(o, inverse, out_rows, a.vector_out);
    }
  }
  if (group == 0) await_turn();  // takes the turn nobody needs
}

template <int D, class T, class KV>
__global__ void __launch_bounds__((Shape<D, kWidened<T, KV>>::kThreads), 1)
    prefill(const __grid_constant__ PrefillParams a, const __grid_constant__ AttentionMaps maps) {
#if defined(MMCORE_HOPPER)
  constexpr bool kWiden = kWidened<T, KV>;
  using S = Shape<D, kWiden>;
  extern __shared__ uint8_t shared[];
  __shared__ BarriersOf<S> barriers;
  __shared__ std::conditional_t<S::kWidenGroup, Staging<S>, WidenShared> staging;
  __shared__ ItemNote notes[S::kQueryStages];
  __shared__ bool last[2];  // of each group: it is the one that merges
  const uint32_t queries_at = (address(shared) + 1023) / 1024 * 1024;
  const uint32_t keys_at = queries_at + S::kQueryStages * S::kQueryBytes;
  const uint32_t values_at = keys_at + S::kStages * S::kKeyBytes;
  [[maybe_unused]] const uint32_t staged_at = values_at + S::kStages * S::kKeyBytes;
  if (threadIdx.x == 0) {
    constexpr uint32_t kReadingWarps = 8, kWritingWarps = kWiden ? kWidenWarps : 1;
    for (int i = 0; i < S::kQueryStages; ++i) {
      hopper::barrier_init(address(&barriers.query_full[i]), 1);
      // The note is read by ordinary instructions: every thread arrives for itself. A warp's
      // arrival for all of its lanes is as good, but no race checker can tell.
      hopper::barrier_init(address(&barriers.query_free[i]), 2 * kGroup);
    }
    for (int i = 0; i < S::kStages; ++i) {
      hopper::barrier_init(address(&barriers.keys_full[i]), kWritingWarps);
      hopper::barrier_init(address(&barriers.keys_free[i]), kReadingWarps);
      hopper::barrier_init(address(&barriers.values_full[i]), kWritingWarps);
      hopper::barrier_init(address(&barriers.values_free[i]), kReadingWarps);
    }
    if constexpr (S::kWidenGroup) {
      for (int i = 0; i < S::kStagedTiles; ++i) {
        hopper::barrier_init(address(&staging.keys_full[i]), 1);
        hopper::barrier_init(address(&staging.keys_free[i]), kWidenWarps);
        hopper::barrier_init(address(&staging.values_full[i]), 1);
        hopper::barrier_init(address(&staging.values_free[i]), kWidenWarps);
      }
    } else if constexpr (kWiden) {
      for (auto& warp : staging.full) {
        for (uint64_t& barrier : warp) hopper::barrier_init(address(&barrier), 1);
      }
    }
    hopper::barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < kGroup) {
    hopper::give_registers<S::kWidenGroup ? kLoadToWidenRegisters
                           : kWiden       ? kLoadAndWidenRegisters
                                          : kLoadRegisters>();
    const QueryLoader<S> queries(a, maps.q, queries_at, notes, barriers);
    if constexpr (S::kWidenGroup) {
      load_tiles<StagedRing<S>>(a, maps, queries, staged_at, staging, staging.rows);
    } else if constexpr (kWiden) {
      load_widened<D, T>(a, maps, queries, keys_at, values_at, staged_at, barriers, staging);
    } else {
      load_tiles<PanelRing<S>>(a, maps, queries, keys_at, barriers, nullptr);
    }
  } else if (S::kWidenGroup && threadIdx.x < 2 * kGroup) {
    if constexpr (S::kWidenGroup) {
      hopper::give_registers<kWidenRegisters>();
      widen_tiles<D, T>(a, keys_at, values_at, staged_at, barriers, staging);
    }
  } else {
    const int group = static_cast<int>(threadIdx.x) / kGroup - (S::kWidenGroup ? 2 : 1);
    hopper::take_registers<kWiden ? kMultiplyWidenedRegisters : kMultiplyRegisters>();
    multiply<D, T, KV>(a, queries_at, keys_at, values_at, notes, barriers, &last[group], group);
  }
#else
  asm("trap;");
#endif
}

template <int D, class T, class KV>
Status launch(const char* op, const PrefillParams& a, const DeviceFacts& facts,
              cudaStream_t stream) {
  constexpr bool kWiden = kWidened<T, KV>;
  using S = Shape<D, kWiden>;
  AttentionMaps maps;
  MMCORE_RETURN_IF_ERROR(attention_maps(op, a, S::kBoxRows, maps));
  MMCORE_RETURN_IF_ERROR(allow_shared(op, prefill<D, T, KV>, S::kSharedBytes));
  const auto blocks = a.cuts.num_workers > 0 ? a.cuts.num_workers
                                             : std::min<int64_t>(int64_t{a.max_tiles} * a.p.heads,
                                                                 facts.multiprocessors);
  prefill<D, T, KV>
      <<<static_cast<unsigned>(blocks), S::kThreads, S::kSharedBytes, stream>>>(a, maps);
  return launch_status(op);
}

}  // namespace wgmma

template <int D>
Status launch_prefill_wgmma(const char* op, const PrefillParams& a, const DeviceFacts& facts,
                            cudaStream_t stream) {
  if (a.p.dtype == DType::kBFloat16) {
    return wgmma::launch<D, __nv_bfloat16, __nv_bfloat16>(op, a, facts, stream);
  }
  return wgmma::launch<D, __half, __half>(op, a, facts, stream);
}

template <int D>
Status launch_prefill_wgmma_e4m3(const char* op, const PrefillParams& a, const DeviceFacts& facts,
                                 cudaStream_t stream) {
  if (a.p.dtype == DType::kBFloat16) {
    return wgmma::launch<D, __nv_bfloat16, __nv_fp8_e4m3>(op, a, facts, stream);
  }
  return wgmma::launch<D, __half, __nv_fp8_e4m3>(op, a, facts, stream);
}

}  // namespace mmcore::cuda
