// From a run-time dtype to a template argument.
#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include "mmcore/status.h"
#include "mmcore/types.h"
#include "tensor/float8.h"
#include "tensor/half.h"

namespace mmcore {

/// Calls f.operator()<T>() with T of float, bf16 or f16; returns what it returns, Ok if void.
///   dispatch_float(x.dtype, "rms_norm", [&]<class T>() { run<T>(...); })
template <class F>
Status dispatch_float(DType dtype, const char* op, F&& f) {
  const auto call = [&f]<class T>() -> Status {
    if constexpr (std::is_void_v<decltype(f.template operator()<T>())>) {
      f.template operator()<T>();
      return {};
    } else {
      return f.template operator()<T>();
    }
  };
  switch (dtype) {
    case DType::kFloat32:
      return call.template operator()<float>();
    case DType::kBFloat16:
      return call.template operator()<bf16>();
    case DType::kFloat16:
      return call.template operator()<f16>();
    default:
      return Status::invalid_argument(std::string(op) + ": no kernel for dtype " +
                                      to_string(dtype) + "; expected float32, bfloat16 or float16");
  }
}

/// As dispatch_float, with f8e4m3 besides: for elements of a KV cache.
template <class F>
Status dispatch_cache(DType dtype, const char* op, F&& f) {
  if (dtype != DType::kFloat8E4M3) return dispatch_float(dtype, op, f);
  if constexpr (std::is_void_v<decltype(f.template operator()<f8e4m3>())>) {
    f.template operator()<f8e4m3>();
    return {};
  } else {
    return f.template operator()<f8e4m3>();
  }
}

}  // namespace mmcore
