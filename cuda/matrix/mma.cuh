// Tensor cores of every device from capability 8.0 on, a warp at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace mmcore::cuda {

/// The left operand, 16 x 16: rows g and g + 8 (g = lane / 4) at k = 2q, 2q + 1 (q = lane % 4),
/// then both at k + 8.
struct MmaLeft {
  uint32_t row0, row8, row0_k8, row8_k8;
};

/// c [16 x 8] += a b^T. The right operand: row g at k = 2q, 2q + 1, and at k + 8. c: row g columns
/// 2q, 2q + 1, then row g + 8.
template <class T>
__device__ __forceinline__ void mma_16x8x16(float (&c)[4], const MmaLeft& a, uint32_t b,
                                            uint32_t b_k8) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.row0), "r"(a.row8), "r"(a.row0_k8), "r"(a.row8_k8), "r"(b), "r"(b_k8));
  } else {
    static_assert(std::is_same_v<T, __half>);
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.row0), "r"(a.row8), "r"(a.row0_k8), "r"(a.row8_k8), "r"(b), "r"(b_k8));
  }
}

/// Four 8 x 8 matrices of 16-bit elements; lanes 8 i to 8 i + 7 give the rows of matrix i.
__device__ __forceinline__ void load_matrices(uint32_t (&m)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(row));
}

/// An 8 x 8 matrix of 16-bit elements, transposed. A lane holds two neighbours of row lane / 4.
__device__ __forceinline__ uint32_t transpose_matrix(uint32_t m) {
  uint32_t t;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(m));
  return t;
}

/// 16 bytes to shared memory, in the background; zeros where `inside` is false.
__device__ __forceinline__ void copy_async16(uint32_t to, const void* from, bool inside) {
  const int bytes = inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits until at most kPending of this thread's latest groups are under way.
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace mmcore::cuda
