#include "sampling/staging.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <map>
#include <utility>

#include "host/device.h"

namespace mmcore::cuda {

Staging& Staging::of(Device device) {
  static thread_local std::map<int32_t, Staging> all;
  return all[device.index];
}

// At the process's end the runtime may be gone already; then its memory is, too.
Staging::~Staging() {
  cudaFreeHost(host_);
  cudaFree(device_);
  cudaFree(marks_);
}

Status Staging::reserve(size_t host_bytes, size_t device_bytes, size_t mark_bytes) {
  const auto grown = [](size_t has, size_t wants) { return std::max(wants, has + has / 2); };
  if (host_bytes > host_bytes_) {
    const size_t bytes = grown(host_bytes_, host_bytes);
    cudaFreeHost(std::exchange(host_, nullptr));
    host_bytes_ = 0;
    MMCORE_RETURN_IF_ERROR(cuda_status("sample", cudaMallocHost(&host_, bytes)));
    host_bytes_ = bytes;
  }
  if (device_bytes > device_bytes_) {
    const size_t bytes = grown(device_bytes_, device_bytes);
    cudaFree(std::exchange(device_, nullptr));
    device_bytes_ = 0;
    MMCORE_RETURN_IF_ERROR(cuda_status("sample", cudaMalloc(&device_, bytes)));
    device_bytes_ = bytes;
  }
  if (mark_bytes > mark_bytes_) {
    const size_t bytes = grown(mark_bytes_, mark_bytes);
    cudaFree(std::exchange(marks_, nullptr));
    mark_bytes_ = 0;
    MMCORE_RETURN_IF_ERROR(cuda_status("sample", cudaMalloc(&marks_, bytes)));
    // Done before any stream goes on: kernels run on streams that do not wait for the default one.
    MMCORE_RETURN_IF_ERROR(cuda_status("sample", cudaMemset(marks_, 0, bytes)));
    MMCORE_RETURN_IF_ERROR(cuda_status("sample", cudaDeviceSynchronize()));
    mark_bytes_ = bytes;
  }
  return {};
}

}  // namespace mmcore::cuda
