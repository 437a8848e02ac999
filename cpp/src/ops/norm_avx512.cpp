#include "ops/norm_vec.h"

namespace mmcore::ops::avx512 {

template <class T>
void rms_norm(const NormRows<T>& rows, int64_t begin, int64_t end) {
  simd::rms_norm_rows(rows, begin, end);
}

template <class T>
void layer_norm(const NormRows<T>& rows, int64_t begin, int64_t end) {
  simd::layer_norm_rows(rows, begin, end);
}

template void rms_norm<float>(const NormRows<float>&, int64_t, int64_t);
template void rms_norm<bf16>(const NormRows<bf16>&, int64_t, int64_t);
template void rms_norm<f16>(const NormRows<f16>&, int64_t, int64_t);
template void layer_norm<float>(const NormRows<float>&, int64_t, int64_t);
template void layer_norm<bf16>(const NormRows<bf16>&, int64_t, int64_t);
template void layer_norm<f16>(const NormRows<f16>&, int64_t, int64_t);

}  // namespace mmcore::ops::avx512
