// Attention over contiguous keys: the kernels of prefill, with tiles found on the device.
#include <cstdint>
#include <limits>
#include <string>

#include "attention/prefill.h"
#include "attention/prefill_params.h"
#include "host/device.h"
#include "ops/cuda_backend.h"

namespace mmcore::ops::cuda {

using namespace mmcore::cuda;  // NOLINT: the building blocks

Status varlen_attention(const VarlenAttentionArgs& args, Stream stream) {
  constexpr const char* kOp = "varlen_attention";
  const int64_t sequences = args.cu_q.size(0) - 1, rows = args.q.size(0);
  if (sequences <= 0 || rows == 0) return {};
  // A tile more for each sequence whose last tile is not full.
  const int64_t tiles = rows / kPrefillTileRows + sequences;
  if (tiles > std::numeric_limits<int32_t>::max()) {
    return Status::invalid_argument(std::string(kOp) + ": " + std::to_string(rows) +
                                    " query rows are too many for one call; use smaller batches");
  }
  const DeviceGuard guard(args.q.device);
  PrefillParams params = prefill_params({
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
      .sequences = static_cast<int32_t>(sequences),
      .heads = static_cast<int32_t>(args.q.size(1)),
      .kv_heads = static_cast<int32_t>(args.k.size(1)),
      .head_dim = static_cast<int32_t>(args.q.size(2)),
      .scale = args.scale,
      .soft_cap = args.soft_cap,
      .window = args.window,
      .causal = args.causal,
  });
  params.max_tiles = static_cast<int32_t>(tiles);
  params.key_rows = args.k.size(0);
  return launch_attention(kOp, params, stream_of(stream));
}

}  // namespace mmcore::ops::cuda
