// A cluster's barrier and its distributed shared memory, for kernels that also compile for devices
// without clusters, where they are launched with blocks on their own.
#pragma once

#include <cstdint>

namespace mmcore::cuda {

/// A barrier of all threads of the cluster, behind which all see what each has written.
__device__ __forceinline__ void cluster_barrier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "barrier.cluster.arrive.release;\n"
      "barrier.cluster.wait.acquire;" ::
          : "memory");
#endif
}

/// What lies at `shared` in the shared memory of the cluster's block `rank`.
template <class V>
__device__ __forceinline__ V* in_block(V* shared, int rank) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  uint64_t there;
  asm volatile("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(shared), "r"(rank));
  return reinterpret_cast<V*>(there);
#else
  return shared;
#endif
}

}  // namespace mmcore::cuda
