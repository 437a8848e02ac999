// Launching a kernel that may begin before the one in front of it on the stream has ended.
//
// Such a kernel calls wait_for_predecessor() (device/overlap.cuh) in every thread, also in blocks
// without work, and before it touches memory; what overlaps is its launch. Decode reads its plan
// and the block tables before that, which the kernel in front does not write. Pays for short
// kernels: about 0.3 us of 1.1 us between two of them in a graph on an H100, but costs where a grid
// is several times what the device holds.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

namespace mmcore::cuda {

/// `shared`: bytes of dynamic shared memory.
template <class... Params, class... Args>
void launch_overlapped_shared(void (*kernel)(Params...), int64_t blocks, dim3 threads, int shared,
                              int capability, int multiprocessors, cudaStream_t stream,
                              Args&&... args) {
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = threads;
  config.dynamicSmemBytes = static_cast<size_t>(shared);
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = capability >= 90 && blocks <= int64_t{8} * multiprocessors ? 1 : 0;
  // An error stays with the runtime, where launch_status finds it.
  static_cast<void>(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...));
}

template <class... Params, class... Args>
void launch_overlapped(void (*kernel)(Params...), int64_t blocks, dim3 threads, int capability,
                       int multiprocessors, cudaStream_t stream, Args&&... args) {
  launch_overlapped_shared(kernel, blocks, threads, 0, capability, multiprocessors, stream,
                           std::forward<Args>(args)...);
}

}  // namespace mmcore::cuda
