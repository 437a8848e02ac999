// A HostTensor's copy on the GPU, with the same strides, gaps and guards.
#pragma once

#include "device_tensor.h"
#include "ops/host_tensor.h"

namespace mmcore::cuda {

class Mirror {
 public:
  /// Absent where `host` is.
  explicit Mirror(const ops::testing::HostTensor& host);

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: stands for its view in arguments
  /// Waits for the device and copies everything back into the tensor that this was made from.
  void fetch(ops::testing::HostTensor& host) const;

 private:
  DeviceTensor bytes_;
  TensorView view_;
  size_t shift_ = 0;  // keeps the first element at a multiple of 64 bytes
};

}  // namespace mmcore::cuda
