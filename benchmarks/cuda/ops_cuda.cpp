// Times the CUDA ops from C++ alone: one shape each, microseconds per call beside the floor that
// the device's memory sets. Results are checked by the tests; here a call that fails ends the run.
//
// Usage: mmcore_bench_cuda
#include <cstdio>
#include <string>

#include "graph_timing.h"
#include "mmcore/ops.h"

namespace {

using namespace mmcore;         // NOLINT: a program of its own
using namespace mmcore::bench;  // NOLINT

constexpr double kReadBytesPerUs = 3.1e6;  // an H100's device memory, read only

/// Zeros on the first GPU, kept until the program ends.
[[maybe_unused]] TensorView zeros(DType dtype, std::initializer_list<int64_t> dims) {
  TensorView t(nullptr, dtype, dims, Device{DeviceType::kCuda, 0});
  const auto bytes = static_cast<size_t>(t.numel()) * size_of(dtype);
  must(cudaMalloc(&t.data, bytes));
  must(cudaMemset(t.data, 0, bytes));
  return t;
}

[[maybe_unused]] void report(const std::string& name, double us, double bytes) {
  const double floor = bytes / kReadBytesPerUs;
  std::printf("%-44s %9.2f us   floor %8.2f us   %5.2fx\n", name.c_str(), us, floor, us / floor);
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no GPU here: nothing to time");
    return 0;
  }
  cudaDeviceProp properties{};
  must(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s\n", properties.name);
  return 0;
}
