#include <cmath>
#include <numbers>

#include "ops/activation.h"
#include "tensor/half.h"

namespace mmcore::ops::reference {

double activate(double x, Activation kind) {
  switch (kind) {
    case Activation::kNone:
      return x;
    case Activation::kGeluErf:
      return 0.5 * x * (1.0 + std::erf(x / std::numbers::sqrt2));
    case Activation::kGeluTanh: {
      const double inner = std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x);
      return 0.5 * x * (1.0 + std::tanh(inner));
    }
    case Activation::kGeluQuick:
      return x / (1.0 + std::exp(-1.702 * x));
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kRelu:
      return x < 0.0 ? 0.0 : x;  // keeps NaN
  }
  return x;
}

template <class T>
void activation(const T* x, const T* up, T* out, int64_t n, Activation kind) {
  for (int64_t i = 0; i < n; ++i) {
    const double y = activate(static_cast<float>(x[i]), kind);
    const double factor = up != nullptr ? static_cast<float>(up[i]) : 1.0f;
    out[i] = T(static_cast<float>(y * factor));
  }
}

template void activation<float>(const float*, const float*, float*, int64_t, Activation);
template void activation<bf16>(const bf16*, const bf16*, bf16*, int64_t, Activation);
template void activation<f16>(const f16*, const f16*, f16*, int64_t, Activation);

}  // namespace mmcore::ops::reference
