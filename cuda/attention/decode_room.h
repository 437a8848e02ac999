// How many warps of decode find shared memory.
#pragma once

#include "host/device.h"

namespace mmcore::cuda {

/// What leaves room for another block on a multiprocessor.
inline int half_of_shared(const DeviceFacts& facts) {
  constexpr int kReserved = 1024;  // of each block, by the system
  return (facts.shared_bytes + kReserved) / 2 - kReserved;
}

inline int warps_within(int (*bytes)(int), int limit, int most, int fewest) {
  int warps = most;
  while (warps > fewest && bytes(warps) > limit) --warps;
  return warps;
}

}  // namespace mmcore::cuda
