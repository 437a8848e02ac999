#include "native/place.h"

#include <charconv>
#include <cstring>

#include "mmcore/gpu.h"

namespace mmcore::native {

Result<Device> parse_device(const std::string& text) {
  if (text == "cpu") return Device{};
  if (text == "auto" || text.empty())
    return gpu::device_count() > 0 ? Device{DeviceType::kCuda, 0} : Device{};
  Device device{DeviceType::kCuda, 0};
  bool valid = text == "cuda";
  if (text.starts_with("cuda:")) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + 5, end, device.index);
    valid = error == std::errc() && stop == end && device.index >= 0;
  }
  if (!valid)
    return Status::invalid_argument("device is '" + text +
                                    "', expected auto, cpu, cuda or cuda:N with a number N");
  const auto found = gpu::properties(device);
  if (!found.ok()) return found.status();
  return device;
}

std::string to_string(Device device) {
  return device.type == DeviceType::kCpu ? "cpu" : "cuda:" + std::to_string(device.index);
}

Status copy(const Place& place, void* to, const void* from, int64_t bytes) {
  if (place.on_gpu()) return gpu::copy(place.device, to, from, bytes, place.stream);
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  return {};
}

Status copy_rows(const Place& place, void* to, int64_t to_stride, const void* from,
                 int64_t from_stride, int64_t row_bytes, int64_t rows) {
  if (place.on_gpu())
    return gpu::copy_rows(place.device, to, to_stride, from, from_stride, row_bytes, rows,
                          place.stream);
  auto* target = static_cast<uint8_t*>(to);
  const auto* source = static_cast<const uint8_t*>(from);
  for (int64_t i = 0; i < rows; ++i, target += to_stride, source += from_stride)
    std::memcpy(target, source, static_cast<size_t>(row_bytes));
  return {};
}

Status fill_zeros(const Place& place, const TensorView& contiguous) {
  const int64_t bytes = contiguous.numel() * static_cast<int64_t>(size_of(contiguous.dtype));
  if (place.on_gpu()) return gpu::fill_zeros(place.device, contiguous.data, bytes, place.stream);
  if (bytes > 0) std::memset(contiguous.data, 0, static_cast<size_t>(bytes));
  return {};
}

}  // namespace mmcore::native
