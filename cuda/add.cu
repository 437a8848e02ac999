// add: 16-byte accesses, one vector a thread; memory's bandwidth is all there is to it.
#include <cstdint>
#include <limits>
#include <string>

#include "device/overlap.cuh"
#include "device/vec.cuh"
#include "host/device.h"
#include "host/launch.h"
#include "ops/cuda_backend.h"
#include "tensor/dispatch.h"

namespace mmcore::cuda {
namespace {

template <class T>
struct AddRows {
  const T* x;
  T* out;
  int64_t total;  // vectors
  int64_t width;  // of a row, in vectors
  int64_t x_stride;
  int64_t out_stride;
};

template <class T, int kWidth>
__global__ void __launch_bounds__(256) add_kernel(const __grid_constant__ AddRows<T> p) {
  using V = Vec<T, kWidth>;
  wait_for_predecessor();
  const int64_t vec = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (vec >= p.total) return;
  const int64_t row = vec / p.width, column = (vec - row * p.width) * kWidth;
  T* const to = p.out + row * p.out_stride + column;
  const V x = load<V>(p.x + row * p.x_stride + column);
  V sum = load<V>(to);
#pragma unroll
  for (int j = 0; j < kWidth; ++j)
    sum.at[j] = from_float<T>(to_float(sum.at[j]) + to_float(x.at[j]));
  store(to, sum);
}

template <class T, int kWidth>
Status launch_add(AddRows<T> p, int64_t rows, int64_t width, const DeviceFacts& facts,
                  cudaStream_t stream) {
  constexpr int64_t kThreads = 256;
  p.width = width / kWidth;
  p.total = rows * p.width;
  const int64_t blocks = (p.total + kThreads - 1) / kThreads;
  if (blocks > std::numeric_limits<int32_t>::max()) {
    return Status::unsupported("add: a tensor of " + std::to_string(rows) + " rows of " +
                               std::to_string(width) + " elements is too large; split it");
  }
  launch_overlapped(add_kernel<T, kWidth>, blocks, dim3(static_cast<unsigned>(kThreads)),
                    facts.capability, facts.multiprocessors, stream, p);
  return launch_status("add");
}

}  // namespace
}  // namespace mmcore::cuda

namespace mmcore::ops::cuda {

Status add(const TensorView& x, const TensorView& out, Stream stream) {
  namespace mc = mmcore::cuda;
  const int64_t rows = out.size(0), width = out.size(1);
  if (rows == 0 || width == 0) return {};
  const auto facts = mc::device_facts(out.device);
  if (!facts.ok()) return facts.status();
  const mc::DeviceGuard guard(out.device);
  return dispatch_float(x.dtype, "add", [&]<class E>() -> Status {
    using T = mc::device_t<E>;
    const mc::AddRows<T> p{.x = x.ptr<const T>(),
                           .out = out.ptr<T>(),
                           .total = 0,
                           .width = 0,
                           .x_stride = x.stride(0),
                           .out_stride = out.stride(0)};
    constexpr int kWidth = mc::kVecWidth<T>;
    const bool aligned = width % kWidth == 0 && mc::rows_aligned16<T>(p.x, p.x_stride) &&
                         mc::rows_aligned16<T>(p.out, p.out_stride);
    const cudaStream_t queue = mc::stream_of(stream);
    return aligned ? mc::launch_add<T, kWidth>(p, rows, width, *facts.value(), queue)
                   : mc::launch_add<T, 1>(p, rows, width, *facts.value(), queue);
  });
}

}  // namespace mmcore::ops::cuda
