// Decode over e4m3 where each warp has keys of its own.
//
// The tiles of a worker's units, one behind the other, are cut into one stretch a warp. A warp goes
// on to its next unit without waiting for anyone: what lies whole within its stretch it writes
// itself, what it shares with other warps it leaves in shared memory until all have come to their
// ends. Then the others read while one is between units, and a block that has many units has no
// barrier between them: where all warps share each unit (decode_mma.cuh), its end costs 2.6 us with
// nothing to read, 16 bits 1.0. Blocks of a team merge through the workspace here.
#pragma once

#include <algorithm>

#include "attention/decode_mma.cuh"
#include "attention/decode_room.h"
#include "attention/decode_stream_parts.cuh"
#include "attention/decode_stream_reader.cuh"
#include "device/overlap.cuh"
#include "host/launch.h"

namespace mmcore::cuda {

template <class T, class KV, int kDim, int kColumns, class Shape>
__global__ void __launch_bounds__(32 * Shape::kWarps, Shape::kBlocks)
    decode_streams(const __grid_constant__ DecodeParams p) {
  using Tile = DecodeTile<KV, kDim>;
  using Shared = StreamShared<KV, kDim, kColumns, Shape>;
  constexpr int kStages = Shape::kStages;
  extern __shared__ __align__(128) unsigned char memory[];
  const ops::DecodeWorker worker = p.workers[blockIdx.x];
  if (worker.begin >= worker.end) {
    // The rest may leave at once: this kernel does not end before its first block.
    if (blockIdx.x == 0) wait_for_predecessor();
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5,
            warps = static_cast<int>(blockDim.x) >> 5;
  const Shared shared(memory, warps);
  unsigned char* own = shared.rings + warp * Shared::kRingBytes;
  const uint32_t ring = shared_address(own);

  for (int first = 0;; first += kUnitsAtOnce) {
    const int count = list_units(p, worker, first, shared.units);
    if (count == 0) {
      if (first == 0) wait_for_predecessor();
      return;
    }
    shared.number_tiles(count);
    if constexpr (kDim % 16 != 0) clear(own, Shared::kRingBytes, lane);
    __syncthreads();
    const int all = shared.starts[count], busy = min(warps, all);
    int position = all * min(warp, busy) / busy;
    const int end = all * min(warp + 1, busy) / busy;
    StreamReader<KV, kDim> reader(p, shared.units, shared.starts, count, position, end, lane);
    // The plan and the tables were read, and keys as far as the kernel in front lets them be.
    bool waited = first > 0;
#pragma unroll
    for (int s = 0; s + 1 < kStages; ++s) {
      if (!waited && !reader.is_settled(worker.settled != 0)) {
        wait_for_predecessor();
        waited = true;
      }
      reader.ask(ring + s * Tile::kStageBytes);
    }
    if (!waited) wait_for_predecessor();

    int stage = 0, free_stage = kStages - 1, cut = -1, i = 0;
    if (position < end) {
      while (position >= shared.starts[i + 1]) ++i;
    }
    for (; position < end; ++i) {
      const DecodeUnit& u = shared.units[i];
      int tile = u.tile_begin + position - shared.starts[i];
      const int tile_end = min(u.tile_end, tile + end - position);
      const bool begins = tile == u.tile_begin, whole = begins && tile_end == u.tile_end;
      position += tile_end - tile;
      DecodeState<T, KV, kDim, kColumns> state;
      state.start(p, u, lane);
      for (; tile < tile_end; ++tile) {
        wait_async<kStages - 2>();
        __syncwarp();
        reader.ask(ring + free_stage * Tile::kStageBytes);
        const uint32_t k = ring + stage * Tile::kStageBytes;
        uint32_t weight[kColumns][2];
        state.weigh(p, tile, k, lane, weight);
        state.add(k + Tile::kBytes, lane, weight);
        free_stage = stage;
        stage = stage + 1 == kStages ? 0 : stage + 1;
      }
      if (whole) {
        write_unit<T>(p, u, state, lane);
      } else {
        if (begins) cut = i;
        __syncwarp();  // the ring has been read
        leave_part<Shared>(shared.part(warp, begins), shared.sums_of(warp, begins), state, lane);
      }
    }
    if (lane == 0) {
      shared.ends[warp] = end;
      shared.cuts[warp] = cut;
    }
    __syncthreads();
    merge_warps<T>(p, shared, warps, warp, lane);
    const auto arrive_with = [&](const DecodeUnit& u) {
      arrive<T, 8>(p, u, shared.last, [&](int thread) {
        return reinterpret_cast<MergedParts*>(shared.rings + thread / 32 * Shared::kRingBytes) +
               thread % 32;
      });
    };
    // Of the listed units other workers may have parts of the first and of the last.
    if (shared.units[0].parts > 1) arrive_with(shared.units[0]);
    if (count > 1 && shared.units[count - 1].parts > 1) arrive_with(shared.units[count - 1]);
    if (count < kUnitsAtOnce) return;
  }
}

template <class T, class KV, int kDim, int kColumns, class Shape>
Status launch_streams(const DecodeParams& p, int32_t workers, const DeviceFacts& facts,
                      cudaStream_t stream) {
  using Shared = StreamShared<KV, kDim, kColumns, Shape>;
  auto* kernel = decode_streams<T, KV, kDim, kColumns, Shape>;
  const int half = half_of_shared(facts);
  const int limit = Shape::kBlocks > 1 ? half : facts.shared_bytes;
  const int warps = warps_within(Shared::bytes, limit, Shape::kWarps, 1);
  const int bytes =
      Shape::kBlocks > 1 ? Shared::bytes(warps) : std::max(Shared::bytes(warps), half + 1);
  MMCORE_RETURN_IF_ERROR(allow_shared("paged_attention", kernel, bytes));
  launch_overlapped_with({.shared = bytes}, kernel, workers,
                         dim3(static_cast<unsigned>(32 * warps)), facts.capability,
                         facts.multiprocessors, stream, p);
  return launch_status("paged_attention");
}

/// Stages and warps as measured. Many: a multiprocessor to itself, from which a block of many keys
/// reads soonest. Few: beside such a block the next call's may begin, which is worth more to a
/// short one; of up to 8 rows.
template <int kDim, int kColumns>
struct StreamShapes {
  static constexpr int kManyWarps = kDim <= 64 || (kDim <= 96 && kColumns == 1) ? 12 : 8;
  using Many = StreamShape<kDim <= 128 ? 4 : 3, kManyWarps, 1>;
  using Few = StreamShape<kDim <= 96 ? 4 : 3, kDim <= 64 ? 8 : 6, 2>;
};

/// For up to 8 or up to 16 rows.
template <class T, int kDim>
Status launch_decode_float8(const DecodeParams& p, int64_t all_units, int32_t workers,
                            const DeviceFacts& facts, cudaStream_t stream) {
  using KV = __nv_fp8_e4m3;
  if (p.max_rows > 8) {
    // More registers than there are would be needed for 256 dims.
    if (p.teams || kDim > 128) {
      return launch_decode_mma<T, KV, kDim, 2>(p, workers, facts, stream);
    }
    if constexpr (kDim <= 128) {
      using Many = typename StreamShapes<kDim, 2>::Many;
      return launch_streams<T, KV, kDim, 2, Many>(p, workers, facts, stream);
    }
  }
  if constexpr (kDim != 128) {
    // Smaller heads leave a worker of a team too little to read for a merge through memory.
    if (p.teams) return launch_decode_mma<T, KV, kDim, 1>(p, workers, facts, stream);
  }
  if constexpr (kDim <= 128) {
    if (kDim == 128 ? p.teams : all_units <= workers) {
      using Few = typename StreamShapes<kDim, 1>::Few;
      return launch_streams<T, KV, kDim, 1, Few>(p, workers, facts, stream);
    }
  }
  using Many = typename StreamShapes<kDim, 1>::Many;
  return launch_streams<T, KV, kDim, 1, Many>(p, workers, facts, stream);
}

}  // namespace mmcore::cuda
