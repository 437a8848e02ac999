// Matrix products of a warpgroup on compute capability 9.0a: 64 rows by kCount * 2 columns by 16 of
// the sum, for kCount accumulators a thread. What calls them is compiled within MMCORE_HOPPER.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace mmcore::cuda::hopper {

/// An operand in shared memory: rows of 128 bytes, 16-byte pieces exchanged within groups of 8 rows
/// (as a bulk copy with a 128-byte swizzle leaves them), 1024 bytes from one group to the next.
/// `address` may point 32, 64 or 96 bytes into them. `panel` is the distance to the next 64 columns
/// where those are not what is summed over.
struct Operand {
  // The upper half is the same for all: the processor adds in halves, and waits in between.
  uint32_t low;

  /// Whole warps come with one address. The reduction, of equal values, lets the compiler know:
  /// sums with it are then made beside a warp's own instructions, where products want them.
  __device__ __forceinline__ explicit Operand(uint32_t address, uint32_t panel = 16)
      : low(__reduce_or_sync(0xffffffffu, (address & 0x3ffff) >> 4 | (panel >> 4) << 16)) {}
  /// Its description, `bytes` (a multiple of 16) further on.
  __device__ __forceinline__ uint64_t at(uint32_t bytes) const {
    return uint64_t{1024 >> 4 | 1u << 30} << 32 | (low + (bytes >> 4));
  }
};

