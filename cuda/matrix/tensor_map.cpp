#include "matrix/tensor_map.h"

#include <string>

#include "host/tensor_map_encoder.h"

namespace mmcore::cuda {

Status row_map(const char* op, DType dtype, const void* data, int64_t rows, int64_t columns,
               int64_t stride, int box_rows, int box_columns, CUtensorMap& map) {
  const TensorMapEncoder encode = tensor_map_encoder();
  if (encode == nullptr) {
    return Status::unsupported(std::string(op) +
                               ": the driver has no cuTensorMapEncodeTiled; expected CUDA 12");
  }
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride) * size_of(dtype)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(box_columns),
                             static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result =
      encode(&map,
             dtype == DType::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
             2, const_cast<void*>(data), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result == CUDA_SUCCESS) return {};
  return Status::internal(std::string(op) + ": cuTensorMapEncodeTiled failed with " +
                          std::to_string(static_cast<int>(result)) + " for [" +
                          std::to_string(rows) + ", " + std::to_string(columns) + "], stride " +
                          std::to_string(stride));
}

}  // namespace mmcore::cuda
