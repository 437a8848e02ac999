// The vision projector: two matrix products; the second stores straight to the decoder's rows.
#include <algorithm>
#include <cstdint>

#include "host/device.h"
#include "matrix/problem.h"
#include "ops/cuda_backend.h"

namespace mmcore::ops::cuda {

using namespace mmcore::cuda;  // NOLINT: its building blocks

Status vision_projector(const VisionProjectorArgs& args, Stream stream) {
  const DeviceGuard guard(args.x.device);
  const auto facts = device_facts(args.x.device);
  if (!facts.ok()) return facts.status();
  const int64_t tokens = args.x.size(0), intermediate = args.w1.size(0);
  const auto element = static_cast<int64_t>(size_of(args.x.dtype));
  // As many rows at a time as the workspace holds: all of them where it was sized for a GPU.
  const int64_t row_bytes = intermediate * element;
  const int64_t most =
      row_bytes > 0 ? std::max<int64_t>(1, args.workspace.size(0) / row_bytes) : tokens;
  for (int64_t begin = 0; begin < tokens; begin += most) {
    const int64_t count = std::min(most, tokens - begin);
    const int64_t* rows = args.rows.present ? args.rows.ptr<int64_t>() + begin : nullptr;
    // Without `rows` the block's own rows are addressed by moving the base pointer.
    const int64_t skip = rows != nullptr ? 0 : begin;
    const MatrixProblem first{.dtype = args.x.dtype,
                              .x = args.x.ptr<const char>() + begin * args.x.stride(0) * element,
                              .x_stride = args.x.stride(0),
                              .w = args.w1.data,
                              .w_stride = args.w1.stride(0),
                              .bias = args.b1.present ? args.b1.data : nullptr,
                              .out = args.workspace.data,
                              .out_stride = intermediate,
                              .rows = nullptr,
                              .out_rows = count,
                              .tokens = count,
                              .n = intermediate,
                              .k = args.x.size(1),
                              .act = args.act};
    const MatrixProblem second{.dtype = args.x.dtype,
                               .x = args.workspace.data,
                               .x_stride = intermediate,
                               .w = args.w2.data,
                               .w_stride = args.w2.stride(0),
                               .bias = args.b2.present ? args.b2.data : nullptr,
                               .out = args.out.ptr<char>() + skip * args.out.stride(0) * element,
                               .out_stride = args.out.stride(0),
                               .rows = rows,
                               .out_rows = rows != nullptr ? args.out.size(0) : count,
                               .tokens = count,
                               .n = args.w2.size(0),
                               .k = intermediate,
                               .act = Activation::kNone,
                               .steady_weights = true};
    const cudaStream_t queue = stream_of(stream);
    MMCORE_RETURN_IF_ERROR(run_matrix("vision_projector", first, *facts.value(), queue));
    MMCORE_RETURN_IF_ERROR(run_matrix("vision_projector", second, *facts.value(), queue));
  }
  return {};
}

}  // namespace mmcore::ops::cuda
