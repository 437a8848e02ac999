// 16-bit matrix products with mma.sync, for devices and alignments that the wgmma kernels do not
// serve: 128 tokens x 128 features to a block, 32 of k in each of three stages.
#include "device/vec.cuh"
#include "matrix/alignment.h"
#include "matrix/epilogue.cuh"
#include "matrix/mma.cuh"
#include "matrix/problem.h"

namespace mmcore::cuda {
namespace {

constexpr int kTile = 128, kK = 32, kStages = 3, kThreads = 256;
constexpr int kChunk = 8;               // elements of 16 bytes
constexpr int kRowBytes = kK * 2 + 16;  // no two of 8 rows in the same banks
constexpr int kOperandBytes = kTile * kRowBytes;
constexpr int kSharedBytes = kStages * 2 * kOperandBytes;

struct TensorCoreParams {
  const void* x;
  int64_t x_stride;
  const void* w;
  int64_t w_stride;
  const void* bias;
  RowTarget target;
  int tokens, n, k;
  int tiles_f;
  bool pairs;  // two neighbours of `out` may be stored at once
  ActivationForm act;
};

/// Rows [first, first + kTile) of a matrix [rows, k] at [at, at + kK) of k; zeros outside.
template <class T, bool kAligned>
__device__ __forceinline__ void load_operand(uint8_t* to, const T* from, int64_t stride, int first,
                                             int rows, int at, int k) {
  constexpr int kPerRow = kK / kChunk;
#pragma unroll
  for (int i = 0; i < kTile * kPerRow / kThreads; ++i) {
    const int chunk = static_cast<int>(threadIdx.x) + i * kThreads;
    const int r = chunk / kPerRow, column = at + chunk % kPerRow * kChunk;
    uint8_t* place = to + r * kRowBytes + chunk % kPerRow * 16;
    const bool row_inside = first + r < rows;
    const T* source = from + (row_inside ? first + r : 0) * stride;
    if constexpr (kAligned) {
      const bool inside = row_inside && column < k;
      copy_async16(static_cast<uint32_t>(__cvta_generic_to_shared(place)),
                   inside ? source + column : from, inside);
    } else {
      Vec<T, kChunk> v;
#pragma unroll
      for (int e = 0; e < kChunk; ++e) {
        v.at[e] = row_inside && column + e < k ? source[column + e] : from_float<T>(0.0f);
      }
      store(place, v);
    }
  }
}

/// x [tokens, k], w [n, k]; kAligned: rows of both aligned to 16 bytes, k a multiple of 8.
template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    tensor_core_kernel(const __grid_constant__ TensorCoreParams p) {
  extern __shared__ __align__(16) uint8_t shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int first_f = static_cast<int>(blockIdx.x % p.tiles_f) * kTile;
  const int first_t = static_cast<int>(blockIdx.x / p.tiles_f) * kTile;
  const int steps = (p.k + kK - 1) / kK;
  const auto load_stage = [&](int step) {
    if (step < steps) {
      uint8_t* stage = shared + step % kStages * 2 * kOperandBytes;
      load_operand<T, kAligned>(stage, static_cast<const T*>(p.x), p.x_stride, first_t, p.tokens,
                                step * kK, p.k);
      load_operand<T, kAligned>(stage + kOperandBytes, static_cast<const T*>(p.w), p.w_stride,
                                first_f, p.n, step * kK, p.k);
    }
    commit_copies();
  };
  for (int i = 0; i < kStages - 1; ++i) load_stage(i);

  // A warp has 64 tokens x 32 features.
  const int warp_t = (warp & 1) * 64, warp_f = (warp >> 1) * 32;
  const int left_row = warp_t + (lane & 15), left_k = lane >> 4;
  const int right_row = warp_f + (lane & 7) + (lane >> 4) * 8, right_k = (lane >> 3) & 1;
  float acc[4][4][4] = {};
  for (int step = 0; step < steps; ++step) {
    wait_copies<kStages - 2>();
    __syncthreads();
    load_stage(step + kStages - 1);
    const auto base = static_cast<uint32_t>(
        __cvta_generic_to_shared(shared + step % kStages * 2 * kOperandBytes));
#pragma unroll
    for (int k16 = 0; k16 < kK / 16; ++k16) {
      uint32_t x[4][4], w[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        load_matrices(x[i], base + (left_row + i * 16) * kRowBytes + (k16 * 2 + left_k) * 16);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        load_matrices(w[i], base + kOperandBytes + (right_row + i * 16) * kRowBytes +
                                (k16 * 2 + right_k) * 16);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          mma_16x8x16<T>(acc[i][j], {x[i][0], x[i][1], x[i][2], x[i][3]}, w[j / 2][j % 2 * 2],
                         w[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }

  const int q = lane & 3, g = lane >> 2;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = first_t + warp_t + i * 16 + half * 8 + g;
      T* row = token < p.tokens ? p.target.row<T>(token) : nullptr;
      if (row == nullptr) continue;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int feature = first_f + warp_f + j * 8 + q * 2;
        if (feature >= p.n) continue;
        const bool both = feature + 1 < p.n;
        const T* bias = static_cast<const T*>(p.bias) + feature;
        float v[2] = {acc[i][j][half * 2], acc[i][j][half * 2 + 1]};
        if (p.bias != nullptr) {
          v[0] += to_float(bias[0]);
          if (both) v[1] += to_float(bias[1]);
        }
        activate<false>(v, p.act);
        const Vec<T, 2> pair{{from_float<T>(v[0]), from_float<T>(v[1])}};
        if (p.pairs) {  // n is even
          store(row + feature, pair);
        } else {
          row[feature] = pair.at[0];
          if (both) row[feature + 1] = pair.at[1];
        }
      }
    }
  }
}

template <class T, bool kAligned>
Status launch(const char* op, const MatrixProblem& p, cudaStream_t stream) {
  const int64_t tiles_f = (p.n + kTile - 1) / kTile, tiles_t = (p.tokens + kTile - 1) / kTile;
  const TensorCoreParams params{
      .x = p.x,
      .x_stride = p.x_stride,
      .w = p.w,
      .w_stride = p.w_stride,
      .bias = p.bias,
      .target = {p.out, p.out_stride, p.rows, p.out_rows},
      .tokens = static_cast<int>(p.tokens),
      .n = static_cast<int>(p.n),
      .k = static_cast<int>(p.k),
      .tiles_f = static_cast<int>(tiles_f),
      .pairs = reinterpret_cast<uintptr_t>(p.out) % 4 == 0 && p.out_stride % 2 == 0 && p.n % 2 == 0,
      .act = form_of(p.act)};
  const auto kernel = tensor_core_kernel<T, kAligned>;
  MMCORE_RETURN_IF_ERROR(allow_shared(op, kernel, kSharedBytes));
  kernel<<<static_cast<unsigned>(tiles_f * tiles_t), kThreads, kSharedBytes, stream>>>(params);
  return launch_status(op);
}

template <class T>
Status launch(const char* op, const MatrixProblem& p, cudaStream_t stream) {
  const bool aligned =
      p.k % kChunk == 0 && rows_aligned16(p.x, p.x_stride, 2) && rows_aligned16(p.w, p.w_stride, 2);
  return aligned ? launch<T, true>(op, p, stream) : launch<T, false>(op, p, stream);
}

}  // namespace

Status run_tensor_core(const char* op, const MatrixProblem& p, cudaStream_t stream) {
  return p.dtype == DType::kBFloat16 ? launch<__nv_bfloat16>(op, p, stream)
                                     : launch<__half>(op, p, stream);
}

}  // namespace mmcore::cuda
