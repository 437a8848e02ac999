#include <cstddef>
#include <vector>

#include "base/thread_pool.h"
#include "ops/attention/kernel.h"
#include "ops/attention/plan.h"
#include "ops/attention/problem.h"
#include "ops/isa_table.h"

namespace mmcore::ops {
namespace {

constexpr IsaTable<const AttentionKernels*> kKernels{
    .reference = nullptr,
    .avx2 = MMCORE_IF_X86(&kAttentionAvx2),
    .avx512 = MMCORE_IF_X86(&kAttentionAvx512),
    .avx512bf16 = MMCORE_IF_X86(&kAttentionAvx512Bf16),
    .amxbf16 = MMCORE_IF_X86(&kAttentionAmxBf16)};

/// A thread's scratch, kept for the next call: below 1 MB.
void* scratch_of_this_thread(int64_t bytes) {
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  thread_local std::vector<Line> lines;
  const auto needed = static_cast<size_t>(bytes) / sizeof(Line) + 1;
  if (lines.size() < needed) lines.resize(needed);
  return lines.data();
}

}  // namespace

void run_attention(const AttentionProblem& problem) {
  const AttentionKernels* kernels = kKernels.pick();
  if (kernels == nullptr) return attention_reference(problem);

  // Kept by the calling thread, so that a step allocates nothing in the steady state.
  thread_local AttentionPlan plan;
  thread_local std::vector<float> partials;
  AttentionPlan& shared = plan;  // a thread_local named in a lambda would be the worker's own
  const int64_t scratch_bytes = attention_scratch_bytes(problem.head_dim);
  for (int32_t n = 0; n < problem.sequences;) {
    n = shared.fill(problem, n);
    shared.make_tasks(int64_t{4} * pool_threads());
    if (static_cast<int64_t>(partials.size()) < shared.partial_floats()) {
      partials.resize(static_cast<size_t>(shared.partial_floats()));
    }
    float* const parts = partials.data();
    const auto& starts = shared.task_starts();
    parallel_for(static_cast<int64_t>(starts.size()) - 1, 1, [&](int64_t begin, int64_t end) {
      void* scratch = scratch_of_this_thread(scratch_bytes);
      for (size_t i = starts[static_cast<size_t>(begin)]; i < starts[static_cast<size_t>(end)];
           ++i) {
        kernels->run(problem, shared.items()[i], scratch, parts);
      }
    });
    const auto& merges = shared.merges();
    parallel_for(static_cast<int64_t>(merges.size()), 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const AttentionPlan::Merge& merge = merges[static_cast<size_t>(i)];
        kernels->merge(problem, shared.items()[merge.item], merge.count, parts);
      }
    });
  }
}

}  // namespace mmcore::ops
