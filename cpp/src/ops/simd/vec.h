// `Vec`: as many float32 lanes as the translation unit's instruction set has.
//
// Kernels are written once in terms of Vec, in headers that *_avx2.cpp, *_avx512.cpp and
// *_avx512bf16.cpp include. The rules there:
// - everything sits in an anonymous namespace: no function compiled for a wider instruction set may
//   be the copy that the linker keeps for a unit that runs everywhere;
// - loops over arrays of Vec are unrolled with #pragma GCC unroll: at -O2 they would go through
//   memory;
// - for the first reason no std:: containers, algorithms or streams, no TensorView members, no
//   parallel_for: pointers and integers come in from the op.
//
// Vec has  zero() all(f) load(p) load(p, n) store(p) store(p, n)  with p of float, bf16, f16 or
// f8e4m3 (n < kLanes: the first n lanes, others read as 0 and are not written),  + - * / unary -,
// fma(a, b, c) = a b + c,  fnma(a, b, c) = c - a b,  min max abs sqrt round, sum max_lane first,
// ldexp(x, n) = x 2^n,  select(mask, a, b) with masks from < <= > == and first_lanes(n),
// swap_pairs,  store_sums(p, a, b, c, d),  transpose(rows) and load_transposed(rows, offset, out).
#pragma once

#if defined(__AVX512F__)
#include "ops/simd/vec_avx512.h"
#elif defined(__AVX2__)
#include "ops/simd/vec_avx2.h"
#else
#error "ops/simd/vec.h is for files compiled for AVX2 or AVX-512"
#endif
