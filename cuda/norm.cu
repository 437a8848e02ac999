// rms_norm and layer_norm.
//
// A row stays in registers from its load to its store, so memory is read and written once: at
// [2048, 4096] bf16 on an H100 that is 33.6 MB, 11.1 us at the copy rate plus 1.1 us of launch. A
// block keeps the weights for all of its rows and loads the next row before it reduces this one.
#include <algorithm>

#include "device/convert.cuh"
#include "device/overlap.cuh"
#include "device/reduce.cuh"
#include "device/vec.cuh"
#include "host/device.h"
#include "host/launch.h"
#include "ops/cuda_backend.h"
#include "tensor/dispatch.h"

namespace mmcore::cuda {
namespace {

enum class Norm { kRms, kRmsAdd, kLayer };

template <class T>
struct NormRows {
  const T* x;       // [rows, hidden]
  const T* weight;  // [hidden]
  const T* bias;    // [hidden] or null
  T* residual;      // [rows, hidden]; kRmsAdd
  T* out;           // [rows, hidden], may be x
  int64_t rows;
  int64_t x_stride;
  int64_t residual_stride;
  int64_t out_stride;
  int32_t hidden;
  float inverse_hidden;
  float eps;
};

/// The part of one row that a thread holds: vectors threadIdx.x, threadIdx.x + blockDim.x, ...
template <class T, int kVecs>
struct RowPart {
  static constexpr int kWidth = kVecWidth<T>;
  using V = Vec<T, kWidth>;
  V v[kVecs];

  __device__ __forceinline__ static int at(int i) {
    return static_cast<int>(threadIdx.x) + i * static_cast<int>(blockDim.x);
  }
  __device__ __forceinline__ void read(const T* row, int vecs) {
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      if (at(i) < vecs) v[i] = load<V>(row + at(i) * kWidth);
    }
  }
  __device__ __forceinline__ void write(T* row, int vecs) const {
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      if (at(i) < vecs) store(row + at(i) * kWidth, v[i]);
    }
  }
};

/// Hides where the bits come from, so that the compiler converts them again after a reduction
/// instead of keeping twice as many registers with the floats.
template <class T, int kVecs>
__device__ __forceinline__ void forget(RowPart<T, kVecs>& part) {
#pragma unroll
  for (int i = 0; i < kVecs; ++i) {
    uint32_t word[4];
    __builtin_memcpy(word, &part.v[i], sizeof(word));
    asm volatile("" : "+r"(word[0]), "+r"(word[1]), "+r"(word[2]), "+r"(word[3]));
    __builtin_memcpy(&part.v[i], word, sizeof(word));
  }
}

template <class T, int kVecs>
__device__ __forceinline__ void clear(RowPart<T, kVecs>& part) {
#pragma unroll
  for (int i = 0; i < kVecs; ++i) {
#pragma unroll
    for (int j = 0; j < kVecWidth<T>; ++j) part.v[i].at[j] = from_float<T>(0.0f);
  }
}

