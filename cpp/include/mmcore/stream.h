// The queue that device work is ordered on.
#pragma once

namespace mmcore {

/// A cudaStream_t as an opaque pointer; ignored by the CPU, where ops return when they are done.
struct Stream {
  void* handle = nullptr;
};

}  // namespace mmcore
