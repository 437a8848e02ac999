// Few tokens on tensor cores, weights read once: the limit is the memory's bandwidth.
//
// A block owns 16 features; its warps share k, 64 elements at a time, and add up in shared memory.
// Operands go from memory straight to registers: mma.m16n8k16 wants pairs (2q, 2q + 1) and
// (2q + 8, 2q + 9) of k in lane q of four, but any order of k does as long as both operands have
// it, so lane q takes 8 neighbours (16 bytes) for two instructions.
#include "device/overlap.cuh"
#include "device/vec.cuh"
#include "host/launch.h"
#include "matrix/epilogue.cuh"
#include "matrix/mma.cuh"
#include "matrix/problem.h"

namespace mmcore::cuda {
namespace {

constexpr int kWarps = 8, kFeatures = 16, kStep = 64;

struct SkinnyParams {
  const void* x;
  int64_t x_stride;
  const void* w;
  int64_t w_stride;
  const void* bias;
  RowTarget target;
  int tokens, n, k;
  ActivationForm act;
};

__device__ __forceinline__ uint4 load_weights(const void* p) { return load_streaming<uint4>(p); }

/// w [n, k], x [tokens <= 8 kTiles, k]: 16-byte aligned rows, k a multiple of 8. kAhead steps of k
/// are loaded before the first is used.
template <class T, int kTiles, int kAhead>
__global__ void __launch_bounds__(kWarps * 32, 2)
    skinny_kernel(const __grid_constant__ SkinnyParams p) {
  wait_for_predecessor();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, q = lane & 3, g = lane >> 2;
  const int first = static_cast<int>(blockIdx.x) * kFeatures;
  // Rows beyond the last repeat it; their results are not stored.
  const T* w0 = static_cast<const T*>(p.w) + min(first + g, p.n - 1) * p.w_stride + q * 8;
  const T* w1 = static_cast<const T*>(p.w) + min(first + g + 8, p.n - 1) * p.w_stride + q * 8;
  const T* x = static_cast<const T*>(p.x) + q * 8;
  float acc[kTiles][4] = {};
  const uint4 zero = make_uint4(0, 0, 0, 0);
  for (int k = warp * kStep; k < p.k; k += kWarps * kStep * kAhead) {
    uint4 w[kAhead][2][2];  // [step][half of 64][feature g, g + 8]
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int at = k + s * kWarps * kStep + h * 32;
        const bool inside = at + q * 8 < p.k;
        w[s][h][0] = inside ? load_weights(w0 + at) : zero;
        w[s][h][1] = inside ? load_weights(w1 + at) : zero;
      }
    }
#pragma unroll
    for (int s = 0; s < kAhead; ++s) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int at = k + s * kWarps * kStep + h * 32;
        const uint4 &a = w[s][h][0], &b = w[s][h][1];
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          const int token = i * 8 + g;
          const bool inside = token < p.tokens && at + q * 8 < p.k;
          const uint4 v =
              inside ? __ldg(reinterpret_cast<const uint4*>(x + token * p.x_stride + at)) : zero;
          mma_16x8x16<T>(acc[i], {a.x, b.x, a.y, b.y}, v.x, v.y);
          mma_16x8x16<T>(acc[i], {a.z, b.z, a.w, b.w}, v.z, v.w);
        }
      }
    }
  }

  // acc: features g (0, 1) and g + 8 (2, 3), tokens 2 q (0, 2) and 2 q + 1 (1, 3).
  __shared__ float sums[kWarps][kTiles * 8][kFeatures + 1];
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int c = 0; c < 4; ++c) sums[warp][i * 8 + q * 2 + (c & 1)][g + (c >> 1) * 8] = acc[i][c];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kTiles * 8 * kFeatures; i += kWarps * 32) {
    const int token = i / kFeatures, feature = i % kFeatures;
    if (token >= p.tokens || first + feature >= p.n) continue;
    float v[1] = {p.bias == nullptr ? 0.0f
                                    : to_float(static_cast<const T*>(p.bias)[first + feature])};
#pragma unroll
    for (int s = 0; s < kWarps; ++s) v[0] += sums[s][token][feature];
    activate<false>(v, p.act);
    T* out = p.target.row<T>(token);
    if (out != nullptr) out[first + feature] = from_float<T>(v[0]);
  }
}

template <class T>
Status launch(const char* op, const MatrixProblem& p, const DeviceFacts& facts,
              cudaStream_t stream) {
  const SkinnyParams params{.x = p.x,
                            .x_stride = p.x_stride,
                            .w = p.w,
                            .w_stride = p.w_stride,
                            .bias = p.bias,
                            .target = {p.out, p.out_stride, p.rows, p.out_rows},
                            .tokens = static_cast<int>(p.tokens),
                            .n = static_cast<int>(p.n),
                            .k = static_cast<int>(p.k),
                            .act = form_of(p.act)};
  launch_overlapped(p.tokens <= 8 ? skinny_kernel<T, 1, 4> : skinny_kernel<T, 2, 4>,
                    (p.n + kFeatures - 1) / kFeatures, dim3(kWarps * 32), facts.capability,
                    facts.multiprocessors, stream, params);
  return launch_status(op);
}

}  // namespace

Status run_skinny(const char* op, const MatrixProblem& p, const DeviceFacts& facts,
                  cudaStream_t stream) {
  return p.dtype == DType::kBFloat16 ? launch<__nv_bfloat16>(op, p, facts, stream)
                                     : launch<__half>(op, p, facts, stream);
}

}  // namespace mmcore::cuda
