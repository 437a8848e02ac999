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

/// Steps of the block that has most when blocks take whole items, to and fro (see TileCursor).
int64_t longest_block(const std::vector<int32_t>& steps, int32_t heads, int32_t blocks) {
  std::vector<int64_t> sums(static_cast<size_t>(blocks));
  int64_t item = 0;
  for (const int32_t length : steps) {
    for (int32_t head = 0; head < heads; ++head, ++item) {
      const int64_t round = item / blocks, at = item % blocks;
      sums[static_cast<size_t>(round % 2 == 0 ? at : blocks - 1 - at)] += length;
    }
  }
  return *std::max_element(sums.begin(), sums.end());
}

}  // namespace

PrefillCut cut_prefill(const std::vector<int32_t>& steps, int32_t heads, int32_t workers) {
  const int64_t items = static_cast<int64_t>(steps.size()) * heads;
  if (items == 0 || items > kMostRounds * workers) return {};
  int64_t all = 0;
  for (const int32_t length : steps) all += int64_t{length} * heads;
  const int64_t chunk = std::max(kFewestSteps, (all + workers - 1) / workers);
  if (chunk * workers > std::numeric_limits<int32_t>::max()) return {};
  // What is cut is written and read once more, which takes as long as one step or two.
  if (100 * (2 * chunk + 3) > 92 * 2 * longest_block(steps, heads, workers)) return {};

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
