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
// way in a multiprocessor, where 3.1 TB/s and a latency of 1 us ask for 24. Most calls over e4m3
// have decode_streams.cuh.
//
// A block takes less than half of a multiprocessor, so that one may begin beside the kernel in
// front: it reads its plan, the tables and the first tiles before that has ended. In clusters,
// which are launched where there may be teams, it takes a multiprocessor to itself.
#pragma once

#include <algorithm>
#include <atomic>

#include "attention/decode_room.h"
#include "attention/decode_state.cuh"
#include "attention/decode_team.cuh"
#include "device/overlap.cuh"
#include "host/launch.h"

namespace mmcore::cuda {

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
__global__ void __launch_bounds__(32 * kMaxDecodeWarps, DecodeThreads<KV, kDim, kColumns>::kBlocks)
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
  const int half = half_of_shared(facts);
  // Beside another kernel's clusters some multiprocessors would get two blocks and others none.
  const int most = warps_within(Shared::bytes, facts.shared_bytes, kMaxDecodeWarps, 1);
  int warps = std::min(most, warps_within(Shared::bytes, half, kMaxDecodeWarps, 4));
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
  return p.max_rows <= 8 ? launch_decode_mma<T, KV, kDim, 1>(p, workers, facts, stream)
                         : launch_decode_mma<T, KV, kDim, 2>(p, workers, facts, stream);
}

}  // namespace mmcore::cuda
