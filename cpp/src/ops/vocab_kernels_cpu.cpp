#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/vocab_kernels.h"
#include "tensor/half.h"

namespace mmcore::ops::reference {
namespace {

void weigh(const float* row, int64_t n, float max, float inverse_temperature, float* weights,
           double* block_sum) {
  for (int64_t begin = 0; begin < n; begin += kVocabBlock) {
    double sum = 0.0;
    for (int64_t i = begin; i < std::min(n, begin + kVocabBlock); ++i) {
      const double x = double{row[i] - max} * double{inverse_temperature};
      const auto w = row[i] == max ? 1.0f : static_cast<float>(std::exp(x));
      if (weights != nullptr) weights[i] = w;
      sum += w;
    }
    block_sum[begin / kVocabBlock] = sum;
  }
}

int64_t select(const float* row, int64_t n, float threshold, int32_t* ids) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (row[i] >= threshold) ids[count++] = static_cast<int32_t>(i);
  }
  return count;
}

double sum_from(const float* weights, int64_t n, float threshold) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += weights[i] >= threshold ? weights[i] : 0.0f;
  return sum;
}

int64_t count_above(const float* row, int64_t n, float value, bool or_equal) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += row[i] > value || (or_equal && row[i] == value) ? 1 : 0;
  return count;
}

}  // namespace

template <class T>
bool load_row(const T* logits, int64_t n, float* row, float* block_max) {
  bool clean = true;
  for (int64_t begin = 0; begin < n; begin += kVocabBlock) {
    float top = -std::numeric_limits<float>::infinity();
    for (int64_t i = begin; i < std::min(n, begin + kVocabBlock); ++i) {
      row[i] = static_cast<float>(logits[i]);
      clean = clean && !std::isnan(row[i]);
      top = std::max(top, row[i]);
    }
    block_max[begin / kVocabBlock] = top;
  }
  return clean;
}

template bool load_row<float>(const float*, int64_t, float*, float*);
template bool load_row<bf16>(const bf16*, int64_t, float*, float*);
template bool load_row<f16>(const f16*, int64_t, float*, float*);

const VocabKernels vocab_kernels = {
    .weigh = weigh, .select = select, .sum_from = sum_from, .count_above = count_above};

}  // namespace mmcore::ops::reference
