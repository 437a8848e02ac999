// The projector runs in blocks of rows: the first layer of a block writes the workspace, the second
// reads it (on a CPU while it is still in the cache) and writes the decoder's rows.
#include <algorithm>
#include <string>

#include "mmcore/ops.h"
#include "ops/activation.h"
#include "ops/cuda_backend.h"
#include "ops/linear.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {
namespace {

constexpr int64_t kBlockRows = 256;
constexpr int64_t kGpuBlockRows = 32768;  // 56 pictures of 577 rows; 256 MiB at 4096 bfloat16

}  // namespace

int64_t vision_projector_workspace_bytes(int64_t tokens, int64_t intermediate, DType dtype,
                                         Device device) {
  const int64_t most = on_gpu(device) ? kGpuBlockRows : kBlockRows;
  return std::clamp<int64_t>(tokens, 0, most) * std::max<int64_t>(0, intermediate) *
         static_cast<int64_t>(size_of(dtype));
}

Status vision_projector(const VisionProjectorArgs& args, Stream stream) {
  ShapeCheck check("vision_projector");
  const auto T = check.dim("T"), K = check.dim("K"), M = check.dim("M"), H = check.dim("H"),
             R = check.dim("R"), W = check.dim("W");
  const DType dtype = args.x.dtype;
  check.tensor("x", args.x, {T, K}).floating();
  check.tensor("w1", args.w1, {M, K}).dtype(dtype);
  check.optional("b1", args.b1, {M}).dtype(dtype);
  check.tensor("w2", args.w2, {H, M}).dtype(dtype);
  check.optional("b2", args.b2, {H}).dtype(dtype);
  check.optional("rows", args.rows, {T}).dtype(DType::kInt64);
  check.tensor("out", args.out, {args.rows.present ? R : T, H}).dtype(dtype).writable();
  check.tensor("workspace", args.workspace, {W}).dtype(DType::kUInt8);
  check.require(is_valid(args.act), "no activation has number " +
                                        std::to_string(static_cast<int32_t>(args.act)) +
                                        "; see Activation");
  MMCORE_RETURN_IF_ERROR(check.status());
  // A GPU makes do with fewer rows at a time, but not with less than a CPU.
  const int64_t need = vision_projector_workspace_bytes(check.size(T), check.size(M), dtype);
  check.require(check.size(W) >= need, "workspace has " + std::to_string(check.size(W)) +
                                           " bytes, expected at least " + std::to_string(need) +
                                           "; see vision_projector_workspace_bytes");
  check.require(reinterpret_cast<uintptr_t>(args.workspace.data) % size_of(dtype) == 0,
                "workspace is not aligned to elements of x");
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::vision_projector(args, stream);

  KeptRows kept;
  if (args.rows.present) {
    MMCORE_RETURN_IF_ERROR(
        kept_rows("vision_projector", "rows", args.rows, args.out.size(0), kept));
  }
  const int64_t total = args.rows.present ? static_cast<int64_t>(kept.to.size()) : check.size(T);
  const auto element = static_cast<int64_t>(size_of(dtype));
  for (int64_t begin = 0; begin < total && check.size(H) > 0; begin += kBlockRows) {
    // Without `rows` the block's own rows are addressed by moving the base pointers.
    const int64_t rows = std::min(kBlockRows, total - begin);
    const int64_t skip = args.rows.present ? 0 : begin;
    const LinearProblem first{.dtype = dtype,
                              .x = args.x.ptr<const char>() + skip * args.x.stride(0) * element,
                              .x_stride = args.x.stride(0),
                              .x_rows = args.rows.present ? kept.from.data() + begin : nullptr,
                              .w = args.w1.data,
                              .w_stride = args.w1.stride(0),
                              .bias = args.b1.present ? args.b1.data : nullptr,
                              .out = args.workspace.data,
                              .out_stride = check.size(M),
                              .out_rows = nullptr,
                              .tokens = rows,
                              .n = check.size(M),
                              .k = check.size(K),
                              .act = args.act};
    const LinearProblem second{.dtype = dtype,
                               .x = args.workspace.data,
                               .x_stride = check.size(M),
                               .x_rows = nullptr,
                               .w = args.w2.data,
                               .w_stride = args.w2.stride(0),
                               .bias = args.b2.present ? args.b2.data : nullptr,
                               .out = args.out.ptr<char>() + skip * args.out.stride(0) * element,
                               .out_stride = args.out.stride(0),
                               .out_rows = args.rows.present ? kept.to.data() + begin : nullptr,
                               .tokens = rows,
                               .n = check.size(H),
                               .k = check.size(M),
                               .act = Activation::kNone};
    if (check.size(M) > 0) run_linear(first);
    run_linear(second);
  }
  return {};
}

}  // namespace mmcore::ops
