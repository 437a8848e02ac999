// Storage types on the device and their conversion from and to float.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "tensor/float8.h"
#include "tensor/half.h"

namespace mmcore::cuda {

/// The device's name of a storage type of tensor/half.h; same bits.
template <class T>
struct DeviceType_ {
  using type = T;
};
template <>
struct DeviceType_<bf16> {
  using type = __nv_bfloat16;
};
template <>
struct DeviceType_<f16> {
  using type = __half;
};
template <>
struct DeviceType_<f8e4m3> {
  using type = __nv_fp8_e4m3;
};
template <class T>
using device_t = typename DeviceType_<T>::type;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_fp8_e4m3 x) { return static_cast<float>(x); }

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_fp8_e4m3 from_float<__nv_fp8_e4m3>(float x) {
  return __nv_fp8_e4m3(x);
}

}  // namespace mmcore::cuda
