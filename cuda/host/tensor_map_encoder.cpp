#include "host/tensor_map_encoder.h"

#include <cuda_runtime_api.h>

namespace mmcore::cuda {

TensorMapEncoder tensor_map_encoder() {
  static const TensorMapEncoder encoder = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
    constexpr unsigned kCuda12 = 12000;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry,
                                                               kCuda12, cudaEnableDefault, &found);
    const bool usable = error == cudaSuccess && found == cudaDriverEntryPointSuccess;
    return usable ? reinterpret_cast<TensorMapEncoder>(entry) : nullptr;
  }();
  return encoder;
}

}  // namespace mmcore::cuda
