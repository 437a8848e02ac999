// Whether wide accesses are possible.
#pragma once

#include <cstdint>

namespace mmcore::cuda {

/// True when every row of [p, stride in elements of `size` bytes] starts at a multiple of 16 bytes.
inline bool rows_aligned16(const void* p, int64_t stride, int64_t size) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && stride * size % 16 == 0;
}

}  // namespace mmcore::cuda
