// Decode without tensor cores, in float32 throughout: for float32 tensors, for a cache of another
// type than the queries, and for addresses that wider loads do not take. Units, workers and merges
// are those of decode_mma.cuh; a warp takes a tile's keys one by one, its lanes every 32nd dim.
#include "attention/decode_unit.cuh"
#include "device/reduce.cuh"

namespace mmcore::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kRowsAtOnce = 4;
constexpr int kPartsAtOnce = 8;

template <int kPerLane>
struct PlainShared {
  static constexpr int kStride = 32 * kPerLane;
  DecodeUnit units[kUnitsAtOnce];
  float values[kWarps * kRowsAtOnce * kStride];
  float2 sums[kWarps * kRowsAtOnce];
  int last;

  static_assert(sizeof(values) >= 32 * kWarps * sizeof(MergedParts), "a merge's scratch");
};

__device__ __forceinline__ float load_as_float(const char* at, int i, DType dtype) {
  if (dtype == DType::kFloat32) return reinterpret_cast<const float*>(at)[i];
  if (dtype == DType::kBFloat16) return to_float(reinterpret_cast<const __nv_bfloat16*>(at)[i]);
  if (dtype == DType::kFloat16) return to_float(reinterpret_cast<const __half*>(at)[i]);
  return to_float(reinterpret_cast<const __nv_fp8_e4m3*>(at)[i]);
}

template <int kPerLane>
__device__ __forceinline__ void load_row(float (&x)[kPerLane], const char* at, int dims,
                                         DType dtype, int lane) {
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int dim = 32 * i + lane;
    x[i] = dim < dims ? load_as_float(at, dim, dtype) : 0.0f;
  }
}

__device__ __forceinline__ float score(const DecodeParams& p, float dot) {
  return p.cap_factor == 0 ? p.factor * dot : p.factor * tanhf(p.cap_factor * dot);
}

/// Rows [row_begin, row_begin + kRowsAtOnce) of a unit over a warp's tiles.
template <int kPerLane>
struct PlainState {
  float q[kRowsAtOnce][kPerLane];
  float out[kRowsAtOnce][kPerLane];
  float top[kRowsAtOnce];
  float weights[kRowsAtOnce];
  int begin[kRowsAtOnce];
  int end[kRowsAtOnce];

  __device__ __forceinline__ void start(const DecodeParams& p, const DecodeUnit& u, int row_begin,
                                        int lane) {
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const DecodeRow at = row_of(p, u, min(row_begin + r, u.rows - 1));
      load_row(q[r], p.q + at.query * p.q_row_stride + at.head * p.q_head_stride, p.head_dim,
               p.dtype, lane);
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) out[r][i] = 0;
      top[r] = kNoScore;
      weights[r] = 0;
      begin[r] = at.begin;
      end[r] = at.end;
    }
  }

  __device__ __forceinline__ void add(const DecodeParams& p, int key, const char* k_row,
                                      const char* v_row, int lane) {
    float k[kPerLane], v[kPerLane];
    load_row(k, k_row, p.head_dim, p.kv_dtype, lane);
    load_row(v, v_row, p.head_dim, p.kv_dtype, lane);
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      float dot = 0;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) dot += q[r][i] * k[i];
      const float x = score(p, warp_sum(dot));
      if (key < begin[r] || key >= end[r]) continue;  // the same in all lanes
      const float best = fmaxf(top[r], x);
      const float keep = exp2f(top[r] - best), weight = exp2f(x - best);
      top[r] = best;
      weights[r] = weights[r] * keep + weight;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) out[r][i] = out[r][i] * keep + weight * v[i];
    }
  }
};

template <int kPerLane>
__device__ __forceinline__ void plain_rows(const DecodeParams& p, const DecodeUnit& u,
                                           int row_begin, PlainShared<kPerLane>& shared) {
  constexpr int kStride = PlainShared<kPerLane>::kStride;
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
  PlainState<kPerLane> state;
  state.start(p, u, row_begin, lane);
  const int inside = (1 << p.block_shift) - 1;
  for (int tile = u.tile_begin + warp; tile < u.tile_end; tile += kWarps) {
    const int from = max(tile * ops::kCellKeys, u.key_begin);
    const int to = min((tile + 1) * ops::kCellKeys, u.keys);
    for (int key = from; key < to; ++key) {
      const int block =
          __ldg(p.block_tables + u.sequence * p.table_stride + (key >> p.block_shift));
      if (static_cast<unsigned>(block) >= static_cast<unsigned>(p.num_blocks)) continue;
      const int row = key & inside;
      state.add(p, key,
                p.k + block * p.k_block_stride + row * p.k_row_stride + u.kv_head * p.k_head_stride,
                p.v + block * p.v_block_stride + row * p.v_row_stride + u.kv_head * p.v_head_stride,
                lane);
    }
  }
#pragma unroll
  for (int r = 0; r < kRowsAtOnce; ++r) {
    const int row = warp * kRowsAtOnce + r;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      shared.values[row * kStride + 32 * i + lane] = state.out[r][i];
    }
    if (lane == 0) shared.sums[row] = make_float2(state.top[r], state.weights[r]);
  }
  __syncthreads();
  combine_warps(
      p, u,
      {.sums = shared.sums,
       .warps = kWarps,
       .row_begin = row_begin,
       .rows = kRowsAtOnce,
       .dim_begin = 0,
       .dims = kStride},
      [&](int w, int row, int dim) {
        return shared.values + (w * kRowsAtOnce + row) * kStride + dim;
      },
      [&](int row, int dim, float4 sum, float top, float weights) {
        put_part<void>(p, u, row, dim, sum, top, weights);
      });
  __syncthreads();
}

template <int kPerLane>
__global__ void __launch_bounds__(32 * kWarps)
    decode_plain(const __grid_constant__ DecodeParams p) {
  __shared__ PlainShared<kPerLane> shared;
  const ops::DecodeWorker worker = p.workers[blockIdx.x];
  if (worker.begin >= worker.end) return;
  for (int first = 0;; first += kUnitsAtOnce) {
    const int count = list_units(p, worker, first, shared.units);
    for (int i = 0; i < count; ++i) {
      const DecodeUnit& u = shared.units[i];
      for (int row = 0; row < u.rows; row += kRowsAtOnce) plain_rows(p, u, row, shared);
      arrive<void, kPartsAtOnce>(p, u, &shared.last, [&](int thread) {
        return reinterpret_cast<MergedParts*>(shared.values) + thread;
      });
    }
    if (count < kUnitsAtOnce) return;
  }
}

template <int kPerLane>
void launch(const DecodeParams& params, int32_t workers, cudaStream_t stream) {
  decode_plain<kPerLane><<<static_cast<unsigned>(workers), 32 * kWarps, 0, stream>>>(params);
}

}  // namespace

Status launch_decode_plain(const DecodeParams& params, int32_t workers, cudaStream_t stream) {
  if (params.head_dim <= 64) {
    launch<2>(params, workers, stream);
  } else if (params.head_dim <= 128) {
    launch<4>(params, workers, stream);
  } else {
    launch<8>(params, workers, stream);
  }
  return launch_status("paged_attention");
}

}  // namespace mmcore::cuda
