// Decode with tensor cores: mma.m16n8k16 with keys as rows and query rows as columns.
//
//   S^T [16 keys, 8 rows]  =  K [16 keys, D] Q^T [D, 8 rows]         K from shared memory
//   (ldmatrix) O^T [D, 8 rows]       +=  V^T [D, 16 keys] P^T [16 keys, 8 rows]  V likewise
//   (ldmatrix.trans)
//
// So 8 columns are enough for the heads that share a key/value head: nothing is read twice and
// little is computed in vain, and a single head, too, costs fewer instructions than without tensor
// cores. P^T is turned from an accumulator into an operand by movmatrix.
//
// Each warp is on its own while it reads: it has every `warps`-th tile of 16 keys of a unit, a ring
// of stages in shared memory that only it fills (cp.async) and reads, and its own sums. It asks for
// tiles of the next unit before it has finished one. Warps meet at the end of a unit alone.
//
// 4 warps with 3 stages of 8 KiB at head dim 128, 8 with 3 of 4 KiB at 64: 64 KiB or more are under
// way in a multiprocessor, where 3.1 TB/s and a latency of 1 us ask for 24. A tile takes a warp
// some 500 cycles and the memory 590 (3.1 TB/s over 132 multiprocessors at 1.7 GHz).
//
// A block takes less than half of a multiprocessor, so that one may begin beside the kernel in
// front: it reads its plan, the tables and the first tiles before that has ended. In clusters,
// which are launched where there may be teams, it takes a multiprocessor to itself.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "attention/decode_team.cuh"
#include "attention/decode_tile.cuh"
#include "attention/decode_unit.cuh"
#include "device/overlap.cuh"
#include "host/launch.h"

namespace mmcore::cuda {

inline constexpr int kMaxDecodeWarps = 8;

/// Warps of a block, at most, and whether registers are kept few enough that two blocks of so many
/// find room on a multiprocessor: without that none could begin beside the kernel in front, and of
/// 16 clusters, which do not find 128 multiprocessors, one would wait for another's end.
template <class KV, int kDim, int kColumns>
struct DecodeThreads {
  static constexpr bool kFloat8 = sizeof(KV) == 1;
  static constexpr bool kTwoBlocks = kColumns == 1 && kDim <= (kFloat8 ? 128 : 64);
  static constexpr int kWarps =
      std::is_same_v<KV, __nv_fp8_e4m3> && kTwoBlocks && kDim == 128 ? 6 : kMaxDecodeWarps;
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

  uint32_t q[Tile::kSteps][kColumns][2];
  float out[Tile::kSteps][kColumns][4];
  float top[kColumns][2];
  float weights[kColumns][2];  // of this thread's keys
  int begin[kColumns][2];
  int end[kColumns][2];
  float unscale[kColumns][2];  // where queries are scaled
  int all_begin, all_end;      // keys that all rows see

