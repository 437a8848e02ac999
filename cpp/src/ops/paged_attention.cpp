#include <bit>
#include <string>

#include "ops/attention/entry_check.h"
#include "ops/attention/problem.h"
#include "ops/cache_scale.h"
#include "ops/cuda_backend.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {
namespace {

constexpr const char* kOp = "paged_attention";
constexpr int64_t kMaxBlockSize = 128;

/// Lengths against queries and table width, and every block that the call will read.
void check_tables(ShapeCheck& check, const AttentionProblem& p, int64_t table_width,
                  int64_t blocks) {
  const int64_t block_size = int64_t{1} << p.block_shift;
  for (int32_t n = 0; n < p.sequences && check.ok(); ++n) {
    const int32_t queries = query_len(p, n);
    const int32_t keys = p.seq_lens[n];
    if (keys < queries) {
      check.fail("seq_lens[" + std::to_string(n) + "] is " + std::to_string(keys) +
                 ", expected at least the " + std::to_string(queries) + " queries of the sequence");
    } else if (keys > table_width * block_size) {
      check.fail("seq_lens[" + std::to_string(n) + "] is " + std::to_string(keys) +
                 ", more than the " + std::to_string(table_width) + " blocks of " +
                 std::to_string(block_size) + " in block_tables hold");
    }
    if (queries == 0 || !check.ok()) continue;
    const int32_t first = visible_keys(p, n, 0).begin >> p.block_shift;
    const int32_t last = (visible_keys(p, n, queries - 1).end - 1) >> p.block_shift;
    for (int32_t b = first; b <= last; ++b) {
      const int32_t block = p.block_tables[n * p.table_stride + b];
      if (block >= 0 && block < blocks) continue;
      check.fail("block_tables[" + std::to_string(n) + ", " + std::to_string(b) + "] is " +
                 std::to_string(block) + ", expected 0 to " + std::to_string(blocks - 1));
      break;
    }
  }
}

}  // namespace

AttentionProblem paged_problem(const PagedAttentionArgs& args) {
  const TensorView& k = args.k_cache;
  const TensorView& v = args.v_cache;
  return {
      .q = args.q.data,
      .out = args.out.data,
      .q_row_stride = args.q.stride(0),
      .q_head_stride = args.q.stride(1),
      .out_row_stride = args.out.stride(0),
      .out_head_stride = args.out.stride(1),
      .k = {k.data, k.stride(0), k.stride(1), k.stride(2)},
      .v = {v.data, v.stride(0), v.stride(1), v.stride(2)},
      .dtype = args.q.dtype,
      .kv_dtype = k.dtype,
      .query_start = args.query_start.ptr<int32_t>(),
      .seq_lens = args.seq_lens.ptr<int32_t>(),
      .kv_start = nullptr,
      .block_tables = args.block_tables.ptr<int32_t>(),
      .table_stride = args.block_tables.stride(0),
      .block_shift = std::countr_zero(static_cast<uint64_t>(k.size(1))),
      .sequences = static_cast<int32_t>(args.seq_lens.size(0)),
      .heads = static_cast<int32_t>(args.q.size(1)),
      .kv_heads = static_cast<int32_t>(k.size(2)),
      .head_dim = static_cast<int32_t>(args.q.size(2)),
      .scale = args.scale * args.k_scale,
      .v_scale = args.v_scale,
      .soft_cap = args.soft_cap,
      .window = args.window,
      .causal = args.causal,
  };
}

Status paged_attention(const PagedAttentionArgs& args, Stream stream) {
  ShapeCheck check(kOp);
  const auto T = check.dim("T"), Hq = check.dim("Hq"), Hkv = check.dim("Hkv"), D = check.dim("D"),
             B = check.dim("B"), P = check.dim("P"), N = check.dim("N"), W = check.dim("W");
  check.tensor("q", args.q, {T, Hq, D}).floating();
  check.tensor("k_cache", args.k_cache, {B, P, Hkv, D}).cached();
  check.tensor("v_cache", args.v_cache, {B, P, Hkv, D}).dtype(args.k_cache.dtype);
  check.tensor("block_tables", args.block_tables, {N, W}).dtype(DType::kInt32);
  check.tensor("query_start", args.query_start, {N + 1}).dtype(DType::kInt32);
  check.tensor("seq_lens", args.seq_lens, {N}).dtype(DType::kInt32);
  check.tensor("out", args.out, {T, Hq, D}).dtype(args.q.dtype).writable();
  check_attention_parameters(check, check.size(Hq), check.size(Hkv), check.size(D), args.scale,
                             args.soft_cap, args.window);
  check_cache_scales(check, args.k_cache.dtype, args.k_scale, args.v_scale);
  const int64_t block_size = check.size(P);
  if (block_size < 1 || block_size > kMaxBlockSize ||
      !std::has_single_bit(static_cast<uint64_t>(block_size))) {
    check.fail("block size " + std::to_string(block_size) +
               " has no kernel; expected a power of two from 1 to " +
               std::to_string(kMaxBlockSize));
  }
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::paged_attention(args, stream);

  const AttentionProblem problem = paged_problem(args);
  if (problem.sequences == 0) return {};
  check_starts(check, "query_start", problem.query_start, problem.sequences, check.size(T));
  check_tables(check, problem, check.size(W), check.size(B));
  MMCORE_RETURN_IF_ERROR(check.status());
  run_attention(problem);
  return {};
}

}  // namespace mmcore::ops
