// activation and activation_mul: 16-byte accesses, 4 vectors a thread where there is enough work to
// fill the device, 1 where latency counts.
#include <algorithm>
#include <limits>

#include "device/activate.cuh"
#include "device/overlap.cuh"
#include "device/vec.cuh"
#include "host/device.h"
#include "host/launch.h"
#include "ops/cuda_backend.h"
#include "tensor/dispatch.h"

namespace mmcore::cuda {
namespace {

/// Rows of `width` elements. `up` is null for activation alone, where rows may lie on several axes.
template <class T>
struct ActivationRows {
  const T* x;
  const T* up;
  T* out;
  int64_t rows;
  int64_t width;
  uint32_t chunks;               // blocks of one row
  uint32_t sizes[kMaxRank - 1];  // the axes of rows, the innermost first
  int64_t x_strides[kMaxRank - 1];
  int64_t out_strides[kMaxRank - 1];
  int32_t axes;
  ops::Activation kind;
};

/// Block b works on chunk b % chunks of row b / chunks.
template <class T, int kWidth, int kUnroll, bool kMul>
__global__ void __launch_bounds__(256)
    activation_kernel(const __grid_constant__ ActivationRows<T> p) {
  using V = Vec<T, kWidth>;
  let_successor_begin();
  wait_for_predecessor();
  uint32_t row = blockIdx.x / p.chunks;
  const uint32_t chunk = blockIdx.x - row * p.chunks;
  int64_t from = 0, to = 0;
  for (int axis = 0; axis < p.axes; ++axis) {
    uint32_t index = row;
    if (axis + 1 < p.axes) {
      row /= p.sizes[axis];
      index -= row * p.sizes[axis];
    }
    from += index * p.x_strides[axis];
    to += index * p.out_strides[axis];
  }
  const int64_t begin = (static_cast<int64_t>(chunk) * kUnroll * blockDim.x + threadIdx.x) * kWidth;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kWidth;
  V x[kUnroll], up[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int64_t at = begin + u * step;
    if (at >= p.width) continue;
    x[u] = load<V>(p.x + from + at);
    if constexpr (kMul) up[u] = load<V>(p.up + from + at);
  }
  with_activation(p.kind, [&](auto act) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t at = begin + u * step;
      if (at >= p.width) continue;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        float y = activate<act.value, T>(to_float(x[u].at[j]));
        if constexpr (kMul) y *= to_float(up[u].at[j]);
        x[u].at[j] = from_float<T>(y);
      }
      store(p.out + to + at, x[u]);
    }
  });
}

template <class T, int kWidth, int kUnroll, bool kMul>
Status launch(const char* op, ActivationRows<T> p, int threads, const DeviceFacts& facts,
              cudaStream_t stream) {
  const int64_t vecs = (p.width + kWidth - 1) / kWidth;
  const int64_t per_block = static_cast<int64_t>(threads) * kUnroll;
  const int64_t chunks = (vecs + per_block - 1) / per_block;
  if (chunks * p.rows > std::numeric_limits<int32_t>::max()) {
    return Status::unsupported(std::string(op) + ": a tensor of " + std::to_string(p.rows) +
                               " rows of " + std::to_string(p.width) +
                               " elements is too large; split it");
  }
  // As few threads as do the row in that many chunks.
  const int64_t needed = (vecs + chunks * kUnroll - 1) / (chunks * kUnroll);
  const auto block = static_cast<unsigned>((needed + 31) / 32 * 32);
  p.chunks = static_cast<uint32_t>(chunks);
  launch_overlapped(activation_kernel<T, kWidth, kUnroll, kMul>, chunks * p.rows, dim3(block),
                    facts.capability, facts.multiprocessors, stream, p);
  return launch_status(op);
}

template <class T, bool kMul>
Status dispatch_shape(const char* op, const ActivationRows<T>& p, Device device, Stream stream) {
  if (p.rows == 0 || p.width == 0) return {};
  const auto facts = device_facts(device);
  if (!facts.ok()) return facts.status();
  const DeviceGuard guard(device);
  constexpr int kWidth = kVecWidth<T>;
  bool aligned = p.width % kWidth == 0 && rows_aligned16<T>(p.x, 0) &&
                 rows_aligned16<T>(p.out, 0) && rows_aligned16<T>(p.up, 0);
  for (int axis = 0; axis < p.axes; ++axis) {
    aligned = aligned && rows_aligned16<T>(p.x, p.x_strides[axis]) &&
              rows_aligned16<T>(p.out, p.out_strides[axis]);
  }
  // Enough vectors to give every thread slot of the device four of them.
  const int64_t vecs = p.rows * (p.width / kWidth);
  const bool many = vecs >= int64_t{4} * 1024 * facts.value()->multiprocessors;
  const cudaStream_t queue = stream_of(stream);
  if (!aligned) return launch<T, 1, 1, kMul>(op, p, 256, *facts.value(), queue);
  if (many) return launch<T, kWidth, 4, kMul>(op, p, 256, *facts.value(), queue);
  return launch<T, kWidth, 1, kMul>(op, p, 128, *facts.value(), queue);
}

bool is_contiguous(const TensorView& t) {
  int64_t step = 1;
  for (int axis = t.rank - 1; axis >= 0; --axis) {
    if (t.size(axis) > 1 && t.stride(axis) != step) return false;
    step *= t.size(axis);
  }
  return true;
}

}  // namespace
}  // namespace mmcore::cuda

namespace mmcore::ops::cuda {

using mmcore::cuda::ActivationRows;
using mmcore::cuda::device_t;

Status activation(const TensorView& x, Activation kind, const TensorView& out, Stream stream) {
  return dispatch_float(x.dtype, "activation", [&]<class E>() -> Status {
    using T = device_t<E>;
    const int64_t total = x.numel();
    if (total == 0) return {};
    ActivationRows<T> p{.x = x.ptr<const T>(),
                        .up = nullptr,
                        .out = out.ptr<T>(),
                        .rows = 1,
                        .width = total,
                        .chunks = 1,
                        .sizes = {},
                        .x_strides = {},
                        .out_strides = {},
                        .axes = 0,
                        .kind = kind};
    if (!mmcore::cuda::is_contiguous(x) || !mmcore::cuda::is_contiguous(out)) {
      p.width = x.size(x.rank - 1);
      p.rows = total / p.width;
      for (int axis = x.rank - 2; axis >= 0; --axis, ++p.axes) {
        p.sizes[p.axes] = static_cast<uint32_t>(x.size(axis));
        p.x_strides[p.axes] = x.stride(axis);
        p.out_strides[p.axes] = out.stride(axis);
      }
    }
    return mmcore::cuda::dispatch_shape<T, false>("activation", p, x.device, stream);
  });
}

Status activation_mul(const TensorView& x, Activation kind, const TensorView& out, Stream stream) {
  return dispatch_float(x.dtype, "activation_mul", [&]<class E>() -> Status {
    using T = device_t<E>;
    const int64_t width = out.size(1);
    const ActivationRows<T> p{.x = x.ptr<const T>(),
                              .up = x.ptr<const T>() + width,
                              .out = out.ptr<T>(),
                              .rows = x.size(0),
                              .width = width,
                              .chunks = 1,
                              .sizes = {},
                              .x_strides = {x.stride(0)},
                              .out_strides = {out.stride(0)},
                              .axes = 1,
                              .kind = kind};
    return mmcore::cuda::dispatch_shape<T, true>("activation_mul", p, x.device, stream);
  });
}

}  // namespace mmcore::ops::cuda
