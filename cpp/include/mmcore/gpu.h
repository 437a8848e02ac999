// What a C++ program that computes on a GPU needs besides ops.h: memory, streams, events and
// graphs, without CUDA's headers or libraries. A runner of a host's own may be written on it.
//
// In a build without CUDA kernels device_count() is 0 and everything else is kUnsupported. Memory
// that is lacking is kUnservable, and what the driver refuses for another reason kInternal. Objects
// are moved, not copied, and belong to one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "mmcore/export.h"
#include "mmcore/status.h"
#include "mmcore/stream.h"
#include "mmcore/types.h"

namespace mmcore::gpu {

/// GPUs that this process can use.
MMCORE_API int32_t device_count();

struct Properties {
  std::string name;
  int32_t capability = 0;  // 10 * major + minor: 90 on an H100
  int32_t multiprocessors = 0;
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;  // at the time of the call
};
MMCORE_API Result<Properties> properties(Device device);

/// Memory of a GPU, or of the host where a GPU copies by itself. Freed with the object, which waits
/// for the work of that GPU.
class MMCORE_API Memory {
 public:
  /// Zeros in a GPU's memory, at a multiple of 256 bytes.
  static Result<Memory> on_device(Device device, int64_t bytes);
  /// Pinned memory of the host.
  static Result<Memory> pinned(Device device, int64_t bytes);
  Memory() = default;
  ~Memory();
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void swap(Memory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(device_, other.device_);
    std::swap(pinned_, other.pinned_);
  }
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  Device device_{};
  bool pinned_ = false;
};

/// A queue of work on a GPU, which waits for no other.
class MMCORE_API OwnedStream {
 public:
  static Result<OwnedStream> make(Device device);
  OwnedStream() = default;
  ~OwnedStream();
  OwnedStream(OwnedStream&& other) noexcept { swap(other); }
  OwnedStream& operator=(OwnedStream&& other) noexcept {
    swap(other);
    return *this;
  }

  Stream get() const { return stream_; }
  /// Returns when all of it is done; an error of any of it is this call's.
  Status wait() const;

 private:
  void swap(OwnedStream& other) noexcept {
    std::swap(stream_, other.stream_);
    std::swap(device_, other.device_);
  }
  Stream stream_{};
  Device device_{};
};

/// A point in a stream that the host can wait for.
class MMCORE_API Event {
 public:
  static Result<Event> make(Device device);
  Event() = default;
  ~Event();
  Event(Event&& other) noexcept { swap(other); }
  Event& operator=(Event&& other) noexcept {
    swap(other);
    return *this;
  }

  Status record(Stream stream) const;
  /// Returns when what was in the stream at the last record() is done; at once before any.
  Status wait() const;

 private:
  void swap(Event& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(device_, other.device_);
  }
  void* handle_ = nullptr;
  Device device_{};
};

/// Work that is put into a stream as a whole.
class MMCORE_API Graph {
 public:
  /// Records what `work` puts into `stream`, without running it. `work` must neither wait nor
  /// allocate; other threads may do what they like.
  static Result<Graph> capture(Device device, Stream stream, const std::function<Status()>& work);
  Graph() = default;
  ~Graph();
  Graph(Graph&& other) noexcept { swap(other); }
  Graph& operator=(Graph&& other) noexcept {
    swap(other);
    return *this;
  }

  Status launch(Stream stream) const;

 private:
  void swap(Graph& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(device_, other.device_);
  }
  void* handle_ = nullptr;
  Device device_{};
};

// Copies in the order of the stream, between any two of host and device memory. They return before
// they are done, unless host memory is not pinned.

MMCORE_API Status copy(Device device, void* to, const void* from, int64_t bytes, Stream stream);
/// Rows of `row_bytes`, which begin `to_stride` and `from_stride` bytes apart.
MMCORE_API Status copy_rows(Device device, void* to, int64_t to_stride, const void* from,
                            int64_t from_stride, int64_t row_bytes, int64_t rows, Stream stream);
/// Sets device memory to zeros.
MMCORE_API Status fill_zeros(Device device, void* to, int64_t bytes, Stream stream);

}  // namespace mmcore::gpu
