// The activations on float, shared by the elementwise kernels and epilogues.
#pragma once

#include <type_traits>

#include "device/convert.cuh"
#include "mmcore/ops.h"

namespace mmcore::cuda {

/// x / (1 + e^-t). For storage of 16 bits the fast exponential and division: their error of a few
/// units of 2^-22 is far below the storage's.
template <class T>
__device__ __forceinline__ float times_sigmoid(float x, float t) {
  if constexpr (std::is_same_v<T, float>) {
    return x / (1.0f + expf(-t));
  } else {
    return __fdividef(x, 1.0f + __expf(-t));
  }
}

/// kind(x) for a value that is going to be stored as T. NaN stays NaN.
template <ops::Activation kind, class T>
__device__ __forceinline__ float activate(float x) {
  if constexpr (kind == ops::Activation::kGeluErf) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
  } else if constexpr (kind == ops::Activation::kGeluTanh) {
    // (1 + tanh u) / 2 is the sigmoid of 2u.
    constexpr float kTwoRootTwoOverPi = 1.5957691216057308f;
    return times_sigmoid<T>(x, kTwoRootTwoOverPi * (x + 0.044715f * x * x * x));
  } else if constexpr (kind == ops::Activation::kGeluQuick) {
    return times_sigmoid<T>(x, 1.702f * x);
  } else if constexpr (kind == ops::Activation::kSilu) {
    return times_sigmoid<T>(x, x);
  } else if constexpr (kind == ops::Activation::kRelu) {
    return x < 0.0f ? 0.0f : x;
  } else {
    return x;
  }
}

/// Calls f(std::integral_constant<Activation, kind>): one uniform branch around a loop.
template <class F>
__device__ __forceinline__ void with_activation(ops::Activation kind, F&& f) {
  using ops::Activation;
  switch (kind) {
    case Activation::kNone:
      return f(std::integral_constant<Activation, Activation::kNone>{});
    case Activation::kGeluErf:
      return f(std::integral_constant<Activation, Activation::kGeluErf>{});
    case Activation::kGeluTanh:
      return f(std::integral_constant<Activation, Activation::kGeluTanh>{});
    case Activation::kGeluQuick:
      return f(std::integral_constant<Activation, Activation::kGeluQuick>{});
    case Activation::kSilu:
      return f(std::integral_constant<Activation, Activation::kSilu>{});
    case Activation::kRelu:
      return f(std::integral_constant<Activation, Activation::kRelu>{});
  }
}

}  // namespace mmcore::cuda
