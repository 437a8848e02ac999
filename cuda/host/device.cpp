#include "host/device.h"

#include <array>
#include <mutex>
#include <string>

namespace mmcore::cuda {
namespace {

constexpr int kMaxDevices = 64;

struct Slot {
  std::once_flag once;
  cudaError_t error = cudaSuccess;
  DeviceFacts facts;
};

void read_facts(int index, Slot& slot) {
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    if (slot.error == cudaSuccess) slot.error = cudaDeviceGetAttribute(&value, which, index);
    return value;
  };
  slot.facts.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
  slot.facts.capability = 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
                          attribute(cudaDevAttrComputeCapabilityMinor);
  slot.facts.shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  slot.facts.l2_bytes = attribute(cudaDevAttrL2CacheSize);
  // Told in the Result; left with the runtime, the next launch would be taken to have failed.
  if (slot.error != cudaSuccess) static_cast<void>(cudaGetLastError());
}

}  // namespace

Result<const DeviceFacts*> device_facts(Device device) {
  static std::array<Slot, kMaxDevices> slots;
  if (device.index < 0 || device.index >= kMaxDevices) {
    return Status::unsupported("cuda:" + std::to_string(device.index) +
                               " is no device; expected 0 to " + std::to_string(kMaxDevices - 1));
  }
  Slot& slot = slots[static_cast<size_t>(device.index)];
  std::call_once(slot.once, [&] { read_facts(device.index, slot); });
  if (slot.error != cudaSuccess) {
    cudaGetLastError();  // told here; the next launch shall not find it
    return Status::unsupported("cuda:" + std::to_string(device.index) +
                               " cannot be used: " + cudaGetErrorString(slot.error));
  }
  return &slot.facts;
}

Status cuda_status(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return {};
  return Status::internal(std::string(op) + ": " + cudaGetErrorName(error) + ", " +
                          cudaGetErrorString(error));
}

}  // namespace mmcore::cuda
