// What the C++ benchmarks share: the machine's name, a clock, medians.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <fstream>
#include <string>
#include <vector>

namespace mmcore::bench {

/// Model name of the CPU as Linux gives it.
inline std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown CPU";
}

inline double now_us() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double, std::micro>(Clock::now().time_since_epoch()).count();
}

/// Value below which `part` (0..1) of the samples lie.
inline double quantile(std::vector<double> samples, double part) {
  const auto at =
      samples.begin() + static_cast<std::ptrdiff_t>(part * static_cast<double>(samples.size() - 1));
  std::nth_element(samples.begin(), at, samples.end());
  return *at;
}

inline double median(const std::vector<double>& samples) { return quantile(samples, 0.5); }

}  // namespace mmcore::bench
