// Kernels of activation and activation_mul, one function per instruction set.
#pragma once

#include <cstdint>

#include "mmcore/ops.h"

namespace mmcore::ops {

/// out[i] = act(x[i]) for i < n, or act(x[i]) * up[i] where `up` is not null. out may be x or up.
template <class T>
using ActivationKernel = void (*)(const T* x, const T* up, T* out, int64_t n, Activation kind);

namespace reference {
double activate(double x, Activation kind);
template <class T>
void activation(const T* x, const T* up, T* out, int64_t n, Activation kind);
}  // namespace reference

namespace avx2 {
template <class T>
void activation(const T* x, const T* up, T* out, int64_t n, Activation kind);
}  // namespace avx2

namespace avx512 {
template <class T>
void activation(const T* x, const T* up, T* out, int64_t n, Activation kind);
}  // namespace avx512

/// Whether `kind` is one of the enumerators.
constexpr bool is_valid(Activation kind) {
  return kind >= Activation::kNone && kind <= Activation::kRelu;
}

}  // namespace mmcore::ops