/// One row per threadIdx.y; blockDim.y > 1 only where a row takes one warp. hidden is a multiple of
/// the vector width, all rows start at multiples of 16 bytes.
template <class T, int kVecs, Norm kNorm>
__global__ void __launch_bounds__(512) norm_kernel(const __grid_constant__ NormRows<T> p) {
  constexpr int kWidth = kVecWidth<T>;
  using Part = RowPart<T, kVecs>;
  // Two, used in turns: a slow warp may still read the last row's sums.
  __shared__ float scratch[4][32];
  const int vecs = p.hidden / kWidth;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= p.rows) return;

  let_successor_begin();
  wait_for_predecessor();
  Part weight, bias, next, more;
  clear(next);
  clear(more);
  next.read(p.x + row * p.x_stride, vecs);
  if constexpr (kNorm == Norm::kRmsAdd) more.read(p.residual + row * p.residual_stride, vecs);
  weight.read(p.weight, vecs);
  if constexpr (kNorm == Norm::kLayer) {
    if (p.bias != nullptr) {
      bias.read(p.bias, vecs);
    } else {
      clear(bias);
    }
  }

  for (int turn = 0; row < p.rows; row += step, turn ^= 2) {
    forget(weight);
    if constexpr (kNorm == Norm::kLayer) forget(bias);
    Part x = next;  // stays in its storage type: half the registers
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        if constexpr (kNorm == Norm::kRmsAdd)
          x.v[i].at[j] = from_float<T>(to_float(more.v[i].at[j]) + to_float(x.v[i].at[j]));
        const float v = to_float(x.v[i].at[j]);
        sum += kNorm == Norm::kLayer ? v : v * v;
      }
    }
    if constexpr (kNorm == Norm::kRmsAdd) x.write(p.residual + row * p.residual_stride, vecs);
    if (row + step < p.rows) {
      next.read(p.x + (row + step) * p.x_stride, vecs);
      if constexpr (kNorm == Norm::kRmsAdd)
        more.read(p.residual + (row + step) * p.residual_stride, vecs);
    }
    forget(x);
    sum = block_sum(sum, scratch[turn]);
    float mean = 0.0f;
    if constexpr (kNorm == Norm::kLayer) {
      mean = sum * p.inverse_hidden;
      sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kVecs; ++i) {
        if (Part::at(i) >= vecs) continue;
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          const float d = to_float(x.v[i].at[j]) - mean;
          sum += d * d;
        }
      }
      forget(x);
      sum = block_sum(sum, scratch[turn + 1]);
    }
    const float scale = rsqrtf(sum * p.inverse_hidden + p.eps);
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        float v = (to_float(x.v[i].at[j]) - mean) * scale * to_float(weight.v[i].at[j]);
        if constexpr (kNorm == Norm::kLayer) v += to_float(bias.v[i].at[j]);
        x.v[i].at[j] = from_float<T>(v);
      }
    }
    x.write(p.out + row * p.out_stride, vecs);
  }
}

/// Any width and alignment: element by element, each row read again for every pass.
template <class T, Norm kNorm>
__global__ void __launch_bounds__(256) norm_any_kernel(const __grid_constant__ NormRows<T> p) {
  __shared__ float scratch[4][32];
  wait_for_predecessor();
  int turn = 0;
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x, turn ^= 2) {
    const T* x = p.x + row * p.x_stride;
    T* residual = kNorm == Norm::kRmsAdd ? p.residual + row * p.residual_stride : nullptr;
    T* out = p.out + row * p.out_stride;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) {
      float v = to_float(x[i]);
      if constexpr (kNorm == Norm::kRmsAdd) {
        residual[i] = from_float<T>(to_float(residual[i]) + v);
        v = to_float(residual[i]);
      }
      sum += kNorm == Norm::kLayer ? v : v * v;
    }
    sum = block_sum(sum, scratch[turn]);
    float mean = 0.0f;
    if constexpr (kNorm == Norm::kLayer) {
      mean = sum * p.inverse_hidden;
      sum = 0.0f;
      for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) {
        const float d = to_float(x[i]) - mean;
        sum += d * d;
      }
      sum = block_sum(sum, scratch[turn + 1]);
    }
    const float scale = rsqrtf(sum * p.inverse_hidden + p.eps);
    const T* from = kNorm == Norm::kRmsAdd ? residual : x;
    for (int i = threadIdx.x; i < p.hidden; i += blockDim.x) {
      float v = (to_float(from[i]) - mean) * scale * to_float(p.weight[i]);
      if (kNorm == Norm::kLayer && p.bias != nullptr) v += to_float(p.bias[i]);
      out[i] = from_float<T>(v);
    }
  }
}

int round_up_warp(int64_t threads) { return static_cast<int>((threads + 31) / 32 * 32); }

template <class T, int kVecs, Norm kNorm>
void launch_vecs(const NormRows<T>& p, const DeviceFacts& facts, cudaStream_t stream) {
  const int64_t vecs = p.hidden / kVecWidth<T>;
  const int threads = round_up_warp((vecs + kVecs - 1) / kVecs);
  // A row of one warp needs no barrier; four of them make a block.
  const int side_by_side = threads == 32 ? 4 : 1;
  int resident = 0;
  if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, norm_kernel<T, kVecs, kNorm>,
                                                    threads * side_by_side, 0) != cudaSuccess) {
    return;  // launch_status reports it
  }
  // As many blocks as fit at once, or fewer where that gives all of them as many rows.
  const int64_t most = int64_t{facts.multiprocessors} * std::max(1, resident);
  const int64_t groups = (p.rows + side_by_side - 1) / side_by_side;
  const int64_t turns = (groups + most - 1) / most;
  const dim3 block(static_cast<unsigned>(threads), static_cast<unsigned>(side_by_side));
  launch_overlapped(norm_kernel<T, kVecs, kNorm>, (groups + turns - 1) / turns, block,
                    facts.capability, facts.multiprocessors, stream, p);
}

