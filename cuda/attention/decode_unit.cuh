// A worker's units, and what becomes of their sums: output, or partial results and their merge.
//
// Partial results. A unit whose keys several workers share has one slot of the workspace from each
// of them. Each worker writes its slot, then counts itself in; the last one reads all slots, in the
// order of the workers whoever came last, so that the result's bits do not depend on timing, writes
// the output and sets the count back to 0. Nobody waits for anybody: a worker alone on the GPU
// would finish. A second kernel for the merge would cost another launch, 2 to 4 us.
#pragma once

#include <type_traits>

#include "attention/decode_params.h"
#include "device/convert.cuh"
#include "device/vec.cuh"

namespace mmcore::cuda {

/// Units that a block looks at in one go.
inline constexpr int kUnitsAtOnce = 32;
/// Scores in base 2 begin here: lower than any, but finite.
inline constexpr float kNoScore = -1e30f;

/// A worker's part of a unit, spelt out.
struct alignas(16) DecodeUnit {
  int32_t sequence;
  int32_t kv_head;
  int32_t first_row;  // of q and out
  int32_t queries;
  int32_t keys;
  int32_t key_begin;
  int32_t tile_begin;  // in cells
  int32_t tile_end;
  int32_t row_begin;  // of the rows (query token, head of the group) that its key/value head has
  int32_t rows;
  int32_t first_worker;
  int32_t parts;
};

/// Where row `row` of a unit is, and the keys [begin, end) that it sees.
struct DecodeRow {
  int64_t query;
  int32_t head;
  int32_t begin;
  int32_t end;
};

__device__ __forceinline__ DecodeRow row_of(const DecodeParams& p, const DecodeUnit& u,
                                            int32_t row) {
  const int32_t r = u.row_begin + row;
  const int32_t token = r / p.group;
  const int32_t position = u.keys - u.queries + token;
  return {.query = int64_t{u.first_row} + token,
          .head = u.kv_head * p.group + (r - token * p.group),
          .begin = p.window > 0 ? max(0, position - p.window + 1) : 0,
          .end = p.causal ? position + 1 : u.keys};
}

/// Fills units[0 .. kUnitsAtOnce) from the worker's unit `first` on and returns how many there are,
/// to all threads. All of a block call it.
__device__ __forceinline__ int list_units(const DecodeParams& p, const ops::DecodeWorker& worker,
                                          int first, DecodeUnit* units) {
  bool found = false;
  __syncthreads();  // the units before are done with
  if (threadIdx.x < kUnitsAtOnce) {
    int32_t unit = worker.unit + first + static_cast<int32_t>(threadIdx.x);
    const int32_t skipped = unit / p.units;
    unit -= skipped * p.units;
    const int32_t index = worker.index + skipped;
    if (index < worker.sequences) {
      const ops::DecodeSequence s = skipped == 0 ? worker.first : p.sequences[index];
      const ops::DecodePart part = ops::decode_part(worker, s, unit);
      found = part.cell_begin < part.cell_end;
      const int32_t packs = ops::packs_of(p.group);
      const int32_t row_begin = unit % packs * ops::kDecodeRows;
      units[threadIdx.x] = {.sequence = s.sequence,
                            .kv_head = unit / packs,
                            .first_row = s.first_row,
                            .queries = s.queries,
                            .keys = s.keys,
                            .key_begin = s.key_begin,
                            .tile_begin = part.cell_begin,
                            .tile_end = part.cell_end,
                            .row_begin = row_begin,
                            .rows = min(ops::kDecodeRows, s.queries * p.group - row_begin),
                            .first_worker = part.first_worker,
                            .parts = part.parts};
    }
  }
  return __syncthreads_count(found);
}

/// 8-byte aligned for 16-bit types.
template <class T>
__device__ __forceinline__ void store4(char* to, float4 x) {
  store(to, Vec<T, 4>{
                {from_float<T>(x.x), from_float<T>(x.y), from_float<T>(x.z), from_float<T>(x.w)}});
}

/// Any type, any alignment.
__device__ __forceinline__ void store4(char* to, float4 x, DType dtype) {
  const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (dtype == DType::kFloat32) {
      reinterpret_cast<float*>(to)[i] = values[i];
    } else if (dtype == DType::kBFloat16) {
      reinterpret_cast<__nv_bfloat16*>(to)[i] = from_float<__nv_bfloat16>(values[i]);
    } else {
      reinterpret_cast<__half*>(to)[i] = from_float<__half>(values[i]);
    }
  }
}

