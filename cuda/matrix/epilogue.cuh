// What happens to a sum before it is stored: activation and the row it goes to.
#pragma once

#include <cstdint>

#include "device/convert.cuh"
#include "mmcore/ops.h"

namespace mmcore::cuda {

/// An activation in one of few forms, so that kernels hold little code:
///   kPlain x   kRelu x < 0 ? 0 : x   kSigmoid x sigmoid(x (linear + cubic x^2))   kErf x Phi(x)
struct ActivationForm {
  enum Kind : int { kPlain, kRelu, kSigmoid, kErf };
  int kind = kPlain;
  float linear = 0, cubic = 0;
};

inline ActivationForm form_of(ops::Activation act) {
  using ops::Activation;
  constexpr float kTwoSqrt2OverPi = 1.5957691216057308f;  // 1 + tanh(u) = 2 sigmoid(2 u)
  switch (act) {
    case Activation::kNone:
      return {ActivationForm::kPlain};
    case Activation::kGeluErf:
      return {ActivationForm::kErf};
    case Activation::kGeluTanh:
      return {ActivationForm::kSigmoid, kTwoSqrt2OverPi, kTwoSqrt2OverPi * 0.044715f};
    case Activation::kGeluQuick:
      return {ActivationForm::kSigmoid, 1.702f, 0.0f};
    case Activation::kSilu:
      return {ActivationForm::kSigmoid, 1.0f, 0.0f};
    case Activation::kRelu:
      return {ActivationForm::kRelu};
  }
  return {};
}

__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float fast_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// x Phi(x), Phi the normal distribution. Fast: Abramowitz and Stegun 7.1.26 for the tail, absolute
/// error of Phi 1e-7, far below a 16-bit rounding.
template <bool kExact>
__device__ __forceinline__ float gelu_erf(float x) {
  if constexpr (kExact) {
    return 0.5f * x * erfcf(x * -0.70710678118654752f);
  } else {
    const float a = fabsf(x);
    const float t = fast_reciprocal(fmaf(a, 0.23164188f, 1.0f));
    float tail = fmaf(t, 0.5307027145f, -0.7265760135f);
    tail = fmaf(tail, t, 0.7107068705f);
    tail = fmaf(tail, t, -0.142248368f);
    tail = fmaf(tail, t, 0.127414796f);
    const float z = x * 0.84932180028801905f;  // exp(-x^2 / 2) = 2^(-z^2)
    tail *= t * fast_exp2(-z * z);
    return fmaf(-a, tail, fmaxf(x, 0.0f));
  }
}

template <bool kExact>
__device__ __forceinline__ float times_sigmoid(float x, float z) {
  if constexpr (kExact) {
    return x / (1.0f + expf(-z));
  } else {
    return x * fast_reciprocal(1.0f + fast_exp2(z * -1.4426950408889634f));
  }
}

/// The activation of several values: one decision for all of them.
template <bool kExact, int N>
__device__ __forceinline__ void activate(float (&v)[N], const ActivationForm& form) {
  if (form.kind == ActivationForm::kPlain) return;
  if (form.kind == ActivationForm::kErf) {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = gelu_erf<kExact>(v[i]);
  } else if (form.kind == ActivationForm::kSigmoid) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      v[i] = times_sigmoid<kExact>(v[i], v[i] * fmaf(form.cubic, v[i] * v[i], form.linear));
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = v[i] < 0.0f ? 0.0f : v[i];  // keeps NaN
  }
}

/// Where results go.
struct RowTarget {
  void* out;
  int64_t stride;       // elements
  const int64_t* rows;  // or null
  int64_t limit;

  /// The first element of the row of token m, or null where it is dropped.
  template <class T>
  __device__ __forceinline__ T* row(int m) const {
    const int64_t r = rows == nullptr ? m : __ldg(rows + m);
    return r >= 0 && r < limit ? static_cast<T*>(out) + r * stride : nullptr;
  }
};

}  // namespace mmcore::cuda
