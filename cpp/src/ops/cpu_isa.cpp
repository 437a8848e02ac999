#include "ops/cpu_isa.h"

#include <atomic>
#include <string>

#include "base/thread_pool.h"

namespace mmcore::ops {
namespace {

CpuIsa detect() {
#if defined(__x86_64__)
  // __builtin_cpu_supports asks cpuid and xgetbv: registers that the system does not save are off.
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("f16c")) {
    return CpuIsa::kReference;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
    return CpuIsa::kAvx2;
  }
  return __builtin_cpu_supports("avx512bf16") ? CpuIsa::kAvx512Bf16 : CpuIsa::kAvx512;
#else
  return CpuIsa::kReference;
#endif
}

std::atomic<CpuIsa>& chosen() {
  static std::atomic<CpuIsa> isa{detected_cpu_isa()};
  return isa;
}

}  // namespace

CpuIsa detected_cpu_isa() {
  static const CpuIsa isa = detect();
  return isa;
}

CpuIsa cpu_isa() { return chosen().load(std::memory_order_relaxed); }

Status set_cpu_isa(CpuIsa isa) {
  if (isa < CpuIsa::kReference || isa > CpuIsa::kAvx512Bf16) {
    return Status::invalid_argument("set_cpu_isa: no instruction set has number " +
                                    std::to_string(static_cast<int>(isa)));
  }
  if (isa > detected_cpu_isa()) {
    return Status::unsupported(std::string("set_cpu_isa: this machine has no ") + to_string(isa) +
                               ", its best is " + to_string(detected_cpu_isa()));
  }
  chosen().store(isa, std::memory_order_relaxed);
  return {};
}

const char* to_string(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kReference:
      return "reference";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "unknown";
}

int num_threads() { return pool_threads(); }

void set_num_threads(int n) { set_pool_threads(n); }

}  // namespace mmcore::ops