/// Writes output elements [dim, dim + 4) of a unit's row. T void: as params say.
template <class T>
__device__ __forceinline__ void write_output(const DecodeParams& p, const DecodeUnit& u, int row,
                                             int dim, float4 sum, float weights) {
  const float r = weights > 0 ? p.v_scale / weights : 0.0f;
  sum = {sum.x * r, sum.y * r, sum.z * r, sum.w * r};
  const DecodeRow at = row_of(p, u, row);
  char* to = p.out + at.query * p.out_row_stride + at.head * p.out_head_stride;
  if constexpr (std::is_void_v<T>) {
    store4(to + dim * (p.dtype == DType::kFloat32 ? 4 : 2), sum, p.dtype);
  } else {
    store4<T>(to + dim * static_cast<int>(sizeof(T)), sum);
  }
}

/// Sums of weighted values that the warps of a block have in shared memory.
struct WarpSums {
  const float2* sums;  // [warps, rows]: maximum, sum of weights
  int warps;
  int row_begin;  // of the unit's rows
  int rows;
  int dim_begin;  // values: dims [dim_begin, dim_begin + dims) of each row
  int dims;
};

/// Adds up the warps' sums. put(row, dim, values from dim on, maximum, sum of weights).
/// values_of(warp, row, dim): where the warp's values from dim_begin + dim on are.
template <class ValuesOf, class Put>
__device__ __forceinline__ void combine_warps(const DecodeParams& p, const DecodeUnit& u,
                                              const WarpSums& s, ValuesOf values_of, Put put) {
  const int quads = s.dims / 4;
  for (int i = static_cast<int>(threadIdx.x); i < s.rows * quads;
       i += static_cast<int>(blockDim.x)) {
    const int r = i / quads, row = s.row_begin + r, dim = s.dim_begin + (i - r * quads) * 4;
    if (row >= u.rows || dim >= p.head_dim) continue;
    float top = kNoScore;
    for (int w = 0; w < s.warps; ++w) top = fmaxf(top, s.sums[w * s.rows + r].x);
    float4 sum{};
    float weights = 0;
#pragma unroll 4
    for (int w = 0; w < s.warps; ++w) {
      const float2 of_warp = s.sums[w * s.rows + r];
      const float factor = exp2f(of_warp.x - top);
      const auto x = *reinterpret_cast<const float4*>(values_of(w, r, dim - s.dim_begin));
      sum.x += factor * x.x;
      sum.y += factor * x.y;
      sum.z += factor * x.z;
      sum.w += factor * x.w;
      weights += factor * of_warp.y;
    }
    put(row, dim, sum, top, weights);
  }
}

/// A block's part of a row: to output if it is the whole, else to the block's slot.
template <class T>
__device__ __forceinline__ void put_part(const DecodeParams& p, const DecodeUnit& u, int row,
                                         int dim, float4 sum, float top, float weights) {
  if (u.parts == 1) {
    write_output<T>(p, u, row, dim, sum, weights);
    return;
  }
  const auto worker = static_cast<int32_t>(blockIdx.x);
  const int64_t at = int64_t{ops::partial_slot(worker, u.first_worker)} * p.max_rows + row;
  __stcg(reinterpret_cast<float4*>(p.partials + at * p.head_dim + dim), sum);
  if (dim == 0) __stcg(p.partial_sums + at, make_float2(top, weights));
}

/// Some parts of a row's four values, added up.
struct MergedParts {
  float4 sum{};
  float top = kNoScore;
  float weights = 0;

