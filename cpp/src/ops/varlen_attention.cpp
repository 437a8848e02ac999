#include "ops/attention/entry_check.h"
#include "ops/attention/problem.h"
#include "ops/cuda_backend.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {

AttentionProblem varlen_problem(const VarlenAttentionArgs& args) {
  return {
      .q = args.q.data,
      .out = args.out.data,
      .q_row_stride = args.q.stride(0),
      .q_head_stride = args.q.stride(1),
      .out_row_stride = args.out.stride(0),
      .out_head_stride = args.out.stride(1),
      .k = {args.k.data, 0, args.k.stride(0), args.k.stride(1)},
      .v = {args.v.data, 0, args.v.stride(0), args.v.stride(1)},
      .dtype = args.q.dtype,
      .kv_dtype = args.k.dtype,
      .query_start = args.cu_q.ptr<int32_t>(),
      .seq_lens = nullptr,
      .kv_start = args.cu_k.ptr<int32_t>(),
      .block_tables = nullptr,
      .table_stride = 0,
      .block_shift = 0,
      .sequences = static_cast<int32_t>(args.cu_q.size(0) - 1),
      .heads = static_cast<int32_t>(args.q.size(1)),
      .kv_heads = static_cast<int32_t>(args.k.size(1)),
      .head_dim = static_cast<int32_t>(args.q.size(2)),
      .scale = args.scale,
      .soft_cap = args.soft_cap,
      .window = args.window,
      .causal = args.causal,
  };
}

Status varlen_attention(const VarlenAttentionArgs& args, Stream stream) {
  constexpr const char* kOp = "varlen_attention";
  ShapeCheck check(kOp);
  const auto Tq = check.dim("Tq"), Tk = check.dim("Tk"), Hq = check.dim("Hq"),
             Hkv = check.dim("Hkv"), D = check.dim("D"), N = check.dim("N");
  check.tensor("q", args.q, {Tq, Hq, D}).floating();
  check.tensor("k", args.k, {Tk, Hkv, D}).floating();
  check.tensor("v", args.v, {Tk, Hkv, D}).dtype(args.k.dtype);
  check.tensor("cu_q", args.cu_q, {N + 1}).dtype(DType::kInt32);
  check.tensor("cu_k", args.cu_k, {N + 1}).dtype(DType::kInt32);
  check.tensor("out", args.out, {Tq, Hq, D}).dtype(args.q.dtype).writable();
  check_attention_parameters(check, check.size(Hq), check.size(Hkv), check.size(D), args.scale,
                             args.soft_cap, args.window);
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::varlen_attention(args, stream);

  const AttentionProblem problem = varlen_problem(args);
  if (problem.sequences == 0) return {};
  check_starts(check, "cu_q", problem.query_start, problem.sequences, check.size(Tq));
  check_starts(check, "cu_k", problem.kv_start, problem.sequences, check.size(Tk));
  MMCORE_RETURN_IF_ERROR(check.status());
  run_attention(problem);
  return {};
}

}  // namespace mmcore::ops
