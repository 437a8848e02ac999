// Hopper's instructions for matrix products by a warpgroup, bulk tensor copies and their barriers,
// as far as attention needs them. Only for code within MMCORE_HOPPER.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MMCORE_HOPPER 1
#endif

namespace mmcore::cuda::bulk {

// ---- barriers in shared memory

__device__ __forceinline__ void barrier_init(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/// After barrier_init, before others use the barriers.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void arrive_expecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
/// Returns once the phase with this parity has ended.
__device__ __forceinline__ void wait(uint32_t barrier, uint32_t parity) {
  uint32_t done;
  do {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (done == 0);
}

/// Named barriers of some of a block's threads.
__device__ __forceinline__ void named_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- copies

/// Makes this thread's ordinary writes to shared memory visible to copies and matrix products.
__device__ __forceinline__ void fence_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void prefetch(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap& map, uint32_t barrier,
                                         int32_t x0, int32_t x1, int32_t x2, int32_t x3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x0), "r"(x1), "r"(x2), "r"(x3)
      : "memory");
}

template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- matrix products

/// Of rows of 128 bytes in shared memory, 16-byte pieces exchanged within groups of 8 rows (as a
/// bulk copy with a 128-byte swizzle leaves them); 1024 bytes from one group to the next. `panel`
/// is the distance to the next 64 columns where those are not what is summed over.
__device__ __forceinline__ uint64_t matrix(uint32_t address, uint32_t panel = 16) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(panel >> 4) << 16 |
         uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

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

/// d (+)= a b: 64 rows by kCount * 2 columns by 16. Both from shared memory, rows along the sum.
template <class T, int kCount>
__device__ __forceinline__ void multiply_shared(float (&d)[kCount], uint64_t a, uint64_t b,
                                                bool accumulate);
/// a from registers; b from shared memory, its columns contiguous. Accumulates.
template <class T, int kCount>
__device__ __forceinline__ void multiply_registers(float (&d)[kCount], const uint32_t (&a)[4],
                                                   uint64_t b);

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
#define MMCORE_D0 \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
#define MMCORE_D1                                                                          \
  "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), \
      "+f"(d[15])
#define MMCORE_D2                                                                            \
  "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), \
      "+f"(d[23])
#define MMCORE_D3                                                                            \
  "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), \
      "+f"(d[31])
#define MMCORE_D4                                                                            \
  "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), \
      "+f"(d[39])
#define MMCORE_D5                                                                            \
  "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), \
      "+f"(d[47])
#define MMCORE_D6                                                                            \
  "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), \
      "+f"(d[55])
#define MMCORE_D7                                                                            \
  "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), \
      "+f"(d[63])
#define MMCORE_D8                                                                            \
  "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), \
      "+f"(d[71])
#define MMCORE_D9                                                                            \
  "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), \
      "+f"(d[79])
#define MMCORE_D10                                                                           \
  "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), \
      "+f"(d[87])
#define MMCORE_D11                                                                           \
  "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), \
      "+f"(d[95])
#define MMCORE_D12                                                                              \
  "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), \
      "+f"(d[103])
#define MMCORE_D13                                                                    \
  "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), \
      "+f"(d[110]), "+f"(d[111])
#define MMCORE_D14                                                                    \
  "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), \
      "+f"(d[118]), "+f"(d[119])
#define MMCORE_D15                                                                    \
  "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), \
      "+f"(d[126]), "+f"(d[127])
#define MMCORE_R_LAST "%32, %33, %34, %35"
#define MMCORE_D_LAST "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35])

// clang-format off
#define MMCORE_SHARED(T, NAME, N, ROWS, A, B, P, ...)                                             \
  template <> __device__ __forceinline__ void multiply_shared<T, N / 2>(                          \
      float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {                               \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P ", 0;\n"                                 \
        "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME                           \
        " {" ROWS "}, %" #A ", %" #B ", p, 1, 1, 0, 0;\n}"                                        \
        : __VA_ARGS__ : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));                       \
  }
#define MMCORE_REGISTERS(T, NAME, N, ROWS, A0, A1, A2, A3, B, P, ...)                               \
  template <> __device__ __forceinline__ void multiply_registers<T, N / 2>(                       \
      float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b) {                                    \
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #P ", 0;\n"                                 \
        "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME                           \
        " {" ROWS "}, {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #B ", p, 1, 1, 1;\n}"          \
        : __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));              \
  }
#define MMCORE_ROWS_64 MMCORE_R0 ", " MMCORE_R1 ", " MMCORE_R2 ", " MMCORE_R3
MMCORE_SHARED(__nv_bfloat16, "bf16", 64, MMCORE_ROWS_64, 32, 33, 34, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3)
MMCORE_SHARED(__half, "f16", 64, MMCORE_ROWS_64, 32, 33, 34, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3)
#define MMCORE_ROWS_128 MMCORE_R0 ", " MMCORE_R1 ", " MMCORE_R2 ", " MMCORE_R3 ", " MMCORE_R4 ", " MMCORE_R5 ", " MMCORE_R6 ", " MMCORE_R7
MMCORE_SHARED(__nv_bfloat16, "bf16", 128, MMCORE_ROWS_128, 64, 65, 66, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D4, MMCORE_D5, MMCORE_D6, MMCORE_D7)
MMCORE_SHARED(__half, "f16", 128, MMCORE_ROWS_128, 64, 65, 66, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D4, MMCORE_D5, MMCORE_D6, MMCORE_D7)
#define MMCORE_ROWS_32 MMCORE_R0 ", " MMCORE_R1
MMCORE_REGISTERS(__nv_bfloat16, "bf16", 32, MMCORE_ROWS_32, 16, 17, 18, 19, 20, 21, MMCORE_D0, MMCORE_D1)
MMCORE_REGISTERS(__half, "f16", 32, MMCORE_ROWS_32, 16, 17, 18, 19, 20, 21, MMCORE_D0, MMCORE_D1)
MMCORE_REGISTERS(__nv_bfloat16, "bf16", 64, MMCORE_ROWS_64, 32, 33, 34, 35, 36, 37, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3)
MMCORE_REGISTERS(__half, "f16", 64, MMCORE_ROWS_64, 32, 33, 34, 35, 36, 37, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3)
#define MMCORE_ROWS_72 MMCORE_R0 ", " MMCORE_R1 ", " MMCORE_R2 ", " MMCORE_R3 ", " MMCORE_R_LAST
MMCORE_REGISTERS(__nv_bfloat16, "bf16", 72, MMCORE_ROWS_72, 36, 37, 38, 39, 40, 41, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D_LAST)
MMCORE_REGISTERS(__half, "f16", 72, MMCORE_ROWS_72, 36, 37, 38, 39, 40, 41, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D_LAST)
#define MMCORE_ROWS_80 MMCORE_R0 ", " MMCORE_R1 ", " MMCORE_R2 ", " MMCORE_R3 ", " MMCORE_R4
MMCORE_REGISTERS(__nv_bfloat16, "bf16", 80, MMCORE_ROWS_80, 40, 41, 42, 43, 44, 45, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D4)
MMCORE_REGISTERS(__half, "f16", 80, MMCORE_ROWS_80, 40, 41, 42, 43, 44, 45, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D4)
#define MMCORE_ROWS_96 MMCORE_R0 ", " MMCORE_R1 ", " MMCORE_R2 ", " MMCORE_R3 ", " MMCORE_R4 ", " MMCORE_R5
MMCORE_REGISTERS(__nv_bfloat16, "bf16", 96, MMCORE_ROWS_96, 48, 49, 50, 51, 52, 53, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D4, MMCORE_D5)
MMCORE_REGISTERS(__half, "f16", 96, MMCORE_ROWS_96, 48, 49, 50, 51, 52, 53, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D4, MMCORE_D5)
MMCORE_REGISTERS(__nv_bfloat16, "bf16", 128, MMCORE_ROWS_128, 64, 65, 66, 67, 68, 69, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D4, MMCORE_D5, MMCORE_D6, MMCORE_D7)
MMCORE_REGISTERS(__half, "f16", 128, MMCORE_ROWS_128, 64, 65, 66, 67, 68, 69, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D4, MMCORE_D5, MMCORE_D6, MMCORE_D7)
#define MMCORE_ROWS_256 MMCORE_R0 ", " MMCORE_R1 ", " MMCORE_R2 ", " MMCORE_R3 ", " MMCORE_R4 ", " MMCORE_R5 ", " MMCORE_R6 ", " MMCORE_R7 ", " MMCORE_R8 ", " MMCORE_R9 ", " MMCORE_R10 ", " MMCORE_R11 ", " MMCORE_R12 ", " MMCORE_R13 ", " MMCORE_R14 ", " MMCORE_R15
MMCORE_REGISTERS(__nv_bfloat16, "bf16", 256, MMCORE_ROWS_256, 128, 129, 130, 131, 132, 133, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D4, MMCORE_D5, MMCORE_D6, MMCORE_D7, MMCORE_D8, MMCORE_D9, MMCORE_D10, MMCORE_D11, MMCORE_D12, MMCORE_D13, MMCORE_D14, MMCORE_D15)
MMCORE_REGISTERS(__half, "f16", 256, MMCORE_ROWS_256, 128, 129, 130, 131, 132, 133, MMCORE_D0, MMCORE_D1, MMCORE_D2, MMCORE_D3, MMCORE_D4, MMCORE_D5, MMCORE_D6, MMCORE_D7, MMCORE_D8, MMCORE_D9, MMCORE_D10, MMCORE_D11, MMCORE_D12, MMCORE_D13, MMCORE_D14, MMCORE_D15)
// clang-format on
#undef MMCORE_SHARED
#undef MMCORE_REGISTERS
#undef MMCORE_R_LAST
#undef MMCORE_D_LAST
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
#undef MMCORE_D0
#undef MMCORE_D1
#undef MMCORE_D2
#undef MMCORE_D3
#undef MMCORE_D4
#undef MMCORE_D5
#undef MMCORE_D6
#undef MMCORE_D7
#undef MMCORE_D8
#undef MMCORE_D9
#undef MMCORE_D10
#undef MMCORE_D11
#undef MMCORE_D12
#undef MMCORE_D13
#undef MMCORE_D14
#undef MMCORE_D15
#undef MMCORE_ROWS_32
#undef MMCORE_ROWS_64
#undef MMCORE_ROWS_72
#undef MMCORE_ROWS_80
#undef MMCORE_ROWS_96
#undef MMCORE_ROWS_128
#undef MMCORE_ROWS_256

}  // namespace mmcore::cuda::bulk
