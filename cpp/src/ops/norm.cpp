#include "ops/norm.h"

#include <algorithm>

#include "base/thread_pool.h"
#include "mmcore/ops.h"
#include "ops/cuda_backend.h"
#include "ops/isa_table.h"
#include "tensor/dispatch.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {
namespace {

/// Rows that make a range worth handing to another thread.
int64_t rows_per_range(int64_t hidden) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, hidden));
}

template <class T>
void run(const IsaTable<NormKernel<T>>& kernels, const NormRows<T>& rows, int64_t tokens) {
  const NormKernel<T> kernel = kernels.pick();
  parallel_for(tokens, rows_per_range(rows.hidden),
               [&](int64_t begin, int64_t end) { kernel(rows, begin, end); });
}

}  // namespace

Status rms_norm(const RmsNormArgs& args, Stream stream) {
  ShapeCheck check("rms_norm");
  const auto T = check.dim("T"), H = check.dim("H");
  check.tensor("x", args.x, {T, H}).floating();
  check.tensor("weight", args.weight, {H}).dtype(args.x.dtype);
  check.optional("residual", args.residual, {T, H}).dtype(args.x.dtype).writable();
  check.tensor("out", args.out, {T, H}).dtype(args.x.dtype).writable();
  check.require(args.eps >= 0.0f, "eps is " + std::to_string(args.eps) + ", expected at least 0");
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::rms_norm(args, stream);
  if (check.size(H) == 0) return {};
  return dispatch_float(args.x.dtype, "rms_norm", [&]<class E>() {
    const NormRows<E> rows{.x = args.x.ptr<const E>(),
                           .weight = args.weight.ptr<const E>(),
                           .bias = nullptr,
                           .residual = args.residual.present ? args.residual.ptr<E>() : nullptr,
                           .out = args.out.ptr<E>(),
                           .hidden = check.size(H),
                           .x_stride = args.x.stride(0),
                           .residual_stride = args.residual.present ? args.residual.stride(0) : 0,
                           .out_stride = args.out.stride(0),
                           .eps = args.eps};
    run<E>({.reference = reference::rms_norm<E>,
            .avx2 = MMCORE_IF_X86(avx2::rms_norm<E>),
            .avx512 = MMCORE_IF_X86(avx512::rms_norm<E>)},
           rows, check.size(T));
  });
}

Status layer_norm(const LayerNormArgs& args, Stream stream) {
  ShapeCheck check("layer_norm");
  const auto T = check.dim("T"), H = check.dim("H");
  check.tensor("x", args.x, {T, H}).floating();
  check.tensor("weight", args.weight, {H}).dtype(args.x.dtype);
  check.optional("bias", args.bias, {H}).dtype(args.x.dtype);
  check.tensor("out", args.out, {T, H}).dtype(args.x.dtype).writable();
  check.require(args.eps >= 0.0f, "eps is " + std::to_string(args.eps) + ", expected at least 0");
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::layer_norm(args, stream);
  if (check.size(H) == 0) return {};
  return dispatch_float(args.x.dtype, "layer_norm", [&]<class E>() {
    const NormRows<E> rows{.x = args.x.ptr<const E>(),
                           .weight = args.weight.ptr<const E>(),
                           .bias = args.bias.present ? args.bias.ptr<const E>() : nullptr,
                           .residual = nullptr,
                           .out = args.out.ptr<E>(),
                           .hidden = check.size(H),
                           .x_stride = args.x.stride(0),
                           .residual_stride = 0,
                           .out_stride = args.out.stride(0),
                           .eps = args.eps};
    run<E>({.reference = reference::layer_norm<E>,
            .avx2 = MMCORE_IF_X86(avx2::layer_norm<E>),
            .avx512 = MMCORE_IF_X86(avx512::layer_norm<E>)},
           rows, check.size(T));
  });
}

}  // namespace mmcore::ops