  __device__ __forceinline__ void start(const DecodeParams& p, const DecodeUnit& u, int lane) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int row = 8 * n + lane / 4;
      const DecodeRow at = row_of(p, u, min(row, u.rows - 1));
      const char* from = p.q + at.query * p.q_row_stride + at.head * p.q_head_stride;
#pragma unroll
      for (int s = 0; s < Tile::kSteps; ++s) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int dim = 16 * s + query_dim<KV>(half, lane);
          q[s][n][half] = row < u.rows && dim < kDim
                              ? __ldcg(reinterpret_cast<const unsigned int*>(from + 2 * dim))
                              : 0u;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) out[s][n][i] = 0;
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
      unscale[n][c] = __shfl_sync(kFullWarp, back, 4 * (2 * (lane % 4) + c));
    }
  }

  /// A tile's keys: weights for its values.
  __device__ __forceinline__ void weigh(const DecodeParams& p, int tile, uint32_t k, int lane,
                                        uint32_t (&weight)[kColumns][2]) {
    const int key = tile * Tile::kKeys;
    float x[kColumns][4];
    {
      float sums[2][kColumns][4] = {};  // two chains: a multiplication waits for the one before
#pragma unroll
      for (int s = 0; s < Tile::kSteps; ++s) {
        uint32_t keys[4];
        load_keys<KV, kDim>(keys, k, s, lane);
#pragma unroll
        for (int n = 0; n < kColumns; ++n) multiply<Key>(sums[s & 1][n], keys, q[s][n]);
      }
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float dot = sums[0][n][i] + sums[1][n][i];
          if constexpr (kScaled) dot *= unscale[n][i & 1];
          x[n][i] = score(p, dot);
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

  __device__ __forceinline__ void add(uint32_t v, int lane, const uint32_t (&weight)[kColumns][2]) {
#pragma unroll
    for (int s = 0; s < Tile::kSteps; ++s) {
      uint32_t values[4];
      load_values<KV, kDim>(values, v, s, lane);
#pragma unroll
      for (int n = 0; n < kColumns; ++n) multiply<Value>(out[s][n], values, weight[n]);
    }
  }

  /// Maxima and sums of weights to sums[row].
  __device__ __forceinline__ void give_sums(float2* sums, int lane) const {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float sum = weights[n][c];
#pragma unroll
        for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(kFullWarp, sum, step);
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

/// Brings the queries of a unit into the L2 cache.
template <int kDim>
__device__ __forceinline__ void fetch_queries(const DecodeParams& p, const DecodeUnit& u,
                                              int lane) {
  constexpr int kLine = 128, kLines = (2 * kDim + kLine - 1) / kLine;
  const int row = lane / kLines, line = lane % kLines;
  if (row >= u.rows) return;
  const DecodeRow at = row_of(p, u, row);
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p.q + at.query * p.q_row_stride +
                                                at.head * p.q_head_stride + line * kLine));
}

/// Shared memory of a block.
template <class KV, int kDim, int kColumns>
struct DecodeShared {
  using Tile = DecodeTile<KV, kDim>;
  using Sums = DecodeSums<KV, kDim, kColumns>;

  unsigned char* rings;
  DecodeUnit* units;
  float2* sums;      // [warps, rows]
  TeamPart part;     // of the block, where it is in a team
  int32_t* scratch;  // [warps]: the stage of each warp's ring that its values lie in
  int* last;

  static constexpr int kFixed = kUnitsAtOnce * static_cast<int>(sizeof(DecodeUnit)) +
                                Sums::kRows * (4 * kDim + 8) + 4 * kMaxDecodeWarps + 16;
  static constexpr int bytes(int warps) {
    return kFixed + warps * (Tile::kWarpBytes + Sums::kRows * static_cast<int>(sizeof(float2)));
  }
  __device__ __forceinline__ DecodeShared(unsigned char* base, int warps) {
    rings = base;
    base += warps * Tile::kWarpBytes;
    units = reinterpret_cast<DecodeUnit*>(base);
    base += kUnitsAtOnce * sizeof(DecodeUnit);
    part.values = reinterpret_cast<float*>(base);
    base += Sums::kRows * kDim * sizeof(float);
    part.sums = reinterpret_cast<float2*>(base);
    base += Sums::kRows * sizeof(float2);
    sums = reinterpret_cast<float2*>(base);
    base += warps * Sums::kRows * sizeof(float2);
    scratch = reinterpret_cast<int32_t*>(base);
    last = scratch + kMaxDecodeWarps;
  }
  __device__ __forceinline__ unsigned char* stage(int warp, int stage) const {
    return rings + warp * Tile::kWarpBytes + stage * Tile::kStageBytes;
  }
};

/// Zeros from the warp: what no key fills, for NaN times 0 is NaN.
__device__ __forceinline__ void clear(unsigned char* bytes, int count, int lane) {
  auto* words = reinterpret_cast<uint32_t*>(bytes);
  for (int i = lane; i < count / 4; i += 32) words[i] = 0;
  __syncwarp();
}

/// The block's part of a unit is summed up, to output, a slot or its team; all but the last
/// barrier. A warp's values go through the stage of its ring that is free.
template <int kFirst, class T, class KV, int kDim, int kColumns>
__device__ __forceinline__ void combine_steps(const DecodeParams& p, const DecodeUnit& u,
                                              const DecodeState<T, KV, kDim, kColumns>& state,
                                              const DecodeShared<KV, kDim, kColumns>& shared,
                                              float* values, int warps, int lane, bool teamed) {
  using Sums = DecodeSums<KV, kDim, kColumns>;
  if constexpr (kFirst < Sums::kSteps) {
    if constexpr (kFirst > 0) __syncthreads();
    state.template give_values<kFirst>(values, lane);
    __syncthreads();
    combine_warps(
        p, u,
        {.sums = shared.sums,
         .warps = warps,
         .row_begin = 0,
         .rows = Sums::kRows,
         .dim_begin = 16 * kFirst,
         .dims = 16 * Sums::kStepsAtOnce},
        [&](int w, int row, int dim) {
          return reinterpret_cast<const float*>(shared.stage(w, shared.scratch[w])) +
                 Sums::offset(row, dim);
        },
        [&](int row, int dim, float4 sum, float top, float weights) {
          if (!teamed) {
            put_part<T>(p, u, row, dim, sum, top, weights);
            return;
          }
          *reinterpret_cast<float4*>(shared.part.values + row * kDim + dim) = sum;
          if (dim == 0) shared.part.sums[row] = make_float2(top, weights);
        });
    combine_steps<kFirst + Sums::kStepsAtOnce>(p, u, state, shared, values, warps, lane, teamed);
  }
}

template <class T, class KV, int kDim, int kColumns>
__global__ void __launch_bounds__(32 * DecodeThreads<KV, kDim, kColumns>::kWarps,
                                  DecodeThreads<KV, kDim, kColumns>::kBlocks)
    decode_mma(const __grid_constant__ DecodeParams p) {
  using Tile = DecodeTile<KV, kDim>;
  extern __shared__ __align__(128) unsigned char memory[];
  const ops::DecodeWorker worker = p.workers[blockIdx.x];
  const bool teamed = p.teams && worker.team > 1;
  if (worker.begin >= worker.end) {
    // The rest may leave at once: this kernel does not end before its first block.
    if (blockIdx.x == 0) wait_for_predecessor();
    if (teamed) pass_team();
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5,
            warps = static_cast<int>(blockDim.x) >> 5;
  const DecodeShared<KV, kDim, kColumns> shared(memory, warps);
  const DecodeUnit* units = shared.units;
  const uint32_t ring = shared_address(shared.stage(warp, 0));
  if constexpr (kDim % 16 != 0) clear(shared.stage(warp, 0), Tile::kWarpBytes, lane);

  for (int first = 0;; first += kUnitsAtOnce) {
    const int count = list_units(p, worker, first, shared.units);
    if (count == 0) {
      if (first == 0) {
        wait_for_predecessor();
        if (teamed) pass_team();
      }
      return;
    }
    const TileReader<KV, kDim> reader{p, units, count, ring, lane};
    TileCursor ahead{0, units[0].tile_begin + warp};
    ahead.settle(units, count);
    const auto advance = [&](TileCursor& cursor) {
      cursor.tile += warps;
      cursor.settle(units, count);
    };
    int blocks[Tile::kStages];
    {
      TileCursor cursor = ahead;
#pragma unroll
      for (int s = 0; s < Tile::kStages; ++s) {
        blocks[s] = reader.block_of(cursor);
        advance(cursor);
      }
    }
    // The plan and the tables were read, and keys as far as the kernel in front lets them be.
    bool waited = first > 0;
#pragma unroll
    for (int s = 0; s + 1 < Tile::kStages; ++s) {
      if (!waited && !reader.is_settled(ahead, worker.settled != 0)) {
        wait_for_predecessor();
        waited = true;
      }
      reader.ask(ahead, blocks[s], ring + s * Tile::kStageBytes);
      advance(ahead);
    }
    if (!waited) wait_for_predecessor();
    int block = blocks[Tile::kStages - 1];
    int stage = 0, free_stage = Tile::kStages - 1, past = warp;
    for (int i = 0; i < count; ++i) {
      const DecodeUnit& u = units[i];
      DecodeState<T, KV, kDim, kColumns> state;
      state.start(p, u, lane);
      if (p.early_queries && warp == 0 && i + 1 < count) fetch_queries<kDim>(p, units[i + 1], lane);
      int tile = u.tile_begin + past;
      for (; tile < u.tile_end; tile += warps) {
        wait_async<Tile::kStages - 2>();
        __syncwarp();
        reader.ask(ahead, block, ring + free_stage * Tile::kStageBytes);
        advance(ahead);
        block = reader.block_of(ahead);
        const uint32_t k = ring + stage * Tile::kStageBytes;
        uint32_t weight[kColumns][2];
        state.weigh(p, tile, k, lane, weight);
        state.add(k + Tile::kBytes, lane, weight);
        free_stage = stage;
        stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
      }
      past = tile - u.tile_end;
      state.give_sums(shared.sums + warp * DecodeSums<KV, kDim, kColumns>::kRows, lane);
      if (lane == 0) shared.scratch[warp] = free_stage;
      unsigned char* scratch = shared.stage(warp, free_stage);
      combine_steps<0>(p, u, state, shared, reinterpret_cast<float*>(scratch), warps, lane, teamed);
      if (teamed) {  // which has but this unit
        merge_team<T>(p, u, shared.part, worker.team);
        return;
      }
      arrive<T, DecodeThreads<KV, kDim, kColumns>::kPartsAtOnce>(
          p, u, shared.last, [&](int thread) {
            unsigned char* at = shared.stage(thread / 32, shared.scratch[thread / 32]);
            return reinterpret_cast<MergedParts*>(at) + thread % 32;
          });
      if constexpr (kDim % 16 != 0) clear(scratch, Tile::kStageBytes, lane);
    }
    if (count < kUnitsAtOnce) return;
  }
}

/// What leaves room for another block on a multiprocessor.
inline int half_of_shared(const DeviceFacts& facts) {
  constexpr int kReserved = 1024;  // of each block, by the system
  return (facts.shared_bytes + kReserved) / 2 - kReserved;
}

inline int warps_within(int (*bytes)(int), int limit, int most, int fewest) {
  int warps = most;
  while (warps > fewest && bytes(warps) > limit) --warps;
  return warps;
}

/// Whether all clusters find multiprocessors of their own at once. Asked once: the answer is the
/// same for all kernels whose blocks share none.
inline bool clusters_fit(const void* kernel, int clusters, int warps, int shared) {
  static std::atomic<int> most = -1;
  if (most < 0) {
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {ops::kDecodeCluster, 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(clusters * ops::kDecodeCluster));
    config.blockDim = dim3(static_cast<unsigned>(32 * warps));
    config.dynamicSmemBytes = static_cast<size_t>(shared);
    config.attrs = &cluster;
    config.numAttrs = 1;
    int found = 0;
    if (cudaOccupancyMaxActiveClusters(&found, kernel, &config) != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
    }
    most = found;
  }
  return most >= clusters;
}

template <class T, class KV, int kDim, int kColumns>
Status launch_decode_mma(const DecodeParams& p, int32_t workers, const DeviceFacts& facts,
                         cudaStream_t stream) {
  using Shared = DecodeShared<KV, kDim, kColumns>;
  auto* kernel = decode_mma<T, KV, kDim, kColumns>;
  constexpr int kWarps = DecodeThreads<KV, kDim, kColumns>::kWarps;
  const int half = half_of_shared(facts);
  // Beside another kernel's clusters some multiprocessors would get two blocks and others none.
  const int most = warps_within(Shared::bytes, facts.shared_bytes, kWarps, 1);
  int warps = std::min(most, warps_within(Shared::bytes, half, kWarps, 4));
  int bytes = Shared::bytes(warps);
  const int alone = std::max(Shared::bytes(most), half + 1);
  MMCORE_RETURN_IF_ERROR(allow_shared("paged_attention", kernel, std::max(alone, bytes)));
  if (p.teams && clusters_fit(reinterpret_cast<const void*>(kernel), workers / ops::kDecodeCluster,
                              most, alone)) {
    warps = most;
    bytes = alone;
  }
  launch_overlapped_with({.shared = bytes, .cluster = p.teams ? ops::kDecodeCluster : 1}, kernel,
                         workers, dim3(static_cast<unsigned>(32 * warps)), facts.capability,
                         facts.multiprocessors, stream, p);
  return launch_status("paged_attention");
}

/// For up to 8 or up to 16 rows.
template <class T, class KV, int kDim>
Status launch_decode_rows(const DecodeParams& p, int32_t workers, const DeviceFacts& facts,
                          cudaStream_t stream) {
  if constexpr (sizeof(KV) == 1 && kDim == 128) {
    if (p.max_rows <= 8 && std::getenv("MMCORE_DECODE_EIGHT") != nullptr) {
      return launch_decode_mma<T, EightWarps, kDim, 1>(p, workers, facts, stream);
    }
  }
  return p.max_rows <= 8 ? launch_decode_mma<T, KV, kDim, 1>(p, workers, facts, stream)
                         : launch_decode_mma<T, KV, kDim, 2>(p, workers, facts, stream);
}

}  // namespace mmcore::cuda
