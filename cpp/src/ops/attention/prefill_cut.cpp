#include "ops/attention/prefill_cut.h"

#include <algorithm>
#include <cstddef>
#include <limits>

namespace mmcore::ops {
namespace {

/// A worker has this many at least.
constexpr int64_t kFewestSteps = 2;
/// More items for each worker than this are even enough.
constexpr int64_t kMostRounds = 16;
/// What an item costs a block besides its steps, and a cut all of them, in tenths of a step: as
/// measured on an H100 with heads of 64 and 128.
constexpr int64_t kItem = 7;
constexpr int64_t kMerge = 30;

/// What a block has to do.
struct Load {
  int64_t steps = 0;
  int64_t items = 0;

  int64_t tenths() const { return 10 * steps + kItem * items; }
};

Load longest(const std::vector<Load>& loads) {
  return *std::max_element(loads.begin(), loads.end(),
                           [](const Load& a, const Load& b) { return a.tenths() < b.tenths(); });
}

/// Of the block that has most when blocks take whole items, to and fro (see ItemCursor).
Load longest_of_whole(const std::vector<int32_t>& steps, int32_t heads, int32_t blocks) {
  std::vector<Load> loads(static_cast<size_t>(blocks));
  int64_t item = 0;
  for (const int32_t length : steps) {
    for (int32_t head = 0; head < heads; ++head, ++item) {
      const int64_t round = item / blocks, at = item % blocks;
      Load& load = loads[static_cast<size_t>(round % 2 == 0 ? at : blocks - 1 - at)];
      load.steps += length;
      ++load.items;
    }
  }
  return longest(loads);
}

/// The same when each has `chunk` steps of the line.
Load longest_of_cut(const std::vector<int32_t>& steps, int32_t heads, int32_t workers,
                    int64_t chunk) {
  std::vector<Load> loads(static_cast<size_t>(workers));
  int64_t line = 0;
  for (const int32_t length : steps) {
    for (int32_t head = 0; head < heads; ++head, line += length) {
      for (int64_t w = line / chunk; w * chunk < line + length; ++w) {
        Load& load = loads[static_cast<size_t>(w)];
        load.steps += std::min((w + 1) * chunk, line + length) - std::max(w * chunk, line);
        ++load.items;
      }
    }
  }
  return longest(loads);
}

/// Short items cost much besides their steps, and what is cut is written and read once more.
bool pays(const std::vector<int32_t>& steps, int32_t heads, int32_t workers, int64_t chunk) {
  const Load whole = longest_of_whole(steps, heads, workers);
  if (100 * (2 * chunk + 3) > 92 * 2 * whole.steps) return false;
  const Load cut = longest_of_cut(steps, heads, workers, chunk);
  return 100 * (cut.tenths() + kMerge) <= 98 * whole.tenths();
}

}  // namespace

PrefillCut cut_prefill(const std::vector<int32_t>& steps, int32_t heads, int32_t workers) {
  const int64_t items = static_cast<int64_t>(steps.size()) * heads;
  if (items == 0 || items > kMostRounds * workers) return {};
  int64_t all = 0;
  for (const int32_t length : steps) all += int64_t{length} * heads;
  const int64_t chunk = std::max(kFewestSteps, (all + workers - 1) / workers);
  if (chunk * workers > std::numeric_limits<int32_t>::max()) return {};
  if (!pays(steps, heads, workers, chunk)) return {};

  PrefillCut cut;
  cut.chunk = static_cast<int32_t>(chunk);
  cut.steps = static_cast<int32_t>(all);
  cut.workers.assign(static_cast<size_t>(workers), {0, 0});
  int64_t item = 0, line = 0, next = 0;  // the next worker whose stretch has not begun
  for (const int32_t length : steps) {
    for (int32_t head = 0; head < heads; ++head, ++item, line += length) {
      for (; next * chunk < line + length && next < workers; ++next) {
        cut.workers[static_cast<size_t>(next)] = {static_cast<int32_t>(item),
                                                  static_cast<int32_t>(line)};
      }
    }
  }
  return cut;
}

}  // namespace mmcore::ops
