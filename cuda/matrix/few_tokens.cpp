#include "matrix/few_tokens.h"

#include <algorithm>
#include <cstdint>

namespace mmcore::cuda {
namespace {

constexpr int kMostStages = 32;

/// The largest tile, in boxes, where clusters' shares differ by one box at most.
int64_t largest_tile(int64_t boxes, int64_t clusters, int64_t most) {
  int64_t largest = 1;
  for (const int64_t share : {boxes / clusters, (boxes + clusters - 1) / clusters}) {
    const int64_t tiles = (share + most - 1) / most;
    if (tiles > 0) largest = std::max(largest, (share + tiles - 1) / tiles);
  }
  return largest;
}

}  // namespace

FewTokensPlan plan_few_tokens(const MatrixProblem& p, const DeviceFacts& facts, int split,
                              int room) {
  FewTokensPlan plan{};
  plan.tokens = p.tokens <= 8 ? 8 : p.tokens <= 16 ? 16 : p.tokens <= 32 ? 32 : 64;
  plan.split = split;
  const int64_t slots = std::max(1, facts.multiprocessors / split);
  // The largest boxes of those that leave the largest share smallest.
  int64_t least = 0;
  for (const int box : {64, 32, 16}) {
    const int64_t boxes = (p.n + box - 1) / box;
    const int64_t share = (boxes + slots - 1) / slots * box;
    if (plan.box == 0 || share < least) {
      least = share;
      plan.box = box;
      plan.boxes = boxes;
    }
  }
  plan.clusters = static_cast<int>(std::min(slots, plan.boxes));
  plan.most = kFewTokensBlock / plan.box;
  const auto rows = static_cast<int>(largest_tile(plan.boxes, plan.clusters, plan.most)) * plan.box;
  plan.stage_bytes = (rows + plan.tokens) * 128;
  plan.tail_bytes = std::max(0, (rows + 63) / 64 * 64 - rows - plan.tokens) * 128;
  plan.inbox_bytes = (split - 1) * (8 / split) * plan.tokens * 64;
  constexpr int kAlignment = 1024, kPairs = 16 * 8;  // barriers of the exchange
  const int left = room - kAlignment - kPairs - plan.tail_bytes - plan.inbox_bytes;
  plan.stages = std::clamp(left / (plan.stage_bytes + 16), 2, kMostStages);
  plan.early = plan.stages;
  plan.shared_bytes = kAlignment + plan.stages * (plan.stage_bytes + 16) + kPairs +
                      plan.tail_bytes + plan.inbox_bytes;
  return plan;
}

// As benchmarks/cuda/few_tokens.cpp finds it on an H100.
FewTokensPlan plan_few_tokens(const MatrixProblem& p, const DeviceFacts& facts) {
  const int64_t share = (p.n + facts.multiprocessors - 1) / facts.multiprocessors;
  // Some shared memory is left for the short kernels around it, which then begin sooner.
  const int room = (p.tokens <= 32 ? 160 : 200) * 1024;
  // Few features to a multiprocessor make short steps, which cost as much as longer ones.
  return plan_few_tokens(p, facts, share < 48 ? 2 : 1, room);
}

bool prefers_few_tokens(const MatrixProblem& p, const DeviceFacts& facts) {
  if (p.tokens > kFewTokens || !fits_wgmma(p, facts)) return false;
  const int64_t size = p.n * p.k;
  if (p.tokens > 1) return size >= int64_t{1} << (p.tokens <= 16 ? 24 : 22);
  // run_gemv is as fast with so many features that each multiprocessor has several rounds of them,
  // and with less to read.
  return p.steady_weights && size >= int64_t{1} << 25 &&
         p.n <= int64_t{128} * facts.multiprocessors;
}

}  // namespace mmcore::cuda
