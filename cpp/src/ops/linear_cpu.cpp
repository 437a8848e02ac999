#include "ops/activation.h"
#include "ops/linear.h"
#include "tensor/half.h"

namespace mmcore::ops::reference {

template <class T>
void linear(const LinearProblem& p, int64_t begin, int64_t end) {
  for (int64_t i = 0; i < p.tokens; ++i) {
    const T* x = static_cast<const T*>(p.x) + (p.x_rows ? p.x_rows[i] : i) * p.x_stride;
    T* out = static_cast<T*>(p.out) + (p.out_rows ? p.out_rows[i] : i) * p.out_stride;
    for (int64_t n = begin; n < end; ++n) {
      const T* w = static_cast<const T*>(p.w) + n * p.w_stride;
      double sum = p.bias ? static_cast<float>(static_cast<const T*>(p.bias)[n]) : 0.0f;
      for (int64_t k = 0; k < p.k; ++k)
        sum += double{static_cast<float>(x[k])} * double{static_cast<float>(w[k])};
      out[n] = T(static_cast<float>(activate(sum, p.act)));
    }
  }
}

template void linear<float>(const LinearProblem&, int64_t, int64_t);
template void linear<bf16>(const LinearProblem&, int64_t, int64_t);
template void linear<f16>(const LinearProblem&, int64_t, int64_t);

}  // namespace mmcore::ops::reference
