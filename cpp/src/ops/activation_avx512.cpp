#include "ops/activation.h"
#include "ops/activation_vec.h"

namespace mmcore::ops::avx512 {

template <class T>
void activation(const T* x, const T* up, T* out, int64_t n, Activation kind) {
  simd::activation_loop(x, up, out, n, kind);
}

template void activation<float>(const float*, const float*, float*, int64_t, Activation);
template void activation<bf16>(const bf16*, const bf16*, bf16*, int64_t, Activation);
template void activation<f16>(const f16*, const f16*, f16*, int64_t, Activation);

}  // namespace mmcore::ops::avx512
