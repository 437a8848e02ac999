// One function per instruction set, and the choice between them.
#pragma once

#include "ops/cpu_isa.h"

// The name of a function that exists on x86-64 only, else a null pointer.
#if defined(__x86_64__)
#define MMCORE_IF_X86(function) function
#else
#define MMCORE_IF_X86(function) nullptr
#endif

namespace mmcore::ops {

/// Variants of one kernel; a null one stands for the next lower one.
template <class Function>
struct IsaTable {
  Function reference;
  Function avx2 = nullptr;
  Function avx512 = nullptr;
  Function avx512bf16 = nullptr;
  Function amxbf16 = nullptr;

  /// The one for the chosen instruction set.
  Function pick() const {
    const CpuIsa isa = cpu_isa();
    if (isa >= CpuIsa::kAmxBf16 && amxbf16 != nullptr) return amxbf16;
    if (isa >= CpuIsa::kAvx512Bf16 && avx512bf16 != nullptr) return avx512bf16;
    if (isa >= CpuIsa::kAvx512 && avx512 != nullptr) return avx512;
    if (isa >= CpuIsa::kAvx2 && avx2 != nullptr) return avx2;
    return reference;
  }
};

}  // namespace mmcore::ops
