// Sums, maxima and scans over a block of 1024 threads that works on one row. Each takes one
// barrier: scratch is used in turns, so a slow warp may still read what the last call left.
#pragma once

#include <cstdint>

#include "sampling/vocab_row.cuh"

namespace mmcore::cuda {

class RowBlock {
 public:
  struct Scratch {
    unsigned long long words[4][32];
  };

  __device__ explicit RowBlock(Scratch& scratch) : scratch_(scratch) {}

  template <class T>
  __device__ T sum(T x) {
    return reduce(x, [](T a, T b) { return a + b; }, T{});
  }
  __device__ uint32_t max(uint32_t x) {
    return reduce(
        __reduce_max_sync(kFullWarp, x), [](uint32_t a, uint32_t b) { return a > b ? a : b; }, 0u);
  }
  __device__ int32_t min(int32_t x) {
    return reduce(
        __reduce_min_sync(kFullWarp, x), [](int32_t a, int32_t b) { return a < b ? a : b; },
        0x7fffffff);
  }

  /// What the threads before this one hold together; `total` over all of them.
  template <class T>
  __device__ T before(T x, T& total) {
    const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
    const T inclusive = warp_scan(x, lane);
    T* partial = next<T>();
    if (lane == 31) partial[warp] = inclusive;
    __syncthreads();
    const T warps = warp_scan(partial[lane], lane);
    total = __shfl_sync(kFullWarp, warps, 31);
    const T earlier_warps = __shfl_sync(kFullWarp, warps, warp > 0 ? warp - 1 : 0);
    const T earlier_lanes = __shfl_up_sync(kFullWarp, inclusive, 1);
    return (warp > 0 ? earlier_warps : T{}) + (lane > 0 ? earlier_lanes : T{});
  }

  template <class T>
  __device__ static T warp_scan(T x, int lane) {
#pragma unroll
    for (int step = 1; step < 32; step <<= 1) {
      const T other = __shfl_up_sync(kFullWarp, x, step);
      if (lane >= step) x += other;
    }
    return x;
  }

 private:
  template <class T>
  __device__ T* next() {
    turn_ = (turn_ + 1) & 3;
    return reinterpret_cast<T*>(scratch_.words[turn_]);
  }

  template <class T, class F>
  __device__ T reduce(T x, F&& f, T zero) {
    const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x = f(x, __shfl_xor_sync(kFullWarp, x, step));
    T* partial = next<T>();
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    x = lane < static_cast<int>(blockDim.x >> 5) ? partial[lane] : zero;
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x = f(x, __shfl_xor_sync(kFullWarp, x, step));
    return x;
  }

  Scratch& scratch_;
  int turn_ = 0;
};

}  // namespace mmcore::cuda
