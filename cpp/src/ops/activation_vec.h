// Activations on Vec; for translation units of one instruction set (see ops/simd/vec.h).
#pragma once

#include "mmcore/ops.h"
#include "ops/simd/math.h"

namespace mmcore::ops::simd {
namespace {

/// The normal distribution's integral up to x, within 3e-7 absolute and 1e-5 relative: erfc by a
/// polynomial in 1 / (1 + c |x|), so that the negative tail loses nothing by cancellation.
inline Vec normal_cdf(Vec x) {
  const Vec a = abs(x);
  const Vec t = Vec::all(1.0f) / fma(Vec::all(0.29698485f), a, Vec::all(1.0f));
  Vec p = fma(Vec::all(0.07003905f), t, Vec::all(-0.3194474f));
  p = fma(p, t, Vec::all(0.43926153f));
  p = fma(p, t, Vec::all(-0.12920961f));
  p = fma(p, t, Vec::all(0.26803532f));
  p = fma(p, t, Vec::all(0.19494411f));
  p = fma(p, t, Vec::all(0.23955023f));
  p = fma(p, t, Vec::all(0.2368266f));
  const Vec tail = Vec::all(0.5f) * p * t * exp(Vec::all(-0.5f) * a * a);
  return select(x < Vec::zero(), tail, Vec::all(1.0f) - tail);
}

inline Vec times_sigmoid(Vec x, Vec s) { return x / (Vec::all(1.0f) + exp(-s)); }

/// Within 1e-6 of the real function, absolute, relative where that is more.
inline Vec activate(Vec x, Activation kind) {
  switch (kind) {
    case Activation::kNone:
      return x;
    case Activation::kGeluErf:
      return x * normal_cdf(x);
    case Activation::kGeluTanh: {
      // (1 + tanh u) / 2 = sigmoid(2 u), with 2 sqrt(2 / pi) and 0.044715 times it
      const Vec cubic = fma(Vec::all(0.07135481627f), x * x, Vec::all(1.5957691216f));
      return times_sigmoid(x, x * cubic);
    }
    case Activation::kGeluQuick:
      return times_sigmoid(x, Vec::all(1.702f) * x);
    case Activation::kSilu:
      return times_sigmoid(x, x);
    case Activation::kRelu:
      return select(x < Vec::zero(), Vec::zero(), x);  // keeps NaN
  }
  return x;
}

template <class T>
void activation_loop(const T* x, const T* up, T* out, int64_t n, Activation kind) {
  int64_t i = 0;
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) {
    const Vec y = activate(Vec::load(x + i), kind);
    (up != nullptr ? y * Vec::load(up + i) : y).store(out + i);
  }
  if (i == n) return;
  const int rest = static_cast<int>(n - i);
  const Vec y = activate(Vec::load(x + i, rest), kind);
  (up != nullptr ? y * Vec::load(up + i, rest) : y).store(out + i, rest);
}

}  // namespace
}  // namespace mmcore::ops::simd
