#include <algorithm>

#include "base/thread_pool.h"
#include "mmcore/ops.h"
#include "ops/cuda_backend.h"
#include "tensor/dispatch.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {

Status add(const TensorView& x, const TensorView& out, Stream stream) {
  ShapeCheck check("add");
  const auto T = check.dim("T"), H = check.dim("H");
  check.tensor("x", x, {T, H}).floating();
  check.tensor("out", out, {T, H}).dtype(x.dtype).writable();
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::add(x, out, stream);
  const int64_t width = check.size(H);
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width));
  return dispatch_float(x.dtype, "add", [&]<class E>() {
    parallel_for(check.size(T), grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const E* from = x.ptr<const E>() + row * x.stride(0);
        E* to = out.ptr<E>() + row * out.stride(0);
        for (int64_t i = 0; i < width; ++i) to[i] = E(float(to[i]) + float(from[i]));
      }
    });
  });
}

}  // namespace mmcore::ops
