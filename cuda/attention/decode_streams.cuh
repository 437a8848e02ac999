// Decode over e4m3 where each warp has keys of its own.
//
// The tiles of a worker's units, one behind the other, are cut into one stretch a warp. A warp goes
// on to its next unit without waiting for anyone: what lies whole within its stretch it writes
// itself, what it shares with other warps it leaves in shared memory until all have come to their
// ends. Then the others read while one is between units, and a block that has many units has no
// barrier between them.
#pragma once

#include <algorithm>
#include <cstdlib>

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

/// What is measured to be best: many keys are read soonest by a block that has a multiprocessor to
/// itself, few by one beside which the next call's block begins.
template <int kDim, int kColumns>
struct StreamShapes {
  static constexpr bool kNarrow = kDim <= 96;
  static constexpr int kManyWarps = kNarrow && (kDim <= 64 || kColumns == 1) ? 12 : 8;
  using Many = StreamShape<kNarrow ? 4 : 3, kManyWarps, 1>;
  using Few = std::conditional_t<(kColumns > 1 || kDim > 128), Many,
                                 StreamShape<kNarrow ? 4 : 3, kDim <= 64 ? 8 : 6, 2>>;
};

inline int decode_variant() {
  const char* text = std::getenv("MMCORE_DECODE_VARIANT");
  return text == nullptr ? -1 : std::atoi(text);
}

template <class T, int kDim, int kColumns>
Status launch_stream_rows(const DecodeParams& p, int32_t workers, const DeviceFacts& facts,
                          cudaStream_t stream) {
  using KV = __nv_fp8_e4m3;
  using Shapes = StreamShapes<kDim, kColumns>;
  if constexpr (std::is_same_v<T, __nv_bfloat16> && (kDim == 128 || kDim == 64) && kColumns == 1) {
    constexpr bool kNarrow = kDim == 64;
    const auto launch = [&]<class Shape>(Shape) {
      return launch_streams<T, KV, kDim, kColumns, Shape>(p, workers, facts, stream);
    };
    switch (decode_variant()) {
      case 0:
        return launch_decode_rows<T, KV, kDim>(p, workers, facts, stream);
      case 1:
        return launch(typename Shapes::Few{});
      case 2:
        return launch(typename Shapes::Many{});
      case 3:
        return launch(std::conditional_t<kNarrow, StreamShape<3, 12, 1>, StreamShape<4, 8, 1>>{});
      case 4:
        return launch(std::conditional_t<kNarrow, StreamShape<6, 12, 1>, StreamShape<5, 8, 1>>{});
      case 5:
        return launch(std::conditional_t<kNarrow, StreamShape<4, 16, 1>, StreamShape<3, 10, 1>>{});
      case 6:
        return launch(std::conditional_t<kNarrow, StreamShape<3, 16, 1>, StreamShape<4, 7, 1>>{});
      default:
        break;
    }
  }
  return p.teams ? launch_streams<T, KV, kDim, kColumns, typename Shapes::Few>(p, workers, facts,
                                                                               stream)
                 : launch_streams<T, KV, kDim, kColumns, typename Shapes::Many>(p, workers, facts,
                                                                                stream);
}

/// For up to 8 or up to 16 rows.
template <class T, int kDim>
Status launch_decode_float8(const DecodeParams& p, int32_t workers, const DeviceFacts& facts,
                            cudaStream_t stream) {
  return p.max_rows <= 8 ? launch_stream_rows<T, kDim, 1>(p, workers, facts, stream)
                         : launch_stream_rows<T, kDim, 2>(p, workers, facts, stream);
}

}  // namespace mmcore::cuda
