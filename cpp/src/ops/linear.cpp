#include "ops/linear.h"

#include <algorithm>
#include <string>

#include "base/thread_pool.h"
#include "ops/activation.h"
#include "ops/device_check.h"
#include "tensor/dispatch.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {

Status kept_rows(const char* op, const char* name, const TensorView& rows, int64_t limit,
                 KeptRows& kept) {
  const auto* index = rows.ptr<const int64_t>();
  for (int64_t i = 0; i < rows.size(0); ++i) {
    if (index[i] < 0) continue;
    if (index[i] >= limit) {
      return Status::invalid_argument(std::string(op) + ": " + name + "[" + std::to_string(i) +
                                      "] is " + std::to_string(index[i]) + ", expected below " +
                                      std::to_string(limit) + ", the rows of out");
    }
    kept.from.push_back(i);
    kept.to.push_back(index[i]);
  }
  return {};
}

void run_linear(const LinearProblem& p) {
  const Status status = dispatch_float(p.dtype, "linear", [&]<class T>() {
    const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, p.tokens * p.k));
    parallel_for(p.n, grain,
                 [&](int64_t begin, int64_t end) { reference::linear<T>(p, begin, end); });
  });
  static_cast<void>(status);  // the dtype was checked at entry
}

Status linear(const LinearArgs& args, Stream) {
  ShapeCheck check("linear");
  const auto T = check.dim("T"), K = check.dim("K"), N = check.dim("N"), R = check.dim("R");
  check.tensor("x", args.x, {T, K}).floating();
  check.tensor("weight", args.weight, {N, K}).dtype(args.x.dtype);
  check.optional("bias", args.bias, {N}).dtype(args.x.dtype);
  check.optional("out_rows", args.out_rows, {T}).dtype(DType::kInt64);
  check.tensor("out", args.out, {args.out_rows.present ? R : T, N}).dtype(args.x.dtype).writable();
  check.require(is_valid(args.act), "no activation has number " +
                                        std::to_string(static_cast<int32_t>(args.act)) +
                                        "; see Activation");
  MMCORE_RETURN_IF_ERROR(check.status());
  MMCORE_RETURN_IF_ERROR(require_cpu("linear", check.device()));
  KeptRows kept;
  if (args.out_rows.present) {
    MMCORE_RETURN_IF_ERROR(kept_rows("linear", "out_rows", args.out_rows, args.out.size(0), kept));
  }
  const LinearProblem problem{
      .dtype = args.x.dtype,
      .x = args.x.data,
      .x_stride = args.x.stride(0),
      .x_rows = args.out_rows.present ? kept.from.data() : nullptr,
      .w = args.weight.data,
      .w_stride = args.weight.stride(0),
      .bias = args.bias.present ? args.bias.data : nullptr,
      .out = args.out.data,
      .out_stride = args.out.stride(0),
      .out_rows = args.out_rows.present ? kept.to.data() : nullptr,
      .tokens = args.out_rows.present ? static_cast<int64_t>(kept.to.size()) : check.size(T),
      .n = check.size(N),
      .k = check.size(K),
      .act = args.act};
  if (problem.tokens > 0 && problem.n > 0) run_linear(problem);
  return {};
}

}  // namespace mmcore::ops
