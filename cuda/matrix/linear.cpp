// linear on a GPU: which kernel computes it.
#include <string>

#include "host/device.h"
#include "matrix/alignment.h"
#include "matrix/few_tokens.h"
#include "matrix/problem.h"
#include "ops/cuda_backend.h"

namespace mmcore::cuda {

// On an H100 in 16 bits up to 64 tokens run at the memory's bandwidth, 6 to 17 % before cuBLAS (a
// weight of 4096 x 4096: 42 % for one token, 3 to 6 % behind it from 32 on). From 65 on the Python
// layers give products to torch.
Status run_matrix(const char* op, const MatrixProblem& p, const DeviceFacts& facts,
                  cudaStream_t stream) {
  if (p.tokens <= 0 || p.n <= 0) return {};
  // Kernels count elements of a row, and their tiles (of 64 x 64 or more), in 32 bits.
  constexpr int64_t kMost = int64_t{1} << 30, kMostTiles = int64_t{1} << 31;
  if (p.tokens > kMost || p.n > kMost || p.k > kMost ||
      (p.tokens / 64 + 1) * (p.n / 64 + 1) >= kMostTiles) {
    return Status::unsupported(std::string(op) + ": a product of [" + std::to_string(p.tokens) +
                               ", " + std::to_string(p.k) + "] and [" + std::to_string(p.n) + ", " +
                               std::to_string(p.k) + "]; expected sizes up to 2^30");
  }
  const auto size = static_cast<int64_t>(size_of(p.dtype));
  const bool wide = p.k > 0 && p.k * size % 16 == 0 && rows_aligned16(p.x, p.x_stride, size) &&
                    rows_aligned16(p.w, p.w_stride, size);
  const bool whole = p.dtype == DType::kFloat32;
  if (prefers_few_tokens(p, facts)) {
    return run_few_tokens(op, p, plan_few_tokens(p, facts), stream);
  }
  if (wide && p.tokens <= (whole ? 8 : 1)) return run_gemv(op, p, facts, stream);
  if (whole) return run_simt(op, p, stream);
  if (wide && p.tokens <= 16) return run_skinny(op, p, facts, stream);
  if (fits_wgmma(p, facts)) return run_wgmma(op, p, facts, stream);
  return run_tensor_core(op, p, stream);
}

}  // namespace mmcore::cuda

namespace mmcore::ops::cuda {

using namespace mmcore::cuda;  // NOLINT: its building blocks

Status linear(const LinearArgs& args, Stream stream) {
  const DeviceGuard guard(args.x.device);
  const auto facts = device_facts(args.x.device);
  if (!facts.ok()) return facts.status();
  const MatrixProblem problem{
      .dtype = args.x.dtype,
      .x = args.x.data,
      .x_stride = args.x.stride(0),
      .w = args.weight.data,
      .w_stride = args.weight.stride(0),
      .bias = args.bias.present ? args.bias.data : nullptr,
      .out = args.out.data,
      .out_stride = args.out.stride(0),
      .rows = args.out_rows.present ? args.out_rows.ptr<int64_t>() : nullptr,
      .out_rows = args.out.size(0),
      .tokens = args.x.size(0),
      .n = args.weight.size(0),
      .k = args.x.size(1),
      .act = args.act,
      .steady_weights = args.steady_weight};
  return run_matrix("linear", problem, *facts.value(), stream_of(stream));
}

}  // namespace mmcore::ops::cuda
