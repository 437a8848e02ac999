#include "attention/decode.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <initializer_list>
#include <string>

#include "attention/decode_params.h"

namespace mmcore::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634f;

bool multiples(int64_t of, std::initializer_list<int64_t> values) {
  for (const int64_t value : values) {
    if (value % of != 0) return false;
  }
  return true;
}

int64_t address(const void* p) { return static_cast<int64_t>(reinterpret_cast<uintptr_t>(p)); }

/// Keys and values in pieces of 16 bytes or of 8, outputs of 8, queries of 4.
bool aligned(const DecodeParams& p) {
  const int64_t row = p.head_dim * static_cast<int64_t>(size_of(p.kv_dtype));
  return multiples(row % 16 == 0 ? 16 : 8,
                   {address(p.k), p.k_block_stride, p.k_row_stride, p.k_head_stride, address(p.v),
                    p.v_block_stride, p.v_row_stride, p.v_head_stride}) &&
         multiples(8, {address(p.out), p.out_row_stride, p.out_head_stride}) &&
         multiples(4, {address(p.q), p.q_row_stride, p.q_head_stride});
}

DecodeParams params_of(const ops::AttentionProblem& p, const DecodeWork& work) {
  const auto size = static_cast<int64_t>(size_of(p.dtype));
  const auto kv_size = static_cast<int64_t>(size_of(p.kv_dtype));
  const bool capped = p.soft_cap > 0;
  const int64_t rows = 2 * int64_t{work.num_workers} * work.max_rows;
  return {.q = static_cast<const char*>(p.q),
          .out = static_cast<char*>(p.out),
          .k = static_cast<const char*>(p.k.data),
          .v = static_cast<const char*>(p.v.data),
          .q_row_stride = p.q_row_stride * size,
          .q_head_stride = p.q_head_stride * size,
          .out_row_stride = p.out_row_stride * size,
          .out_head_stride = p.out_head_stride * size,
          .k_block_stride = p.k.block_stride * kv_size,
          .k_row_stride = p.k.row_stride * kv_size,
          .k_head_stride = p.k.head_stride * kv_size,
          .v_block_stride = p.v.block_stride * kv_size,
          .v_row_stride = p.v.row_stride * kv_size,
          .v_head_stride = p.v.head_stride * kv_size,
          .block_tables = p.block_tables,
          .table_stride = p.table_stride,
          .num_blocks = work.num_blocks,
          .block_shift = p.block_shift,
          .workers = work.workers,
          .sequences = work.sequences,
          .counters = work.counters,
          .partials = work.workspace,
          .partial_sums = reinterpret_cast<float2*>(work.workspace + rows * p.head_dim),
          .max_rows = work.max_rows,
          .units = ops::units_of(p.kv_heads, p.heads / p.kv_heads),
          .teams = false,
          .group = p.heads / p.kv_heads,
          .head_dim = p.head_dim,
          .window = p.window,
          .causal = p.causal,
          .factor = (capped ? p.soft_cap : p.scale) * kLog2E,
          .cap_factor = capped ? p.scale / p.soft_cap : 0.0f,
          .v_scale = p.v_scale,
          .dtype = p.dtype,
          .kv_dtype = p.kv_dtype};
}

template <class T, int kDim>
Status launch_typed(const DecodeParams& params, int64_t all_units, int32_t workers,
                    const DeviceFacts& facts, cudaStream_t stream) {
  return params.kv_dtype == DType::kFloat8E4M3
             ? launch_decode_float8<T, kDim>(params, all_units, workers, facts, stream)
             : launch_decode_rows<T, T, kDim>(params, workers, facts, stream);
}

template <class T>
Status launch_dim(const DecodeParams& params, int64_t all_units, int32_t workers,
                  const DeviceFacts& facts, cudaStream_t stream) {
  switch (params.head_dim) {
    case 32:
      return launch_typed<T, 32>(params, all_units, workers, facts, stream);
    case 64:
      return launch_typed<T, 64>(params, all_units, workers, facts, stream);
    case 72:
      return launch_typed<T, 72>(params, all_units, workers, facts, stream);
    case 80:
      return launch_typed<T, 80>(params, all_units, workers, facts, stream);
    case 96:
      return launch_typed<T, 96>(params, all_units, workers, facts, stream);
    case 128:
      return launch_typed<T, 128>(params, all_units, workers, facts, stream);
    case 256:
      return launch_typed<T, 256>(params, all_units, workers, facts, stream);
    default:
      return Status::unsupported("paged_attention: no decode kernel for head dim " +
                                 std::to_string(params.head_dim));
  }
}

}  // namespace

Status launch_decode(const ops::AttentionProblem& problem, const DecodeWork& work,
                     const DeviceFacts& facts, cudaStream_t stream) {
  DecodeParams params = params_of(problem, work);
  // Where the call's sequences are few enough, whatever their lengths in this step.
  const int64_t all_units = int64_t{problem.sequences} * params.units;
  params.teams = facts.capability >= 90 && ops::may_have_teams(all_units, work.num_workers);
  const bool typed = params.kv_dtype == params.dtype || params.kv_dtype == DType::kFloat8E4M3;
  if (typed && aligned(params)) {
    if (params.dtype == DType::kBFloat16) {
      return launch_dim<__nv_bfloat16>(params, all_units, work.num_workers, facts, stream);
    }
    if (params.dtype == DType::kFloat16) {
      return launch_dim<__half>(params, all_units, work.num_workers, facts, stream);
    }
  }
  return launch_decode_plain(params, work.num_workers, stream);
}

}  // namespace mmcore::cuda
