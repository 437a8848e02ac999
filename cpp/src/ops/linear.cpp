#include "ops/linear.h"

#include <algorithm>
#include <memory>
#include <new>
#include <string>

#include "base/thread_pool.h"
#include "ops/activation.h"
#include "ops/cuda_backend.h"
#include "ops/isa_table.h"
#include "ops/linear_kernels.h"
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

namespace {

/// Memory that a thread keeps for its next call.
class Scratch {
 public:
  float* at_least(int64_t floats) {
    if (floats > size_) {
      data_.reset();
      data_.reset(static_cast<float*>(::operator new(static_cast<size_t>(floats) * sizeof(float),
                                                     std::align_val_t{kAlignment})));
      size_ = floats;
    }
    return data_.get();
  }

 private:
  static constexpr size_t kAlignment = 64;
  struct Delete {
    void operator()(float* p) const { ::operator delete(p, std::align_val_t{kAlignment}); }
  };
  std::unique_ptr<float, Delete> data_;
  int64_t size_ = 0;
};

/// Packed x, for all threads of a call, and what one thread needs for a block of weights.
thread_local Scratch packed_scratch;
thread_local Scratch block_scratch;

const LinearKernels* kernels_for(DType dtype) {
#if defined(__x86_64__)
  const CpuIsa isa = cpu_isa();
  const bool wide = isa >= CpuIsa::kAvx512;
  if (isa == CpuIsa::kReference) return nullptr;
  switch (dtype) {
    case DType::kFloat32:
      return wide ? &avx512::linear_kernels<float>() : &avx2::linear_kernels<float>();
    case DType::kFloat16:
      return wide ? &avx512::linear_kernels<f16>() : &avx2::linear_kernels<f16>();
    case DType::kBFloat16:
      if (isa >= CpuIsa::kAmxBf16) return &amxbf16::linear_kernels();
      if (isa >= CpuIsa::kAvx512Bf16) return &avx512bf16::linear_kernels();
      return wide ? &avx512::linear_kernels<bf16>() : &avx2::linear_kernels<bf16>();
    default:
      return nullptr;
  }
#else
  static_cast<void>(dtype);
  return nullptr;
#endif
}

void run_reference(const LinearProblem& p) {
  const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, p.tokens * p.k));
  const Status status = dispatch_float(p.dtype, "linear", [&]<class T>() {
    parallel_for(p.n, grain,
                 [&](int64_t begin, int64_t end) { reference::linear<T>(p, begin, end); });
  });
  static_cast<void>(status);  // the dtype was checked at entry
}

void run_rows(const LinearProblem& p, const LinearKernels& kernels) {
  float* packed = packed_scratch.at_least(p.tokens * kernels.row_units(p.k));
  kernels.pack_rows(p, packed);
  constexpr int64_t kRangeBytes = 32768;  // of weights; less is not worth a hand-over
  const int64_t row_bytes = p.k * static_cast<int64_t>(size_of(p.dtype));
  const int64_t grain = (kRangeBytes / row_bytes + 4) / 4 * 4;
  parallel_for(p.n, grain,
               [&](int64_t begin, int64_t end) { kernels.rows(p, packed, begin, end); });
}

/// Tokens [first, first + count) against all weights.
void run_blocks(const LinearProblem& p, const LinearKernels& kernels, int64_t first,
                int64_t count) {
  const int64_t panel = kernels.panel_tokens;
  const int64_t units = kernels.units(p.k);
  float* packed = packed_scratch.at_least((count + panel - 1) / panel * panel * units);
  const int64_t packing_grain = std::max<int64_t>(1, 65536 / (panel * units));
  parallel_for((count + panel - 1) / panel, packing_grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      kernels.pack_panel(p, first + i * panel, std::min(panel, count - i * panel),
                         packed + i * panel * units);
  });
  // A block's packed weights and results stay in the L2 cache.
  const int64_t most = 4 * kernels.strip;
  const int64_t even = (p.n / (4 * pool_threads()) + kernels.strip) / kernels.strip * kernels.strip;
  const int64_t rows = std::clamp(even, kernels.strip, most);
  parallel_for((p.n + rows - 1) / rows, 1, [&](int64_t begin, int64_t end) {
    float* scratch = block_scratch.at_least(kernels.block_scratch(rows, count));
    for (int64_t i = begin; i < end; ++i)
      kernels.block(p, packed, first, count, i * rows, std::min(p.n, (i + 1) * rows), scratch);
  });
}

}  // namespace

void run_linear(const LinearProblem& p) {
  const LinearKernels* kernels = kernels_for(p.dtype);
  if (kernels == nullptr || p.k == 0) return run_reference(p);
  if (p.tokens <= kernels->row_tokens) return run_rows(p, *kernels);
  constexpr int64_t kTokensAtOnce = 256;
  for (int64_t first = 0; first < p.tokens; first += kTokensAtOnce)
    run_blocks(p, *kernels, first, std::min(kTokensAtOnce, p.tokens - first));
}

Status linear(const LinearArgs& args, Stream stream) {
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
  if (on_gpu(check.device())) return cuda::linear(args, stream);
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
