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
// 8 warps with 3 stages of 8 KiB at head dim 128: up to 192 KiB under way in a multiprocessor.
// A tile takes a warp some 500 cycles and the memory 590 (3.1 TB/s over 132 multiprocessors at 1.7
// GHz), so that two warps would keep up; the rest is for latency.
#pragma once

#include "attention/decode_tile.cuh"
#include "attention/decode_unit.cuh"
#include "device/overlap.cuh"
#include "host/launch.h"

namespace mmcore::cuda {

inline constexpr int kMaxDecodeWarps = 8;

/// How sums of kColumns * 8 rows go through shared memory: some steps of 16 dims at a time.
template <int kDim, int kColumns>
struct DecodeSums {
  static constexpr int kSteps = (kDim + 15) / 16;
  static constexpr int kStepsAtOnce = kSteps < 4 / kColumns ? kSteps : 4 / kColumns;
  static constexpr int kStride = kStepsAtOnce * 16 + 4;  // + 4: no bank conflicts
  static constexpr int kRows = 8 * kColumns;
  static constexpr int kWarpBytes = kRows * (kStride * 4 + 8);
};

/// Sums of 8 kColumns query rows over the tiles of a warp. Column c of step n (rows 8 n + 2 (lane %
/// 4) + c) is this thread's where it holds sums.
template <class T, class KV, int kDim, int kColumns>
struct DecodeState {
  using Tile = DecodeTile<KV, kDim>;
  // Weights and values are multiplied as this: e4m3 is exact in both, weights are finer in __half.
  using Value = std::conditional_t<sizeof(KV) == 1, __half, T>;
  using Sums = DecodeSums<kDim, kColumns>;

  uint32_t q[Tile::kSteps][kColumns][2];
  float out[Tile::kSteps][kColumns][4];
  float top[kColumns][2];
  float weights[kColumns][2];  // of this thread's keys
  int begin[kColumns][2];
  int end[kColumns][2];
  int all_begin, all_end;  // keys that all rows see

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
                              ? __ldg(reinterpret_cast<const uint32_t*>(from + 2 * dim))
                              : 0u;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) out[s][n][i] = 0;
      }
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

  __device__ __forceinline__ void add(const DecodeParams& p, int tile, uint32_t k, uint32_t v,
                                      int lane) {
    const int key = tile * Tile::kKeys;
    float x[kColumns][4];
    {
      float sums[2][kColumns][4] = {};  // two chains: a multiplication waits for the one before
#pragma unroll
      for (int s = 0; s < Tile::kSteps; ++s) {
        uint32_t keys[4];
        load_keys<T, KV, kDim>(keys, k, s, lane);
#pragma unroll
        for (int n = 0; n < kColumns; ++n) multiply<T>(sums[s & 1][n], keys, q[s][n]);
      }
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) x[n][i] = score(p, sums[0][n][i] + sums[1][n][i]);
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
    uint32_t weight[kColumns][2];
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
#pragma unroll
    for (int s = 0; s < Tile::kSteps; ++s) {
      uint32_t values[4];
      load_values<Value, KV, kDim>(values, v, s, lane);
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

  /// Steps [kFirst, kFirst + kStepsAtOnce) to values[row * kStride + dim].
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
          values[row * Sums::kStride + dim] = out[s][n][i];
        }
      }
    }
  }
};

/// Shared memory of a block.
template <class KV, int kDim, int kColumns>
struct DecodeShared {
  unsigned char* rings;
  DecodeUnit* units;
  float2* sums;
  float* values;
  int* last;

  static constexpr int kFixed = kUnitsAtOnce * static_cast<int>(sizeof(DecodeUnit)) + 16;
  static constexpr int bytes(int warps) {
    return kFixed +
           warps * (DecodeTile<KV, kDim>::kWarpBytes + DecodeSums<kDim, kColumns>::kWarpBytes);
  }
  __device__ __forceinline__ DecodeShared(unsigned char* base, int warps) {
    using Sums = DecodeSums<kDim, kColumns>;
    rings = base;
    base += warps * DecodeTile<KV, kDim>::kWarpBytes;
    units = reinterpret_cast<DecodeUnit*>(base);
    base += kUnitsAtOnce * sizeof(DecodeUnit);
    values = reinterpret_cast<float*>(base);
    base += warps * Sums::kRows * Sums::kStride * sizeof(float);
    sums = reinterpret_cast<float2*>(base);
    base += warps * Sums::kRows * sizeof(float2);
    last = reinterpret_cast<int*>(base);
  }
};

