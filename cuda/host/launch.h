// Launching a kernel that may begin before the one in front of it on the stream has ended.
//
// Such a kernel calls wait_for_predecessor() (device/overlap.cuh) in every thread, also in blocks
// without work, and before it touches memory; what overlaps is its launch. Decode reads its plan
// and the block tables before that, products read steady weights, which the kernel in front does
// not write. Norms and activations let the next kernel begin before they wait themselves. Pays for
// short kernels: about 0.3 us of 1.1 us between two of them in a graph on an H100, but costs where
// a grid is several times what the device holds.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

namespace mmcore::cuda {

/// What a block has besides its threads.
struct BlockExtras {
  int shared = 0;   // bytes of dynamic shared memory
  int cluster = 1;  // blocks of a cluster, from Hopper on; divides the number of blocks
};

template <class... Params, class... Args>
void launch_overlapped_with(BlockExtras extras, void (*kernel)(Params...), int64_t blocks,
                            dim3 threads, int capability, int multiprocessors, cudaStream_t stream,
                            Args&&... args) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (capability >= 90 && blocks <= int64_t{8} * multiprocessors) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (extras.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {static_cast<unsigned>(extras.cluster), 1, 1};
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = threads;
  config.dynamicSmemBytes = static_cast<size_t>(extras.shared);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  // An error stays with the runtime, where launch_status finds it.
  static_cast<void>(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...));
}

template <class... Params, class... Args>
void launch_overlapped(void (*kernel)(Params...), int64_t blocks, dim3 threads, int capability,
                       int multiprocessors, cudaStream_t stream, Args&&... args) {
  launch_overlapped_with({}, kernel, blocks, threads, capability, multiprocessors, stream,
                         std::forward<Args>(args)...);
}

}  // namespace mmcore::cuda
