// copy_blocks. A pair may read what an earlier pair wrote, so threads share the bytes of a block,
// not the pairs: each goes through all pairs in order with its own bytes. Several pairs are in
// flight at a time as long as none of them reads what another one of them writes.
#include <algorithm>

#include "host/device.h"
#include "ops/cuda_backend.h"

namespace mmcore::cuda {
namespace {

struct BlockCopy {
  char* cache;
  const int64_t* pairs;  // source, destination; rows pair_stride apart
  int64_t pair_stride;
  int64_t num_pairs;
  int64_t num_blocks;
  int64_t block_stride;  // bytes
  int64_t units;         // of a block
};

constexpr int kInFlight = 8;

template <class Unit>
__global__ void __launch_bounds__(128) copy_blocks_kernel(const __grid_constant__ BlockCopy p) {
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (unit >= p.units) return;
  char* const base = p.cache + unit * static_cast<int64_t>(sizeof(Unit));
  for (int64_t begin = 0; begin < p.num_pairs; begin += kInFlight) {
    int64_t from[kInFlight], to[kInFlight];
    bool ordered = false;  // whether one of these reads what an earlier one of these writes
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      from[i] = to[i] = 0;
      if (begin + i < p.num_pairs) {
        const int64_t* pair = p.pairs + (begin + i) * p.pair_stride;
        const int64_t source = pair[0], destination = pair[1];
        // A pair that names no block is ignored: from == to.
        if (source >= 0 && source < p.num_blocks && destination >= 0 &&
            destination < p.num_blocks) {
          from[i] = source;
          to[i] = destination;
        }
      }
#pragma unroll
      for (int earlier = 0; earlier < i; ++earlier) {
        ordered |= from[i] == to[earlier] && from[earlier] != to[earlier];
      }
    }
    if (ordered) {
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        if (from[i] == to[i]) continue;
        *reinterpret_cast<Unit*>(base + to[i] * p.block_stride) =
            *reinterpret_cast<const Unit*>(base + from[i] * p.block_stride);
      }
      continue;
    }
    Unit held[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (from[i] != to[i])
        held[i] = *reinterpret_cast<const Unit*>(base + from[i] * p.block_stride);
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      if (from[i] != to[i]) *reinterpret_cast<Unit*>(base + to[i] * p.block_stride) = held[i];
    }
  }
}

template <class Unit>
bool launch(BlockCopy p, int64_t block_bytes, cudaStream_t stream) {
  constexpr int64_t kUnit = sizeof(Unit);
  if (reinterpret_cast<uintptr_t>(p.cache) % kUnit != 0 || p.block_stride % kUnit != 0 ||
      block_bytes % kUnit != 0) {
    return false;
  }
  p.units = block_bytes / kUnit;
  copy_blocks_kernel<Unit><<<static_cast<unsigned>((p.units + 127) / 128), 128, 0, stream>>>(p);
  return true;
}

}  // namespace
}  // namespace mmcore::cuda

namespace mmcore::ops::cuda {

Status copy_blocks(const TensorView& cache, const TensorView& pairs, Stream stream) {
  namespace mc = mmcore::cuda;
  const auto element = static_cast<int64_t>(size_of(cache.dtype));
  int64_t block_bytes = element;
  for (int axis = 1; axis < cache.rank; ++axis) block_bytes *= cache.size(axis);
  if (block_bytes == 0 || pairs.size(0) == 0 || cache.size(0) == 0) return {};
  const mc::DeviceGuard guard(cache.device);
  const mc::BlockCopy p{.cache = cache.ptr<char>(),
                        .pairs = pairs.ptr<const int64_t>(),
                        .pair_stride = pairs.stride(0),
                        .num_pairs = pairs.size(0),
                        .num_blocks = cache.size(0),
                        .block_stride = cache.stride(0) * element,
                        .units = 0};
  const cudaStream_t queue = mc::stream_of(stream);
  if (!mc::launch<uint4>(p, block_bytes, queue) && !mc::launch<uint32_t>(p, block_bytes, queue))
    mc::launch<uint8_t>(p, block_bytes, queue);
  return mc::launch_status("copy_blocks");
}

}  // namespace mmcore::ops::cuda