/// The block's part of a unit is summed up: to output or a slot.
template <int kFirst, class T, class KV, int kDim, int kColumns>
__device__ __forceinline__ void combine_steps(const DecodeParams& p, const DecodeUnit& u,
                                              const DecodeState<T, KV, kDim, kColumns>& state,
                                              const DecodeShared<KV, kDim, kColumns>& shared,
                                              int warp, int warps, int lane) {
  using Sums = DecodeSums<kDim, kColumns>;
  if constexpr (kFirst < Sums::kSteps) {
    state.template give_values<kFirst>(shared.values + warp * Sums::kRows * Sums::kStride, lane);
    __syncthreads();
    combine_warps<T>(p, u,
                     {.values = shared.values,
                      .sums = shared.sums,
                      .warps = warps,
                      .row_begin = 0,
                      .rows = Sums::kRows,
                      .stride = Sums::kStride,
                      .sum_rows = Sums::kRows,
                      .dim_begin = 16 * kFirst,
                      .dims = 16 * Sums::kStepsAtOnce});
    __syncthreads();
    combine_steps<kFirst + Sums::kStepsAtOnce>(p, u, state, shared, warp, warps, lane);
  }
}

template <class T, class KV, int kDim, int kColumns>
__global__ void __launch_bounds__(32 * kMaxDecodeWarps, 1)
    decode_mma(const __grid_constant__ DecodeParams p) {
  using Tile = DecodeTile<KV, kDim>;
  extern __shared__ __align__(128) unsigned char memory[];
  const ops::DecodeWorker worker = p.workers[blockIdx.x];
  if (worker.begin >= worker.end) {
    wait_for_predecessor();
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5,
            warps = static_cast<int>(blockDim.x) >> 5;
  const DecodeShared<KV, kDim, kColumns> shared(memory, warps);
  const DecodeUnit* units = shared.units;
  const uint32_t ring = shared_address(shared.rings + warp * Tile::kWarpBytes);
  if constexpr (kDim % 16 != 0) {  // what no key fills: zeros, for NaN times 0 is NaN
    auto* words = reinterpret_cast<uint32_t*>(shared.rings + warp * Tile::kWarpBytes);
    for (int i = lane; i < Tile::kWarpBytes / 4; i += 32) words[i] = 0;
    __syncwarp();
  }

  for (int first = 0;; first += kUnitsAtOnce) {
    const int count = list_units(p, worker, first, shared.units);
    if (count == 0) {
      if (first == 0) wait_for_predecessor();
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
    if (first == 0) wait_for_predecessor();  // so far only the plan and the tables were read
#pragma unroll
    for (int s = 0; s + 1 < Tile::kStages; ++s) {
      reader.ask(ahead, blocks[s], s);
      advance(ahead);
    }
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
        reader.ask(ahead, block, free_stage);
        advance(ahead);
        block = reader.block_of(ahead);
        const uint32_t k = ring + stage * (2 * Tile::kBytes);
        state.add(p, tile, k, k + Tile::kBytes, lane);
        free_stage = stage;
        stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
      }
      past = tile - u.tile_end;
      state.give_sums(shared.sums + warp * DecodeSums<kDim, kColumns>::kRows, lane);
      combine_steps<0>(p, u, state, shared, warp, warps, lane);
      arrive<T>(p, u, shared.last);
    }
    if (count < kUnitsAtOnce) return;
  }
}

template <class T, class KV, int kDim, int kColumns>
Status launch_decode_mma(const DecodeParams& p, int32_t workers, const DeviceFacts& facts,
                         cudaStream_t stream) {
  using Shared = DecodeShared<KV, kDim, kColumns>;
  int warps = kMaxDecodeWarps;
  while (warps > 1 && Shared::bytes(warps) > facts.shared_bytes) --warps;
  const int bytes = Shared::bytes(warps);
  auto* kernel = decode_mma<T, KV, kDim, kColumns>;
  MMCORE_RETURN_IF_ERROR(allow_shared("paged_attention", kernel, bytes));
  launch_overlapped_shared(kernel, workers, dim3(static_cast<unsigned>(32 * warps)), bytes,
                           facts.capability, facts.multiprocessors, stream, p);
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
