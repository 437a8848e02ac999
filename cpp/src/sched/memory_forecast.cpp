#include "sched/memory_forecast.h"

#include <algorithm>
#include <bit>

namespace mmcore {

size_t MemoryForecast::interval(int64_t steps) {
  const auto value = static_cast<uint32_t>(std::clamp<int64_t>(steps, 0, INT32_MAX));
  if (value < 8) return value;
  const auto octave = static_cast<uint32_t>(std::bit_width(value)) - 4;
  return 8 * (octave + 1) + ((value >> octave) & 7);
}

void MemoryForecast::Ends::add(const Life& life) {
  last = std::max(last, life.steps);
  at_once += life.at_once;
  growing += life.grows;
  given_back += life.given_back;
}

void MemoryForecast::clear() {
  std::fill_n(ends_.begin(), used_, Ends());
  used_ = 0;
  all_ = {};
}

void MemoryForecast::add(const Life& life) {
  const size_t i = interval(life.steps);
  used_ = std::max(used_, i + 1);
  ends_[i].add(life);
  all_.add(life);
}

int64_t MemoryForecast::peak(const Life& entering) const {
  const size_t own = interval(entering.steps);
  int64_t taken = all_.at_once + entering.at_once;
  int64_t growing = all_.growing + entering.grows;
  int64_t highest = taken;
  // Ends of an interval count as if all were at the last one.
  for (size_t i = 0; i < std::min(own, used_); ++i) {
    const Ends& ends = ends_[i];
    highest = std::max(highest, taken + growing * ends.last);
    taken -= ends.at_once + ends.given_back;
    growing -= ends.growing;
  }
  return std::max(highest, taken + growing * entering.steps);
}

}  // namespace mmcore
