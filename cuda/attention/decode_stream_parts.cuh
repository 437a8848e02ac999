// What warps with stretches of their own have in shared memory, and where their sums go.
#pragma once

#include "attention/decode_state.cuh"
#include "attention/decode_unit.cuh"

namespace mmcore::cuda {

template <int kTheStages, int kTheWarps, int kTheBlocks>
struct StreamShape {
  static constexpr int kStages = kTheStages;
  static constexpr int kWarps = kTheWarps;
  static constexpr int kBlocks = kTheBlocks;  // that a multiprocessor has room for
};

/// Shared memory of a block.
template <class KV, int kDim, int kColumns, class Shape>
struct StreamShared {
  using Tile = DecodeTile<KV, kDim>;
  static constexpr int kRows = 8 * kColumns;
  static constexpr int kPitch = 16 * Tile::kSteps + 4;  // of a part's rows: no bank twice
  static constexpr int kPartBytes = kRows * kPitch * static_cast<int>(sizeof(float));
  static constexpr int kRingBytes = Shape::kStages * Tile::kStageBytes;
  static_assert(kPartBytes <= kRingBytes);

  unsigned char* rings;  // [warps]; at the end: the part that a warp's stretch ends in
  unsigned char* heads;  // [warps]: the part that a warp's stretch begins in
  float2* sums;          // [warps, 2, rows]: of both parts
  DecodeUnit* units;
  int32_t* starts;  // [units + 1]: where a unit's tiles begin among all
  int32_t* ends;    // [warps]: of the stretches
  int32_t* cuts;    // [warps]: the unit that the warp has the first part of; -1
  int* last;

  static constexpr int kFixed = kUnitsAtOnce * static_cast<int>(sizeof(DecodeUnit)) +
                                4 * (kUnitsAtOnce + 4) + 8 * Shape::kWarps + 16;
  static constexpr int bytes(int warps) {
    return kFixed +
           warps * (kRingBytes + kPartBytes + 2 * kRows * static_cast<int>(sizeof(float2)));
  }
  __device__ __forceinline__ StreamShared(unsigned char* base, int warps) {
    rings = base;
    base += warps * kRingBytes;
    heads = base;
    base += warps * kPartBytes;
    sums = reinterpret_cast<float2*>(base);
    base += warps * 2 * kRows * sizeof(float2);
    units = reinterpret_cast<DecodeUnit*>(base);
    base += kUnitsAtOnce * sizeof(DecodeUnit);
    starts = reinterpret_cast<int32_t*>(base);
    ends = starts + kUnitsAtOnce + 4;
    cuts = ends + Shape::kWarps;
    last = cuts + Shape::kWarps;
  }
  __device__ __forceinline__ float* part(int warp, bool first) const {
    return reinterpret_cast<float*>(first ? rings + warp * kRingBytes : heads + warp * kPartBytes);
  }
  __device__ __forceinline__ float2* sums_of(int warp, bool first) const {
    return sums + (2 * warp + (first ? 1 : 0)) * kRows;
  }
  /// Sums up the units' tiles. Seen by all behind the next barrier.
  __device__ __forceinline__ void number_tiles(int count) const {
    if (threadIdx.x >= 32) return;
    const int i = static_cast<int>(threadIdx.x);
    int sum = i < count ? units[i].tile_end - units[i].tile_begin : 0;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int before = __shfl_up_sync(kFullWarp, sum, step);
      if (i >= step) sum += before;
    }
    starts[i + 1] = sum;
    if (i == 0) starts[0] = 0;
  }
};

/// A warp's sums of a unit that is all its own: to the output, or the worker's slot.
template <class T, class KV, int kDim, int kColumns>
__device__ __forceinline__ void write_unit(const DecodeParams& p, const DecodeUnit& u,
                                           const DecodeState<T, KV, kDim, kColumns>& state,
                                           int lane) {
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const float weights = state.sum_of_weights(n, c);
      const int row = 8 * n + 2 * (lane % 4) + c;
      if (row < u.rows && u.parts == 1) {
        const float r = weights > 0 ? p.v_scale / weights : 0.0f;
        const DecodeRow at = row_of(p, u, row);
        auto* to =
            reinterpret_cast<T*>(p.out + at.query * p.out_row_stride + at.head * p.out_head_stride);
        state.each_pair(n, c, lane, [&](int dim, float2 x) {
          *reinterpret_cast<uint32_t*>(to + dim) = packed<T>(r * x.x, r * x.y);
        });
      } else if (row < u.rows) {
        const int64_t at =
            int64_t{ops::partial_slot(static_cast<int32_t>(blockIdx.x), u.first_worker)} *
                p.max_rows +
            row;
        state.each_pair(n, c, lane, [&](int dim, float2 x) {
          __stcg(reinterpret_cast<float2*>(p.partials + at * kDim + dim), x);
        });
        if (lane < 4) __stcg(p.partial_sums + at, make_float2(state.top[n][c], weights));
      }
    }
  }
}

/// A warp's sums of a unit that it shares with other warps: to shared memory.
template <class Shared, class T, class KV, int kDim, int kColumns>
__device__ __forceinline__ void leave_part(float* values, float2* sums,
                                           const DecodeState<T, KV, kDim, kColumns>& state,
                                           int lane) {
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const float weights = state.sum_of_weights(n, c);
      const int row = 8 * n + 2 * (lane % 4) + c;
      if (lane < 4) sums[row] = make_float2(state.top[n][c], weights);
      state.each_pair(n, c, lane, [&](int dim, float2 x) {
        *reinterpret_cast<float2*>(values + row * Shared::kPitch + dim) = x;
      });
    }
  }
}

/// Adds up what several warps have of a unit; a warp takes a row at a time.
template <class T, class KV, int kDim, int kColumns, class Shape>
__device__ __forceinline__ void merge_warps(const DecodeParams& p,
                                            const StreamShared<KV, kDim, kColumns, Shape>& shared,
                                            int warps, int warp, int lane) {
  using Shared = StreamShared<KV, kDim, kColumns, Shape>;
  int turn = warp;
  for (int w = 0; w < warps; ++w) {
    const int i = shared.cuts[w];
    if (i < 0) continue;
    const DecodeUnit& u = shared.units[i];
    int last = w + 1;
    while (shared.ends[last] < shared.starts[i + 1]) ++last;
    for (; turn < u.rows; turn += warps) {
      const int row = turn;
      float top = kNoScore;
      for (int x = w; x <= last; ++x) top = fmaxf(top, shared.sums_of(x, x == w)[row].x);
      for (int dim = 4 * lane; dim < kDim; dim += 128) {
        float4 sum{};
        float weights = 0;
        for (int x = w; x <= last; ++x) {
          const float2 of_warp = shared.sums_of(x, x == w)[row];
          const float factor = exp2f(of_warp.x - top);
          const auto values =
              *reinterpret_cast<const float4*>(shared.part(x, x == w) + row * Shared::kPitch + dim);
          sum.x += factor * values.x;
          sum.y += factor * values.y;
          sum.z += factor * values.z;
          sum.w += factor * values.w;
          weights += factor * of_warp.y;
        }
        put_part<T>(p, u, row, dim, sum, top, weights);
      }
    }
    turn -= u.rows;
  }
}

}  // namespace mmcore::cuda
