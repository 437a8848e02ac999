// A warp per output row: weights are read once, past the L1 cache, 16 bytes a lane and several
// loads ahead; x comes from the L1 cache. The limit is the memory's bandwidth.
#include "device/overlap.cuh"
#include "device/reduce.cuh"
#include "device/vec.cuh"
#include "host/launch.h"
#include "matrix/epilogue.cuh"
#include "matrix/problem.h"

namespace mmcore::cuda {
namespace {

constexpr int kWarps = 8;

struct GemvParams {
  const void* x;
  int64_t x_stride;
  const void* w;
  int64_t w_stride;
  const void* bias;
  RowTarget target;
  int n, k;
  ActivationForm act;
};

/// w [n, k], x [kTokens, k]: 16-byte aligned rows, k a multiple of 16 bytes. kEarly: the kernel in
/// front does not write w.
template <class T, int kTokens, int kAhead, bool kEarly>
__global__ void __launch_bounds__(kWarps * 32) gemv_kernel(const __grid_constant__ GemvParams p) {
  constexpr int kWidth = kVecWidth<T>, kStep = 32 * kWidth;
  using V = Vec<T, kWidth>;
  const int lane = threadIdx.x & 31;
  const int row = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x >> 5);
  const T* w = static_cast<const T*>(p.w) + row * p.w_stride + lane * kWidth;
  const T* x = static_cast<const T*>(p.x) + lane * kWidth;
  float sum[kTokens] = {};
  const auto add = [&](const uint4& bits, int64_t k) {
    V weights;
    __builtin_memcpy(&weights, &bits, sizeof(weights));
#pragma unroll
    for (int m = 0; m < kTokens; ++m) {
      const V values = load<V>(x + m * p.x_stride + k);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        sum[m] = fmaf(to_float(weights.at[i]), to_float(values.at[i]), sum[m]);
      }
    }
  };
  const bool early = kEarly && p.k >= kAhead * kStep && row < p.n;
  uint4 weights[kAhead];  // words: the compiler takes elements apart where they outlive a branch
  const auto fetch = [&](int64_t k) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) weights[i] = load_streaming<uint4>(w + k + i * kStep);
  };
  if (early) fetch(0);
  wait_for_predecessor();
  if (row >= p.n) return;
  int k = 0;
  const int mine = p.k - lane * kWidth;  // elements from this lane's first one on
  for (bool there = early; k + (kAhead - 1) * kStep < mine; k += kAhead * kStep, there = false) {
    if (!there) fetch(k);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) add(weights[i], k + i * kStep);
  }
  if (k < mine) {  // together, too: one after the other they would cost as much as a whole round
#pragma unroll
    for (int i = 0; i + 1 < kAhead; ++i) {
      weights[i] = load_streaming<uint4>(k + i * kStep < mine ? w + k + i * kStep : w);
    }
#pragma unroll
    for (int i = 0; i + 1 < kAhead; ++i) {
      if (k + i * kStep < mine) add(weights[i], k + i * kStep);
    }
  }

  const float bias = p.bias == nullptr ? 0.0f : to_float(static_cast<const T*>(p.bias)[row]);
#pragma unroll
  for (int m = 0; m < kTokens; ++m) {
    float v[1] = {warp_sum(sum[m]) + bias};
    activate<sizeof(T) == 4>(v, p.act);
    if (lane == 0) {
      T* out = p.target.row<T>(m);
      if (out != nullptr) out[row] = from_float<T>(v[0]);
    }
  }
}

template <class T, int kTokens, int kAhead>
Status launch(const char* op, const MatrixProblem& p, const DeviceFacts& facts,
              cudaStream_t stream) {
  const GemvParams params{.x = p.x,
                          .x_stride = p.x_stride,
                          .w = p.w,
                          .w_stride = p.w_stride,
                          .bias = p.bias,
                          .target = {p.out, p.out_stride, p.rows, p.out_rows},
                          .n = static_cast<int>(p.n),
                          .k = static_cast<int>(p.k),
                          .act = form_of(p.act)};
  const int64_t blocks = (p.n + kWarps - 1) / kWarps;
  // Where blocks take turns on a multiprocessor there is nothing to gain, and more registers cost.
  [[maybe_unused]] const bool early =
      p.steady_weights && blocks <= int64_t{8} * facts.multiprocessors;
  auto* kernel = gemv_kernel<T, kTokens, kAhead, false>;
  if constexpr (kTokens == 1 && sizeof(T) == 2) {
    if (early) kernel = gemv_kernel<T, kTokens, kAhead, true>;
  }
  launch_overlapped(kernel, blocks, dim3(kWarps * 32), facts.capability, facts.multiprocessors,
                    stream, params);
  return launch_status(op);
}

}  // namespace

Status run_gemv(const char* op, const MatrixProblem& p, const DeviceFacts& facts,
                cudaStream_t stream) {
  if (p.dtype == DType::kBFloat16) return launch<__nv_bfloat16, 1, 8>(op, p, facts, stream);
  if (p.dtype == DType::kFloat16) return launch<__half, 1, 8>(op, p, facts, stream);
  switch (p.tokens) {
    case 1:
      return launch<float, 1, 8>(op, p, facts, stream);
    case 2:
      return launch<float, 2, 4>(op, p, facts, stream);
    case 3:
      return launch<float, 3, 4>(op, p, facts, stream);
    case 4:
      return launch<float, 4, 4>(op, p, facts, stream);
    case 5:
      return launch<float, 5, 4>(op, p, facts, stream);
    case 6:
      return launch<float, 6, 4>(op, p, facts, stream);
    case 7:
      return launch<float, 7, 4>(op, p, facts, stream);
    default:
      return launch<float, 8, 4>(op, p, facts, stream);
  }
}

}  // namespace mmcore::cuda
