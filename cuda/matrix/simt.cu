// float32 products, exact to float32: one multiply-add after the other in the order of k, so that a
// result does not depend on how many tokens there are. For tests and models that want it; not fast.
#include "device/vec.cuh"
#include "matrix/epilogue.cuh"
#include "matrix/problem.h"

namespace mmcore::cuda {
namespace {

constexpr int kTile = 64, kK = 16, kThreads = 256, kPad = 4;

struct SimtParams {
  const float* x;
  int64_t x_stride;
  const float* w;
  int64_t w_stride;
  const float* bias;
  RowTarget target;
  int tokens, n, k;
  int tiles_f;
  ActivationForm act;
};

using Operand = float[kK][kTile + kPad];

/// Rows [first, first + kTile) of a matrix [rows, k] at [at, at + kK) of k, transposed.
__device__ __forceinline__ void load_operand(Operand& to, const float* from, int64_t stride,
                                             int first, int rows, int at, int k) {
#pragma unroll
  for (int i = 0; i < kTile * kK / kThreads; ++i) {
    const int element = static_cast<int>(threadIdx.x) + i * kThreads;
    const int r = element / kK, c = element % kK;
    const bool inside = first + r < rows && at + c < k;
    to[c][r] = inside ? __ldg(from + (first + r) * stride + at + c) : 0.0f;
  }
}

/// x [tokens, k], w [n, k], any alignment.
__global__ void __launch_bounds__(kThreads) simt_kernel(const __grid_constant__ SimtParams p) {
  __shared__ __align__(16) Operand x, w;
  const int first_f = static_cast<int>(blockIdx.x % p.tiles_f) * kTile;
  const int first_t = static_cast<int>(blockIdx.x / p.tiles_f) * kTile;
  const int mine_f = static_cast<int>(threadIdx.x % 16) * 4;
  const int mine_t = static_cast<int>(threadIdx.x / 16) * 4;
  float acc[4][4] = {};
  for (int k = 0; k < p.k; k += kK) {
    load_operand(x, p.x, p.x_stride, first_t, p.tokens, k, p.k);
    load_operand(w, p.w, p.w_stride, first_f, p.n, k, p.k);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kK; ++i) {
      const auto a = load<Vec<float, 4>>(&x[i][mine_t]), b = load<Vec<float, 4>>(&w[i][mine_f]);
#pragma unroll
      for (int t = 0; t < 4; ++t) {
#pragma unroll
        for (int f = 0; f < 4; ++f) acc[t][f] = fmaf(a.at[t], b.at[f], acc[t][f]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int t = 0; t < 4; ++t) {
    const int token = first_t + mine_t + t;
    float* row = token < p.tokens ? p.target.row<float>(token) : nullptr;
    if (row == nullptr) continue;
#pragma unroll
    for (int f = 0; f < 4; ++f) {
      const int feature = first_f + mine_f + f;
      if (feature >= p.n) continue;
      float v[1] = {acc[t][f] + (p.bias == nullptr ? 0.0f : p.bias[feature])};
      activate<true>(v, p.act);
      row[feature] = v[0];
    }
  }
}

}  // namespace

Status run_simt(const char* op, const MatrixProblem& p, cudaStream_t stream) {
  const int64_t tiles_f = (p.n + kTile - 1) / kTile, tiles_t = (p.tokens + kTile - 1) / kTile;
  const SimtParams params{.x = static_cast<const float*>(p.x),
                          .x_stride = p.x_stride,
                          .w = static_cast<const float*>(p.w),
                          .w_stride = p.w_stride,
                          .bias = static_cast<const float*>(p.bias),
                          .target = {p.out, p.out_stride, p.rows, p.out_rows},
                          .tokens = static_cast<int>(p.tokens),
                          .n = static_cast<int>(p.n),
                          .k = static_cast<int>(p.k),
                          .tiles_f = static_cast<int>(tiles_f),
                          .act = form_of(p.act)};
  simt_kernel<<<static_cast<unsigned>(tiles_f * tiles_t), kThreads, 0, stream>>>(params);
  return launch_status(op);
}

}  // namespace mmcore::cuda
