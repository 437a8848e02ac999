#include "native/decode_graphs.h"

#include <algorithm>
#include <utility>

namespace mmcore::native {

namespace {

constexpr int64_t kMostRows = 512;

// Dense where a row more costs most.
int64_t padded(int64_t rows) {
  if (rows <= 2) return rows;
  if (rows <= 4) return 4;
  const int64_t step = rows <= 128 ? 8 : rows <= 256 ? 16 : 32;
  return (rows + step - 1) / step * step;
}

}  // namespace

int64_t DecodeGraphs::rows_for(const StepPlan& plan) const {
  const auto rows = static_cast<int64_t>(plan.token_ids.size());
  if (rows == 0 || rows > kMostRows || plan.sequences.size() != plan.token_ids.size() ||
      plan.sample_rows.size() != plan.token_ids.size() || !plan.encode.empty() ||
      !plan.embeddings.empty() || !plan.prompt_logprob_rows.empty())
    return 0;
  return std::min(padded(rows), max_sequences_);
}

Status DecodeGraphs::run(int64_t rows, const void* base, const std::function<Status()>& work) {
  if (base != base_) entries_.clear();
  base_ = base;
  const auto [at, first] = entries_.try_emplace(rows);
  Entry& entry = at->second;
  if (first || !entry.usable) return work();
  if (!entry.captured) {
    Result<gpu::Graph> graph = gpu::Graph::capture(place_.device, place_.stream, work);
    // A driver that cannot record this is slower, not wrong.
    entry.usable = graph.ok();
    if (!graph.ok()) return work();
    entry.graph = std::move(graph).value();
    entry.captured = true;
  }
  return entry.graph.launch(place_.stream);
}

}  // namespace mmcore::native
