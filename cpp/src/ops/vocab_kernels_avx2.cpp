#include "ops/vocab_kernels_vec.h"

namespace mmcore::ops::avx2 {

template <class T>
bool load_row(const T* logits, int64_t n, float* row, float* block_max) {
  return simd::load_row_loop(logits, n, row, block_max);
}

template bool load_row<float>(const float*, int64_t, float*, float*);
template bool load_row<bf16>(const bf16*, int64_t, float*, float*);
template bool load_row<f16>(const f16*, int64_t, float*, float*);

const VocabKernels vocab_kernels = {.weigh = simd::weigh,
                                    .select = simd::select_from,
                                    .sum_from = simd::sum_from,
                                    .count_above = simd::count_above};

}  // namespace mmcore::ops::avx2
