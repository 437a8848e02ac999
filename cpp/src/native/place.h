// Where a model computes: the CPU, or a GPU and the queue of the model's work there.
#pragma once

#include <cstdint>
#include <string>

#include "mmcore/status.h"
#include "mmcore/stream.h"
#include "mmcore/tensor.h"
#include "mmcore/types.h"

namespace mmcore::native {

struct Place {
  Device device{};
  Stream stream{};
  bool on_gpu() const { return device.type == DeviceType::kCuda; }
};

/// Reads "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N"; a device that cannot be used
/// is an error.
Result<Device> parse_device(const std::string& text);
std::string to_string(Device device);  // "cpu", "cuda:0"

// On a CPU these are done when they return; on a GPU they are in its stream. Between device memory
// and the host's, or within either.

Status copy(const Place& place, void* to, const void* from, int64_t bytes);
/// Rows of `row_bytes`, which begin `to_stride` and `from_stride` bytes apart.
Status copy_rows(const Place& place, void* to, int64_t to_stride, const void* from,
                 int64_t from_stride, int64_t row_bytes, int64_t rows);
Status fill_zeros(const Place& place, const TensorView& contiguous);

}  // namespace mmcore::native
