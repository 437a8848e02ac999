// Kernels of rms_norm and layer_norm, one function per instruction set.
#pragma once

#include <cstdint>

namespace mmcore::ops {

/// Rows of one call: row r of x is at x + r * x_stride; strides count elements of T.
template <class T>
struct NormRows {
  const T* x;
  const T* weight;
  const T* bias;  // layer_norm; or null
  T* residual;    // rms_norm; or null
  T* out;
  int64_t hidden;
  int64_t x_stride;
  int64_t residual_stride;
  int64_t out_stride;
  float eps;
};

/// Normalises rows [begin, end).
template <class T>
using NormKernel = void (*)(const NormRows<T>& rows, int64_t begin, int64_t end);

namespace reference {
template <class T>
void rms_norm(const NormRows<T>& rows, int64_t begin, int64_t end);
template <class T>
void layer_norm(const NormRows<T>& rows, int64_t begin, int64_t end);
}  // namespace reference

namespace avx2 {
template <class T>
void rms_norm(const NormRows<T>& rows, int64_t begin, int64_t end);
template <class T>
void layer_norm(const NormRows<T>& rows, int64_t begin, int64_t end);
}  // namespace avx2

namespace avx512 {
template <class T>
void rms_norm(const NormRows<T>& rows, int64_t begin, int64_t end);
template <class T>
void layer_norm(const NormRows<T>& rows, int64_t begin, int64_t end);
}  // namespace avx512

}  // namespace mmcore::ops
