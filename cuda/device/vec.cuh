// Several elements moved by one instruction. Addresses must be multiples of sizeof(Vec).
#pragma once

#include <cstdint>

#include "device/convert.cuh"

namespace mmcore::cuda {

template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  T at[N];
};

/// Elements that fill 16 bytes, the widest access of a thread.
template <class T>
inline constexpr int kVecWidth = 16 / static_cast<int>(sizeof(T));

template <class V>
__device__ __forceinline__ V load(const void* p) {
  return *static_cast<const V*>(p);
}
template <class V>
__device__ __forceinline__ void store(void* p, const V& v) {
  *static_cast<V*>(p) = v;
}

/// 16 bytes that are read once, by this thread alone: around the L1 cache.
template <class V>
__device__ __forceinline__ V load_streaming(const void* p) {
  static_assert(sizeof(V) == 16);
  uint4 raw;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
               : "l"(p));
  V v;
  __builtin_memcpy(&v, &raw, sizeof(v));
  return v;
}

/// True when every row of [p, stride in elements] starts at a multiple of 16 bytes.
template <class T>
inline bool rows_aligned16(const void* p, int64_t stride) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 &&
         stride * static_cast<int64_t>(sizeof(T)) % 16 == 0;
}

}  // namespace mmcore::cuda
