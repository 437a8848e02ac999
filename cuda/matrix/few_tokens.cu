#include "matrix/few_tokens.cuh"

#include "host/launch.h"
#include "matrix/tensor_map.h"

namespace mmcore::cuda {
namespace {

template <class T, int kTokens>
Status launch(const char* op, const MatrixProblem& p, const FewTokensPlan& plan,
              cudaStream_t stream) {
  CUtensorMap map_w, map_x;
  MMCORE_RETURN_IF_ERROR(row_map(op, p.dtype, p.w, p.n, p.k, p.w_stride, plan.box, 64, map_w));
  MMCORE_RETURN_IF_ERROR(row_map(op, p.dtype, p.x, p.tokens, p.k, p.x_stride, kTokens, 64, map_x));
  const auto kernel = few_tokens_kernel<T, kTokens>;
  MMCORE_RETURN_IF_ERROR(allow_shared(op, kernel, plan.shared_bytes));
  const FewTokensParams params{.bias = p.bias,
                               .target = {p.out, p.out_stride, p.rows, p.out_rows},
                               .tokens = static_cast<int>(p.tokens),
                               .n = static_cast<int>(p.n),
                               .steps = static_cast<int>((p.k + 63) / 64),
                               .split = plan.split,
                               .box = plan.box,
                               .boxes = static_cast<int>(plan.boxes),
                               .most = plan.most,
                               .stages = plan.stages,
                               .early = plan.early,
                               .stage_bytes = plan.stage_bytes,
                               .tail_bytes = plan.tail_bytes,
                               .inbox_bytes = plan.inbox_bytes,
                               .act = form_of(p.act),
                               .steady_weights = p.steady_weights};
  const int64_t blocks = int64_t{plan.clusters} * plan.split;
  launch_overlapped_with({.shared = plan.shared_bytes, .cluster = plan.split}, kernel, blocks,
                         dim3(288), 90, static_cast<int>(blocks), stream, map_w, map_x, params);
  return launch_status(op);
}

template <class T>
Status launch(const char* op, const MatrixProblem& p, const FewTokensPlan& plan,
              cudaStream_t stream) {
  switch (plan.tokens) {
    case 8:
      return launch<T, 8>(op, p, plan, stream);
    case 16:
      return launch<T, 16>(op, p, plan, stream);
    case 32:
      return launch<T, 32>(op, p, plan, stream);
    default:
      return launch<T, 64>(op, p, plan, stream);
  }
}

}  // namespace

Status run_few_tokens(const char* op, const MatrixProblem& p, const FewTokensPlan& plan,
                      cudaStream_t stream) {
  return p.dtype == DType::kBFloat16 ? launch<__nv_bfloat16>(op, p, plan, stream)
                                     : launch<__half>(op, p, plan, stream);
}

}  // namespace mmcore::cuda
