// Metrics in the text format that Prometheus reads.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "mmcore/engine.h"

namespace service {

/// Counts answers by their status code. Threads: any.
class HttpCounters {
 public:
  void count(int status);
  /// Adds the lines to `out`.
  void write(std::string& out) const;
  std::atomic<uint64_t> disconnects{0};

 private:
  static constexpr std::array<int, 10> kCodes{200, 400, 404, 413, 429, 500, 501, 503, 504, 0};
  std::array<std::atomic<uint64_t>, kCodes.size()> counts_{};
};

std::string metrics_text(const mmcore::EngineMetrics& engine, const HttpCounters& http);

}  // namespace service