/// Before the first product, and after registers that products use have been written.
__device__ __forceinline__ void begin_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits until at most this many groups are under way.
template <int kPending>
__device__ __forceinline__ void await_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/// Keeps the compiler from moving uses of accumulators ahead of a wait.
template <int kCount>
__device__ __forceinline__ void hold(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

/// d (+)= a b, both from shared memory, rows along the sum.
template <class T, int kCount>
__device__ __forceinline__ void multiply_shared(float (&d)[kCount], uint64_t a, uint64_t b,
                                                bool accumulate);
/// d += a b, a from registers; b from shared memory, its columns contiguous.
template <class T, int kCount>
__device__ __forceinline__ void multiply_registers(float (&d)[kCount], const uint32_t (&a)[4],
                                                   uint64_t b);

// clang-format off
// Accumulators in pieces of 8: their places in the instruction, and the operands.
#define MMCORE_R0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define MMCORE_R1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define MMCORE_R2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define MMCORE_R3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define MMCORE_R4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define MMCORE_R5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define MMCORE_R6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define MMCORE_R7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define MMCORE_R8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define MMCORE_R9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define MMCORE_R10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define MMCORE_R11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define MMCORE_R12 "%96, %97, %98, %99, %100, %101, %102, %103"
#define MMCORE_R13 "%104, %105, %106, %107, %108, %109, %110, %111"
#define MMCORE_R14 "%112, %113, %114, %115, %116, %117, %118, %119"
#define MMCORE_R15 "%120, %121, %122, %123, %124, %125, %126, %127"
#define MMCORE_D(I) "+f"(d[I]), "+f"(d[I + 1]), "+f"(d[I + 2]), "+f"(d[I + 3]), \
  "+f"(d[I + 4]), "+f"(d[I + 5]), "+f"(d[I + 6]), "+f"(d[I + 7])
#define MMCORE_ROWS_8 "%0, %1, %2, %3"
#define MMCORE_SUMS_8 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define MMCORE_ROWS_16 MMCORE_R0
#define MMCORE_SUMS_16 MMCORE_D(0)
#define MMCORE_ROWS_32 MMCORE_R0 ", " MMCORE_R1
#define MMCORE_SUMS_32 MMCORE_D(0), MMCORE_D(8)
#define MMCORE_ROWS_64 MMCORE_ROWS_32 ", " MMCORE_R2 ", " MMCORE_R3
#define MMCORE_SUMS_64 MMCORE_SUMS_32, MMCORE_D(16), MMCORE_D(24)
#define MMCORE_ROWS_80 MMCORE_ROWS_64 ", " MMCORE_R4
#define MMCORE_SUMS_80 MMCORE_SUMS_64, MMCORE_D(32)
#define MMCORE_ROWS_96 MMCORE_ROWS_80 ", " MMCORE_R5
#define MMCORE_SUMS_96 MMCORE_SUMS_80, MMCORE_D(40)
#define MMCORE_ROWS_128 MMCORE_ROWS_96 ", " MMCORE_R6 ", " MMCORE_R7
#define MMCORE_SUMS_128 MMCORE_SUMS_96, MMCORE_D(48), MMCORE_D(56)
#define MMCORE_ROWS_144 MMCORE_ROWS_128 ", " MMCORE_R8
#define MMCORE_SUMS_144 MMCORE_SUMS_128, MMCORE_D(64)
#define MMCORE_ROWS_160 MMCORE_ROWS_144 ", " MMCORE_R9
#define MMCORE_SUMS_160 MMCORE_SUMS_144, MMCORE_D(72)
#define MMCORE_ROWS_176 MMCORE_ROWS_160 ", " MMCORE_R10
#define MMCORE_SUMS_176 MMCORE_SUMS_160, MMCORE_D(80)
#define MMCORE_ROWS_192 MMCORE_ROWS_160 ", " MMCORE_R10 ", " MMCORE_R11
#define MMCORE_SUMS_192 MMCORE_SUMS_160, MMCORE_D(80), MMCORE_D(88)
#define MMCORE_ROWS_256 MMCORE_ROWS_192 ", " MMCORE_R12 ", " MMCORE_R13 ", " MMCORE_R14 ", " MMCORE_R15
#define MMCORE_SUMS_256 MMCORE_SUMS_192, MMCORE_D(96), MMCORE_D(104), MMCORE_D(112), MMCORE_D(120)
#define MMCORE_ROWS_72 MMCORE_ROWS_64 ", %32, %33, %34, %35"
#define MMCORE_SUMS_72 MMCORE_SUMS_64, "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35])
#define MMCORE_SHARED_OF(T, NAME, N, A, B, P)                                        \
  template <>                                                                        \
  __device__ __forceinline__ void multiply_shared<T, N / 2>(                         \
      float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {                  \
    asm volatile(                                                                    \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %" #P ", 0;\n"                            \
        "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME              \
        " {" MMCORE_ROWS_##N "}, %" #A ", %" #B ", p, 1, 1, 0, 0;\n}"                \
        : MMCORE_SUMS_##N                                                            \
        : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));                        \
  }
#define MMCORE_REGISTERS_OF(T, NAME, N, A0, A1, A2, A3, B, P)                         \
  template <>                                                                        \
  __device__ __forceinline__ void multiply_registers<T, N / 2>(                      \
      float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {                       \
    asm volatile(                                                                    \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %" #P ", 0;\n"                            \
        "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME              \
        " {" MMCORE_ROWS_##N "}, {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3               \
        "}, %" #B ", p, 1, 1, 1;\n}"                                                 \
        : MMCORE_SUMS_##N                                                            \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));               \
  }
#define MMCORE_SHARED(N, ...)                           \
  MMCORE_SHARED_OF(__nv_bfloat16, "bf16", N, __VA_ARGS__) \
  MMCORE_SHARED_OF(__half, "f16", N, __VA_ARGS__)
#define MMCORE_REGISTERS(N, ...)                           \
  MMCORE_REGISTERS_OF(__nv_bfloat16, "bf16", N, __VA_ARGS__) \
  MMCORE_REGISTERS_OF(__half, "f16", N, __VA_ARGS__)
MMCORE_SHARED(8, 4, 5, 6)
MMCORE_SHARED(16, 8, 9, 10)
MMCORE_SHARED(32, 16, 17, 18)
MMCORE_SHARED(64, 32, 33, 34)
MMCORE_SHARED(96, 48, 49, 50)
MMCORE_SHARED(128, 64, 65, 66)
MMCORE_SHARED(144, 72, 73, 74)
MMCORE_SHARED(160, 80, 81, 82)
MMCORE_SHARED(176, 88, 89, 90)
MMCORE_SHARED(192, 96, 97, 98)
MMCORE_SHARED(256, 128, 129, 130)
MMCORE_REGISTERS(32, 16, 17, 18, 19, 20, 21)
MMCORE_REGISTERS(64, 32, 33, 34, 35, 36, 37)
MMCORE_REGISTERS(72, 36, 37, 38, 39, 40, 41)
MMCORE_REGISTERS(80, 40, 41, 42, 43, 44, 45)
MMCORE_REGISTERS(96, 48, 49, 50, 51, 52, 53)
MMCORE_REGISTERS(128, 64, 65, 66, 67, 68, 69)
MMCORE_REGISTERS(256, 128, 129, 130, 131, 132, 133)
// clang-format on
#undef MMCORE_SHARED_OF
#undef MMCORE_REGISTERS_OF
#undef MMCORE_SHARED
#undef MMCORE_REGISTERS
#undef MMCORE_D
#undef MMCORE_R0
#undef MMCORE_R1
#undef MMCORE_R2
#undef MMCORE_R3
#undef MMCORE_R4
#undef MMCORE_R5
#undef MMCORE_R6
#undef MMCORE_R7
#undef MMCORE_R8
#undef MMCORE_R9
#undef MMCORE_R10
#undef MMCORE_R11
#undef MMCORE_R12
#undef MMCORE_R13
#undef MMCORE_R14
#undef MMCORE_R15
#undef MMCORE_ROWS_8
#undef MMCORE_SUMS_8
#undef MMCORE_ROWS_16
#undef MMCORE_SUMS_16
#undef MMCORE_ROWS_32
#undef MMCORE_SUMS_32
#undef MMCORE_ROWS_64
#undef MMCORE_SUMS_64
#undef MMCORE_ROWS_72
#undef MMCORE_SUMS_72
#undef MMCORE_ROWS_80
#undef MMCORE_SUMS_80
#undef MMCORE_ROWS_96
#undef MMCORE_SUMS_96
#undef MMCORE_ROWS_128
#undef MMCORE_SUMS_128
#undef MMCORE_ROWS_144
#undef MMCORE_SUMS_144
#undef MMCORE_ROWS_160
#undef MMCORE_SUMS_160
#undef MMCORE_ROWS_176
#undef MMCORE_SUMS_176
#undef MMCORE_ROWS_192
#undef MMCORE_SUMS_192
#undef MMCORE_ROWS_256
#undef MMCORE_SUMS_256

}  // namespace mmcore::cuda::hopper