  __device__ __forceinline__ void scale_to(float higher) {
    const float keep = exp2f(top - higher);
    top = higher;
    sum = {sum.x * keep, sum.y * keep, sum.z * keep, sum.w * keep};
    weights *= keep;
  }
  __device__ __forceinline__ void add(float4 x, float2 of_part) {
    const float factor = exp2f(of_part.x - top);
    sum.x += factor * x.x;
    sum.y += factor * x.y;
    sum.z += factor * x.z;
    sum.w += factor * x.w;
    weights += factor * of_part.y;
  }
};

/// Each `step`-th part from `first` on, kAtOnce at a time to have many loads under way.
template <int kAtOnce>
__device__ __forceinline__ MergedParts read_parts(const DecodeParams& p, const DecodeUnit& u,
                                                  int row, int dim, int first, int step) {
  MergedParts merged;
  for (; first < u.parts; first += kAtOnce * step) {
    float2 of_part[kAtOnce];
    float4 x[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      of_part[k] = make_float2(kNoScore, 0.0f);
      x[k] = float4{};
      const int part = first + k * step;
      if (part < u.parts) {
        const int64_t at =
            int64_t{ops::partial_slot(u.first_worker + part, u.first_worker)} * p.max_rows + row;
        of_part[k] = __ldcg(p.partial_sums + at);
        x[k] = __ldcg(reinterpret_cast<const float4*>(p.partials + at * p.head_dim + dim));
      }
    }
    float higher = merged.top;
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) higher = fmaxf(higher, of_part[k].x);
    merged.scale_to(higher);
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) merged.add(x[k], of_part[k]);
  }
  return merged;
}

/// Reads the slots of all parts and writes the output. Threads that a row's values leave over share
/// the parts; what they have meets in shared memory: scratch_of(thread) is where a thread may put a
/// MergedParts. All of a block call it.
template <class T, int kAtOnce, class ScratchOf>
__device__ __forceinline__ void merge_parts(const DecodeParams& p, const DecodeUnit& u,
                                            ScratchOf scratch_of) {
  const int quads = p.head_dim / 4, items = u.rows * quads;
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  const int groups = min(threads / items, u.parts);
  if (groups <= 1) {
    for (int i = thread; i < items; i += threads) {
      const int row = i / quads, dim = (i - row * quads) * 4;
      const MergedParts merged = read_parts<kAtOnce>(p, u, row, dim, 0, 1);
      write_output<T>(p, u, row, dim, merged.sum, merged.weights);
    }
    return;
  }
  const int group = thread / items, i = thread - group * items;
  const int row = i / quads, dim = (i - row * quads) * 4;
  if (group < groups) *scratch_of(thread) = read_parts<kAtOnce>(p, u, row, dim, group, groups);
  __syncthreads();
  if (group == 0) {
    MergedParts merged = *scratch_of(thread);
    for (int g = 1; g < groups; ++g) {
      const MergedParts other = *scratch_of(thread + g * items);
      merged.scale_to(fmaxf(merged.top, other.top));
      merged.add(other.sum, make_float2(other.top, other.weights));
    }
    write_output<T>(p, u, row, dim, merged.sum, merged.weights);
  }
  __syncthreads();  // the scratch is needed again
}

/// Counts the block in once all its threads have written the slot; the last one merges. All of a
/// block call it, behind combine_warps; it has a barrier in any case. scratch_of: see merge_parts.
template <class T, int kAtOnce, class ScratchOf>
__device__ __forceinline__ void arrive(const DecodeParams& p, const DecodeUnit& u, int* last,
                                       ScratchOf scratch_of) {
  __syncthreads();
  if (u.parts == 1) return;
  if (threadIdx.x == 0) {
    int32_t* counter = p.counters + u.first_worker;
    // For the whole block, whose writes the barrier has put before it.
    int32_t before;
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
    *last = before == u.parts - 1;
    if (*last) *counter = 0;
  }
  __syncthreads();
  if (*last) merge_parts<T, kAtOnce>(p, u, scratch_of);
}

}  // namespace mmcore::cuda
