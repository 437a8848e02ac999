#include <string>

#include "attention/decode.h"
#include "attention/prefill.h"
#include "host/device.h"
#include "ops/attention/gpu_plan.h"
#include "ops/cuda_backend.h"
#include "tensor/shape_check.h"

namespace mmcore::ops::cuda {
namespace {

namespace gpu = mmcore::cuda;

static_assert(gpu::kPrefillTileRows == kPrefillTileRows);

/// What a GPU alone needs.
Status check_plan(const PagedAttentionArgs& args, const AttentionPlanShape& shape) {
  ShapeCheck check("paged_attention");
  if (!args.plan.present || !args.workspace.present) {
    check.fail(std::string(args.plan.present ? "workspace" : "plan") +
               " is absent; on a GPU make a plan of the step's lengths by plan_paged_attention, "
               "and give a workspace of paged_attention_workspace_bytes");
    return check.status();
  }
  const auto words = check.dim("words"), bytes = check.dim("bytes");
  check.tensor("q", args.q, {args.q.size(0), args.q.size(1), args.q.size(2)});
  check.tensor("plan", args.plan, {words}).dtype(DType::kInt32).writable();
  check.tensor("workspace", args.workspace, {bytes}).dtype(DType::kUInt8).writable();
  MMCORE_RETURN_IF_ERROR(check.status());
  const auto at_least = [&](const char* name, int64_t size, int64_t wanted, const char* unit,
                            const char* function) {
    if (size >= wanted) return;
    check.fail(std::string(name) + " has " + std::to_string(size) + " " + unit + ", expected the " +
               std::to_string(wanted) + " of " + function);
  };
  at_least("plan", check.size(words), attention_plan_words(shape), "words", "attention_plan_words");
  at_least("workspace", check.size(bytes), paged_attention_workspace_bytes(shape), "bytes",
           "paged_attention_workspace_bytes");
  if (reinterpret_cast<uintptr_t>(args.plan.data) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(args.workspace.data) % 16 != 0) {
    check.fail("plan and workspace must begin at a multiple of 16 bytes");
  }
  return check.status();
}

}  // namespace

// Sequences with few query rows go to decode, the others to prefill; the plan says which is which,
// and its counts are read on the device.
Status paged_attention(const PagedAttentionArgs& args, Stream stream) {
  const AttentionProblem problem = paged_problem(args);
  if (problem.sequences == 0 || args.q.size(0) == 0) return {};
  const Result<const gpu::DeviceFacts*> facts = gpu::device_facts(args.q.device);
  MMCORE_RETURN_IF_ERROR(facts.status());
  const AttentionPlanShape shape{.sequences = problem.sequences,
                                 .tokens = args.q.size(0),
                                 .max_query_len = args.max_query_len,
                                 .heads = problem.heads,
                                 .kv_heads = problem.kv_heads,
                                 .head_dim = problem.head_dim,
                                 .window = problem.window,
                                 .causal = problem.causal,
                                 .multiprocessors = facts.value()->multiprocessors};
  MMCORE_RETURN_IF_ERROR(check_plan(args, shape));

  const gpu::DeviceGuard guard(args.q.device);
  const GpuPlanLayout layout = gpu_plan_layout(shape);
  auto* words = args.plan.ptr<int32_t>();
  const gpu::DecodeWork decode{
      .workers = reinterpret_cast<const DecodeWorker*>(words + layout.workers_at),
      .sequences = reinterpret_cast<const DecodeSequence*>(words + layout.sequences_at),
      .counters = words + layout.counters_at,
      .num_workers = layout.workers,
      .max_rows = max_decode_rows(shape),
      .workspace = args.workspace.ptr<float>(),
      .num_blocks = static_cast<int32_t>(args.k_cache.size(0))};
  MMCORE_RETURN_IF_ERROR(
      gpu::launch_decode(problem, decode, *facts.value(), gpu::stream_of(stream)));
  if (layout.max_tiles == 0) return {};
  gpu::PrefillCuts cuts;
  if (problem.head_dim <= kMostCutDim) {
    cuts = {.cut = words + kCutAt,
            .workers = reinterpret_cast<const PrefillWorker*>(words + layout.cut_workers_at),
            .counters = words + layout.cut_counters_at,
            .partials = args.workspace.ptr<float>() +
                        decode_partial_bytes(shape) / static_cast<int64_t>(sizeof(float)),
            .num_workers = shape.multiprocessors};
  }
  return gpu::launch_prefill(problem,
                             {.tiles = words + layout.tiles_at,
                              .count = words + kTileCountAt,
                              .max_tiles = layout.max_tiles,
                              .query_rows = args.q.size(0),
                              .cuts = cuts},
                             gpu::stream_of(stream));
}

}  // namespace mmcore::ops::cuda
