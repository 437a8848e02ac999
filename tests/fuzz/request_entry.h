// The entry of the request fuzzer: bytes become a request, and the request a short life.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mmcore::fuzz {

struct Served {
  int64_t accepted = 0;
  int64_t refused = 0;
};

/// Submits the request that the bytes describe, runs a few steps and aborts it. Throws when the
/// engine does anything but refuse it or serve it: a broken invariant, a broken engine, a plan that
/// a runner would read out of bounds with, something held at the end.
void run_request(const uint8_t* data, size_t size);

/// What became of the requests so far.
Served served();

}  // namespace mmcore::fuzz
