#include "base/cpu_topology.h"

#include <algorithm>
#include <cmath>
#include <fstream>
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
/// -1 when the file is missing, as in some containers.
int read_int(const std::string& path) {
  std::ifstream file(path);
  int value = -1;
  return file >> value ? value : -1;
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
  double period = 0;
  std::string quota;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> quota >> period) {
    if (quota == "max" || period <= 0) return kNoQuota;
    return std::strtod(quota.c_str(), nullptr) / period;
  }
  double micros = -1;
  std::ifstream v1_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (v1_quota >> micros && v1_period >> period && micros > 0 && period > 0) return micros / period;
  return kNoQuota;
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
