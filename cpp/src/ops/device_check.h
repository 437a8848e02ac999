// What an op answers when its tensors are where it has no kernel.
#pragma once

#include <string>

#include "mmcore/ops.h"

namespace mmcore::ops {

/// Ok on the CPU; elsewhere kUnsupported, for ops or builds without a kernel for that device.
inline Status require_cpu(const char* op, Device device) {
  if (device.type == DeviceType::kCpu) return {};
  return Status::unsupported(std::string(op) + ": this build has no CUDA kernel for it, and the " +
                             "tensors are on cuda:" + std::to_string(device.index) +
                             "; move them to the CPU or build mmcore with CUDA");
}

}  // namespace mmcore::ops
