#include "ops/device.h"

#include <string>

namespace mmcore::ops {

Status no_kernels_for(const char* op, Device device) {
  const std::string name = device.type == DeviceType::kCuda ? "CUDA" : "this device's";
  return Status::unsupported(std::string(op) + ": this build has no " + name +
                             " kernels; build with MMCORE_CUDA=on or move the tensors to the CPU");
}

}  // namespace mmcore::ops
