#include "ops/linear_pairs_vec.h"
#include "ops/linear_table_vec.h"

namespace mmcore::ops::avx512bf16 {

const LinearKernels& linear_kernels() { return simd::kLinearKernels<simd::PairMath>; }

}  // namespace mmcore::ops::avx512bf16
