// The device's side of host/launch.h.
#pragma once

namespace mmcore::cuda {

/// Returns when the kernel in front has ended and its writes are visible, and lets the next one
/// begin. Without overlap, or before Hopper, it does nothing.
__device__ __forceinline__ void wait_for_predecessor() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Lets the next kernel begin while the one in front may still run, for what it reads before it
/// waits: for short kernels between products, whose weights are then read meanwhile.
__device__ __forceinline__ void let_successor_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace mmcore::cuda
