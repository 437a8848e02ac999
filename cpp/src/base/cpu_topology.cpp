#include "base/cpu_topology.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <sched.h>
#endif

namespace mmcore {
namespace {

#if defined(__linux__)
// C streams: iostreams of a statically linked libstdc++ may meet another copy in the process.
struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

File open(const std::string& path) { return File(std::fopen(path.c_str(), "re")); }

/// -1 when the file is missing, as in some containers.
int read_int(const std::string& path) {
  const File file = open(path);
  int value = -1;
  return file && std::fscanf(file.get(), "%d", &value) == 1 ? value : -1;
}

int cores_in_affinity_mask() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return 0;
  std::set<std::pair<int, int>> cores;  // (package, core): hyper-threads share one
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    const std::string dir = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    const int core = read_int(dir + "core_id");
    // Without topology every processor counts as a core of its own.
    if (core < 0) {
      cores.emplace(-1, cpu);
    } else {
      cores.emplace(read_int(dir + "physical_package_id"), core);
    }
  }
  return static_cast<int>(cores.size());
}

/// A large number when there is no quota.
double quota_in_cores() {
  constexpr double kNoQuota = 1e9;
  if (const File v2 = open("/sys/fs/cgroup/cpu.max")) {  // "max 100000" or "200000 100000"
    double quota = 0, period = 0;
    if (std::fscanf(v2.get(), "%lf %lf", &quota, &period) != 2 || period <= 0) return kNoQuota;
    return quota / period;
  }
  const int quota = read_int("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");  // -1: none
  const int period = read_int("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  return quota > 0 && period > 0 ? static_cast<double>(quota) / period : kNoQuota;
}
#endif

}  // namespace

int usable_cores() {
#if defined(__linux__)
  if (const int cores = cores_in_affinity_mask(); cores > 0) {
    return std::max(1, static_cast<int>(std::min<double>(cores, std::ceil(quota_in_cores()))));
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace mmcore
