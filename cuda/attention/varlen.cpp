// Attention over contiguous keys: the kernels of prefill, with tiles found on the device.
#include <cstdint>
#include <limits>
#include <string>

#include "attention/prefill.h"
#include "attention/prefill_params.h"
#include "host/device.h"
#include "ops/attention/problem.h"
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
  PrefillParams params = prefill_params(varlen_problem(args));
  params.max_tiles = static_cast<int32_t>(tiles);
  params.query_rows = rows;
  params.key_rows = args.k.size(0);
  return launch_attention(kOp, params, stream_of(stream));
}

}  // namespace mmcore::ops::cuda
