// Descriptions of matrices for the bulk tensor copy engine.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "mmcore/status.h"
#include "mmcore/types.h"

namespace mmcore::cuda {

/// A row-major matrix of 16-bit floats [rows, columns], read in boxes of box_rows x box_columns
/// whose rows are 128 bytes and swizzled over them. `data` and the stride in bytes are multiples of
/// 16.
Status row_map(const char* op, DType dtype, const void* data, int64_t rows, int64_t columns,
               int64_t stride, int box_rows, int box_columns, CUtensorMap& map);

}  // namespace mmcore::cuda
