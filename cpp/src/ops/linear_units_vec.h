// What both regimes of a linear layer share; for translation units of one instruction set (see
// ops/simd/vec.h). linear_kernels.h has the layouts.
#pragma once

#include "ops/activation_vec.h"
#include "ops/linear_kernels.h"

namespace mmcore::ops::simd {
namespace {

/// Arithmetic in float32, whatever the elements are stored in. A Math says what a unit is and how
/// two vectors of units multiply.
template <class T>
struct FloatMath {
  using Element = T;
  static constexpr int64_t kPair = 1;      // elements of k in a unit
  static constexpr int64_t kUnitStep = 1;  // packed x has a multiple of so many units along k
  static constexpr bool kInMemory = sizeof(T) == sizeof(float);  // elements in memory are units
  static Vec load(const T* p) { return Vec::load(p); }
  static Vec load(const T* p, int64_t n) { return Vec::load(p, static_cast<int>(n)); }
  static Vec mul_add(Vec w, Vec x, Vec acc) { return fma(w, x, acc); }
  static void store(Vec v, T* p) { v.store(p); }
};

constexpr int64_t kLanes = Vec::kLanes;

constexpr int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

template <class M>
int64_t units_of(int64_t k) {
  return round_up(k, M::kPair * M::kUnitStep) / M::kPair;
}

/// Rows of the problem's i-th token.
template <class T>
const T* x_row(const LinearProblem& p, int64_t i) {
  return static_cast<const T*>(p.x) + (p.x_rows != nullptr ? p.x_rows[i] : i) * p.x_stride;
}
template <class T>
T* out_row(const LinearProblem& p, int64_t i) {
  return static_cast<T*>(p.out) + (p.out_rows != nullptr ? p.out_rows[i] : i) * p.out_stride;
}
template <class T>
const T* w_row(const LinearProblem& p, int64_t n) {
  return static_cast<const T*>(p.w) + n * p.w_stride;
}

/// Units [u, u + kLanes) of a row of k elements; zero beyond its end.
template <class M>
[[gnu::always_inline]] inline Vec load_units(const typename M::Element* row, int64_t u, int64_t k) {
  const int64_t left = k - u * M::kPair;
  if (left >= kLanes * M::kPair) return M::load(row + u * M::kPair);
  return left > 0 ? M::load(row + u * M::kPair, left) : Vec::zero();
}

/// Units [u0, u0 + count) of a row, count rounded up to whole vectors.
template <class M>
void copy_units(const typename M::Element* row, int64_t k, int64_t u0, int64_t count, float* to) {
  for (int64_t u = 0; u < count; u += kLanes) load_units<M>(row, u0 + u, k).store(to + u);
}

/// Adds the bias to the sums of columns [n, end) or as many as a vector holds, and stores.
template <class M>
[[gnu::always_inline]] inline void finish(const LinearProblem& p, Vec sums,
                                          typename M::Element* out, int64_t n, int64_t end) {
  const auto* bias = static_cast<const typename M::Element*>(p.bias);
  if (end - n >= kLanes) {
    if (bias != nullptr) sums = sums + Vec::load(bias + n);
    if (p.act != Activation::kNone) sums = activate(sums, p.act);
    M::store(sums, out + n);
  } else {
    const int rest = static_cast<int>(end - n);
    if (bias != nullptr) sums = sums + Vec::load(bias + n, rest);
    if (p.act != Activation::kNone) sums = activate(sums, p.act);
    sums.store(out + n, rest);
  }
}

}  // namespace
}  // namespace mmcore::ops::simd
