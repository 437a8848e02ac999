#include "ops/cpu_isa.h"

#include <atomic>
#include <string>

#include "base/thread_pool.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mmcore::ops {
namespace {

#if defined(__x86_64__) && defined(__linux__)
/// Linux saves the tile registers of a process that has asked for them; all its threads may then
/// use them. Where the CPU or the system has none the request fails.
bool has_amx_bf16() {
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // cpuid 7.0, edx
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#else
[[maybe_unused]] bool has_amx_bf16() { return false; }
#endif

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
  if (!__builtin_cpu_supports("avx512bf16")) return CpuIsa::kAvx512;
  return has_amx_bf16() ? CpuIsa::kAmxBf16 : CpuIsa::kAvx512Bf16;
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
  if (isa < CpuIsa::kReference || isa > CpuIsa::kAmxBf16) {
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
    case CpuIsa::kAmxBf16:
      return "amx_bf16";
  }
  return "unknown";
}

int num_threads() { return pool_threads(); }

void set_num_threads(int n) { set_pool_threads(n); }

}  // namespace mmcore::ops
