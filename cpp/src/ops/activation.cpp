#include "ops/activation.h"

#include <algorithm>
#include <string>

#include "base/thread_pool.h"
#include "ops/cuda_backend.h"
#include "ops/isa_table.h"
#include "tensor/dispatch.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {
namespace {

constexpr int64_t kElementsPerRange = 16384;

template <class T>
ActivationKernel<T> kernel() {
  return IsaTable<ActivationKernel<T>>{.reference = reference::activation<T>,
                                       .avx2 = MMCORE_IF_X86(avx2::activation<T>),
                                       .avx512 = MMCORE_IF_X86(avx512::activation<T>)}
      .pick();
}

void check_kind(ShapeCheck& check, Activation kind) {
  check.require(is_valid(kind), "no activation has number " +
                                    std::to_string(static_cast<int32_t>(kind)) +
                                    "; see Activation");
}

/// Elements before row `row` of a tensor whose rows are its last axis.
int64_t row_offset(const TensorView& t, int64_t row) {
  int64_t offset = 0;
  for (int axis = t.rank - 2; axis >= 0; --axis) {
    offset += row % t.size(axis) * t.stride(axis);
    row /= t.size(axis);
  }
  return offset;
}

bool is_contiguous(const TensorView& t) {
  int64_t step = 1;
  for (int axis = t.rank - 1; axis >= 0; --axis) {
    if (t.size(axis) > 1 && t.stride(axis) != step) return false;
    step *= t.size(axis);
  }
  return true;
}

/// Checks `t` against one dim per axis; any rank up to kMaxRank.
ShapeCheck::Tensor check_any_rank(ShapeCheck& check, const char* name, const TensorView& t,
                                  const ShapeCheck::Dim (&d)[kMaxRank], int rank) {
  switch (rank) {
    case 1:
      return check.tensor(name, t, {d[0]});
    case 2:
      return check.tensor(name, t, {d[0], d[1]});
    case 3:
      return check.tensor(name, t, {d[0], d[1], d[2]});
    case 4:
      return check.tensor(name, t, {d[0], d[1], d[2], d[3]});
    case 5:
      return check.tensor(name, t, {d[0], d[1], d[2], d[3], d[4]});
    default:
      return check.tensor(name, t, {d[0], d[1], d[2], d[3], d[4], d[5]});
  }
}

}  // namespace

Status activation(const TensorView& x, Activation kind, const TensorView& out, Stream stream) {
  ShapeCheck check("activation");
  const ShapeCheck::Dim dims[kMaxRank] = {check.dim("A"), check.dim("B"), check.dim("C"),
                                          check.dim("D"), check.dim("E"), check.dim("F")};
  check_any_rank(check, "x", x, dims, x.rank).floating();
  check_any_rank(check, "out", out, dims, x.rank).dtype(x.dtype).writable();
  check_kind(check, kind);
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::activation(x, kind, out, stream);
  const int64_t total = x.numel();
  if (total == 0) return {};
  return dispatch_float(x.dtype, "activation", [&]<class T>() {
    const ActivationKernel<T> run = kernel<T>();
    const T* from = x.ptr<const T>();
    T* to = out.ptr<T>();
    if (is_contiguous(x) && is_contiguous(out)) {
      parallel_for(total, kElementsPerRange, [&](int64_t begin, int64_t end) {
        run(from + begin, nullptr, to + begin, end - begin, kind);
      });
      return;
    }
    const int64_t width = x.size(x.rank - 1);
    const int64_t grain = std::max<int64_t>(1, kElementsPerRange / width);
    parallel_for(total / width, grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        run(from + row_offset(x, row), nullptr, to + row_offset(out, row), width, kind);
    });
  });
}

Status activation_mul(const TensorView& x, Activation kind, const TensorView& out, Stream stream) {
  ShapeCheck check("activation_mul");
  const auto T = check.dim("T"), I = check.dim("I");
  check.tensor("x", x, {T, 2 * I}).floating();
  check.tensor("out", out, {T, I}).dtype(x.dtype).writable();
  check_kind(check, kind);
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::activation_mul(x, kind, out, stream);
  const int64_t width = check.size(I);
  if (width == 0) return {};
  return dispatch_float(x.dtype, "activation_mul", [&]<class E>() {
    const ActivationKernel<E> run = kernel<E>();
    const int64_t grain = std::max<int64_t>(1, kElementsPerRange / width);
    parallel_for(check.size(T), grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const E* gate = x.ptr<const E>() + row * x.stride(0);
        run(gate, gate + width, out.ptr<E>() + row * out.stride(0), width, kind);
      }
    });
  });
}

}  // namespace mmcore::ops
