#include <cmath>

#include "ops/norm.h"
#include "tensor/half.h"

namespace mmcore::ops::reference {

template <class T>
void rms_norm(const NormRows<T>& rows, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const T* x = rows.x + r * rows.x_stride;
    T* out = rows.out + r * rows.out_stride;
    if (rows.residual != nullptr) {
      T* residual = rows.residual + r * rows.residual_stride;
      for (int64_t i = 0; i < rows.hidden; ++i)
        residual[i] = T(static_cast<float>(residual[i]) + static_cast<float>(x[i]));
      x = residual;
    }
    double squares = 0.0;
    for (int64_t i = 0; i < rows.hidden; ++i) {
      const double v = static_cast<float>(x[i]);
      squares += v * v;
    }
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(rows.hidden) + rows.eps);
    for (int64_t i = 0; i < rows.hidden; ++i) {
      const double v = static_cast<float>(x[i]);
      out[i] = T(static_cast<float>(v * scale * static_cast<float>(rows.weight[i])));
    }
  }
}

template <class T>
void layer_norm(const NormRows<T>& rows, int64_t begin, int64_t end) {
  const auto hidden = static_cast<double>(rows.hidden);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = rows.x + r * rows.x_stride;
    T* out = rows.out + r * rows.out_stride;
    double sum = 0.0;
    for (int64_t i = 0; i < rows.hidden; ++i) sum += static_cast<float>(x[i]);
    const double mean = sum / hidden;
    double squares = 0.0;
    for (int64_t i = 0; i < rows.hidden; ++i) {
      const double d = static_cast<float>(x[i]) - mean;
      squares += d * d;
    }
    const double scale = 1.0 / std::sqrt(squares / hidden + rows.eps);
    for (int64_t i = 0; i < rows.hidden; ++i) {
      const double y = (static_cast<float>(x[i]) - mean) * scale;
      const double bias = rows.bias != nullptr ? static_cast<float>(rows.bias[i]) : 0.0f;
      out[i] = T(static_cast<float>(y * static_cast<float>(rows.weight[i]) + bias));
    }
  }
}

template void rms_norm<float>(const NormRows<float>&, int64_t, int64_t);
template void rms_norm<bf16>(const NormRows<bf16>&, int64_t, int64_t);
template void rms_norm<f16>(const NormRows<f16>&, int64_t, int64_t);
template void layer_norm<float>(const NormRows<float>&, int64_t, int64_t);
template void layer_norm<bf16>(const NormRows<bf16>&, int64_t, int64_t);
template void layer_norm<f16>(const NormRows<f16>&, int64_t, int64_t);

}  // namespace mmcore::ops::reference