template <class T, Norm kNorm>
Status launch(const char* op, const NormRows<T>& p, Device device, Stream stream) {
  if (p.rows == 0 || p.hidden == 0) return {};
  const auto facts = device_facts(device);
  if (!facts.ok()) return facts.status();
  const DeviceGuard guard(device);
  constexpr int kWidth = kVecWidth<T>;
  const int64_t vecs = p.hidden / kWidth;
  const bool aligned = p.hidden % kWidth == 0 && rows_aligned16<T>(p.x, p.x_stride) &&
                       rows_aligned16<T>(p.out, p.out_stride) && rows_aligned16<T>(p.weight, 0) &&
                       rows_aligned16<T>(p.bias, 0) &&
                       rows_aligned16<T>(p.residual, p.residual_stride);
  const DeviceFacts& device_is = *facts.value();
  const cudaStream_t queue = stream_of(stream);
  if (!aligned || vecs > 4 * 512) {
    launch_overlapped(norm_any_kernel<T, kNorm>,
                      std::min<int64_t>(p.rows, 8 * device_is.multiprocessors), dim3(256),
                      device_is.capability, device_is.multiprocessors, queue, p);
  } else if (vecs <= 32 || (vecs > 64 && vecs <= 256)) {
    launch_vecs<T, 1, kNorm>(p, device_is, queue);
  } else if (vecs <= 1024) {
    launch_vecs<T, 2, kNorm>(p, device_is, queue);
  } else {
    launch_vecs<T, 4, kNorm>(p, device_is, queue);
  }
  return launch_status(op);
}

}  // namespace
}  // namespace mmcore::cuda

namespace mmcore::ops::cuda {

using mmcore::cuda::device_t;
using mmcore::cuda::Norm;
using mmcore::cuda::NormRows;

Status rms_norm(const RmsNormArgs& args, Stream stream) {
  return dispatch_float(args.x.dtype, "rms_norm", [&]<class E>() -> Status {
    using T = device_t<E>;
    const bool adds = args.residual.present;
    const NormRows<T> rows{.x = args.x.ptr<const T>(),
                           .weight = args.weight.ptr<const T>(),
                           .bias = nullptr,
                           .residual = adds ? args.residual.ptr<T>() : nullptr,
                           .out = args.out.ptr<T>(),
                           .rows = args.x.size(0),
                           .x_stride = args.x.stride(0),
                           .residual_stride = adds ? args.residual.stride(0) : 0,
                           .out_stride = args.out.stride(0),
                           .hidden = static_cast<int32_t>(args.x.size(1)),
                           .inverse_hidden = 1.0f / static_cast<float>(args.x.size(1)),
                           .eps = args.eps};
    return adds ? mmcore::cuda::launch<T, Norm::kRmsAdd>("rms_norm", rows, args.x.device, stream)
                : mmcore::cuda::launch<T, Norm::kRms>("rms_norm", rows, args.x.device, stream);
  });
}

Status layer_norm(const LayerNormArgs& args, Stream stream) {
  return dispatch_float(args.x.dtype, "layer_norm", [&]<class E>() -> Status {
    using T = device_t<E>;
    const NormRows<T> rows{.x = args.x.ptr<const T>(),
                           .weight = args.weight.ptr<const T>(),
                           .bias = args.bias.present ? args.bias.ptr<const T>() : nullptr,
                           .residual = nullptr,
                           .out = args.out.ptr<T>(),
                           .rows = args.x.size(0),
                           .x_stride = args.x.stride(0),
                           .residual_stride = 0,
                           .out_stride = args.out.stride(0),
                           .hidden = static_cast<int32_t>(args.x.size(1)),
                           .inverse_hidden = 1.0f / static_cast<float>(args.x.size(1)),
                           .eps = args.eps};
    return mmcore::cuda::launch<T, Norm::kLayer>("layer_norm", rows, args.x.device, stream);
  });
}

}  // namespace mmcore::ops::cuda
