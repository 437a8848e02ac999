// What host code of the CUDA backend asks of the runtime: facts of a device, and errors as Status.
#pragma once

#include <cuda_runtime_api.h>

#include "mmcore/status.h"
#include "mmcore/stream.h"
#include "mmcore/types.h"

namespace mmcore::cuda {

struct DeviceFacts {
  int multiprocessors = 0;
  int capability = 0;    // 10 * major + minor: 90 on an H100
  int shared_bytes = 0;  // that one block may use after opting in
  int64_t l2_bytes = 0;
};

/// Read once per device; kUnsupported names an index that does not exist.
Result<const DeviceFacts*> device_facts(Device device);

/// Makes `device` current for the life of the guard.
class DeviceGuard {
 public:
  explicit DeviceGuard(Device device) {
    if (cudaGetDevice(&previous_) == cudaSuccess && previous_ != device.index) {
      changed_ = cudaSetDevice(device.index) == cudaSuccess;
    }
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(previous_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
  bool changed_ = false;
};

inline cudaStream_t stream_of(Stream stream) { return static_cast<cudaStream_t>(stream.handle); }

/// Ok, or kInternal with "op: what the runtime says".
Status cuda_status(const char* op, cudaError_t error);
/// The launch that has just been made.
inline Status launch_status(const char* op) { return cuda_status(op, cudaGetLastError()); }

/// Lets `kernel` use `bytes` of dynamic shared memory; above 48 KiB a kernel must opt in.
template <class Kernel>
Status allow_shared(const char* op, Kernel* kernel, int bytes) {
  if (bytes <= 48 * 1024) return {};
  return cuda_status(op, cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                              cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
}

}  // namespace mmcore::cuda
