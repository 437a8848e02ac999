// The way of a checkpoint's tensors to a GPU: converted piece by piece into pinned memory, while
// the piece before travels.
#pragma once

#include <array>
#include <cstddef>

#include "mmcore/gpu.h"
#include "mmcore/status.h"
#include "mmcore/tensor.h"
#include "native/place.h"

namespace mmcore::native {

class WeightUpload {
 public:
  explicit WeightUpload(const Place& place) : place_(place) {}
  ~WeightUpload() { static_cast<void>(finish()); }
  WeightUpload(const WeightUpload&) = delete;
  WeightUpload& operator=(const WeightUpload&) = delete;

  /// Copies `from`, which may lie at any address of the host, to as many elements on the GPU.
  Status copy(const TensorView& from, const TensorView& to);
  /// Returns when everything has arrived.
  Status finish();

 private:
  struct Buffer {
    gpu::Memory memory;
    gpu::Event sent;
  };
  Status next(Buffer*& buffer);

  Place place_;
  std::array<Buffer, 2> buffers_;
  size_t turn_ = 0;
};

}  // namespace mmcore::native
