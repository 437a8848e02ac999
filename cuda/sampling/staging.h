// Memory of one thread for one device: pinned on the host, its counterpart on the device, and marks
// that are zero between calls. It grows and is kept: growing waits for the device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mmcore/status.h"
#include "mmcore/types.h"

namespace mmcore::cuda {

class Staging {
 public:
  /// The calling thread's for `device`, which is current.
  static Staging& of(Device device);

  Staging() = default;
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Makes each part at least that large; what they held is lost.
  Status reserve(size_t host_bytes, size_t device_bytes, size_t mark_bytes);

  std::byte* host() const { return static_cast<std::byte*>(host_); }
  std::byte* device() const { return static_cast<std::byte*>(device_); }
  int32_t* marks() const { return static_cast<int32_t*>(marks_); }

 private:
  void* host_ = nullptr;
  void* device_ = nullptr;
  void* marks_ = nullptr;
  size_t host_bytes_ = 0;
  size_t device_bytes_ = 0;
  size_t mark_bytes_ = 0;
};

/// Places arrays one behind the other, each at a multiple of 16 bytes.
class Layout {
 public:
  template <class T>
  size_t add(size_t count) {
    const size_t at = size_;
    size_ = (size_ + count * sizeof(T) + 15) / 16 * 16;
    return at;
  }
  size_t size() const { return size_; }

 private:
  size_t size_ = 0;
};

}  // namespace mmcore::cuda
