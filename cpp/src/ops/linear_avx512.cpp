#include "ops/linear_table_vec.h"

namespace mmcore::ops::avx512 {

template <class T>
const LinearKernels& linear_kernels() {
  return simd::kLinearKernels<simd::FloatMath<T>>;
}

template const LinearKernels& linear_kernels<float>();
template const LinearKernels& linear_kernels<bf16>();
template const LinearKernels& linear_kernels<f16>();

}  // namespace mmcore::ops::avx512
