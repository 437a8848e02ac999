#include "ops/rope_kv_write.h"

#include <algorithm>
#include <string>

#include "base/thread_pool.h"
#include "ops/cache_scale.h"
#include "ops/cuda_backend.h"
#include "ops/isa_table.h"
#include "tensor/shape_check.h"

namespace mmcore::ops {
namespace {

constexpr const char* kOp = "rope_kv_write";
using Problem = RopeKvWriteProblem;

constexpr IsaTable<void (*)(const Problem&, int64_t, int64_t)> kKernels{
    .reference = rope_kv_write_reference,
    .avx2 = MMCORE_IF_X86(rope_kv_write_avx2),
    .avx512 = MMCORE_IF_X86(rope_kv_write_avx512)};

Problem::Rows rows_of(const TensorView& t) {
  return t.present ? Problem::Rows{t.data, t.stride(0), t.stride(1)} : Problem::Rows{};
}

Problem::Cache cache_of(const TensorView& t) {
  return t.present ? Problem::Cache{t.data, t.stride(0), t.stride(1), t.stride(2)}
                   : Problem::Cache{};
}

void check_range(ShapeCheck& check, const std::string& name, const int64_t* values, int64_t n,
                 int64_t least, int64_t limit) {
  for (int64_t i = 0; i < n; ++i) {
    if (values[i] >= least && values[i] < limit) continue;
    check.fail(name + "[" + std::to_string(i) + "] is " + std::to_string(values[i]) +
               ", expected less than " + std::to_string(limit) +
               (least == 0 ? " and not negative" : ""));
    return;
  }
}

bool has_sections(const RopeKvWriteArgs& args) { return args.sections != std::array<int32_t, 3>{}; }

/// That every one of `half` frequencies belongs to an axis, and each axis has as many as it should.
void check_sections(ShapeCheck& check, const RopeKvWriteArgs& args, int64_t half) {
  const auto& [t, h, w] = args.sections;
  const std::string given =
      "sections are " + std::to_string(t) + ", " + std::to_string(h) + ", " + std::to_string(w);
  if (t < 0 || h < 0 || w < 0 || int64_t{t} + h + w != half) {
    check.fail(given + "; expected three counts, not negative, whose sum is half the " +
               std::to_string(2 * half) + " columns of cos_sin");
  } else if (args.sections_interleaved && (3 * int64_t{h} > half + 1 || 3 * int64_t{w} > half)) {
    check.fail(given + "; interleaved, " + std::to_string(half) + " frequencies have room for " +
               std::to_string((half + 1) / 3) + " of h and " + std::to_string(half / 3) + " of w");
  }
}

}  // namespace

Status rope_kv_write(const RopeKvWriteArgs& args, Stream stream) {
  ShapeCheck check(kOp);
  const auto T = check.dim("T"), Hq = check.dim("Hq"), Hkv = check.dim("Hkv"), D = check.dim("D"),
             R = check.dim("R"), M = check.dim("max position"), B = check.dim("B"),
             P = check.dim("P");
  check.tensor("k", args.k, {T, Hkv, D}).floating().writable();
  check.optional("q", args.q, {T, Hq, D}).dtype(args.k.dtype).writable();
  const bool rotates = args.cos_sin.present;
  if (rotates != args.positions.present) {
    check.fail("positions and cos_sin belong together, but only one is present");
  }
  const bool axes = has_sections(args);
  if (axes && !rotates) check.fail("sections are given, but no positions and cos_sin to use them");
  if (axes) {
    check.optional("positions", args.positions, {3, T}).dtype(DType::kInt64);
  } else {
    check.optional("positions", args.positions, {T}).dtype(DType::kInt64);
  }
  check.optional("cos_sin", args.cos_sin, {M, R}).dtype(DType::kFloat32);
  if (const int64_t columns = check.size(R); columns % 2 != 0 || columns > check.size(D)) {
    check.fail("cos_sin has " + std::to_string(columns) +
               " columns, expected an even number of at most D = " + std::to_string(check.size(D)));
  } else if (columns > kMaxRotaryDim) {
    check.fail("cos_sin has " + std::to_string(columns) + " columns, the most is " +
               std::to_string(kMaxRotaryDim));
  }
  if (axes && check.ok()) check_sections(check, args, check.size(R) / 2);
  const bool writes = args.k_cache.present;
  if (writes != args.v_cache.present) {
    check.fail("k_cache and v_cache belong together, but only one is present");
  }
  if (writes) {
    check.tensor("v", args.v, {T, Hkv, D}).dtype(args.k.dtype);
    check.tensor("k_cache", args.k_cache, {B, P, Hkv, D}).cached().writable();
    check.tensor("v_cache", args.v_cache, {B, P, Hkv, D}).dtype(args.k_cache.dtype).writable();
    check.tensor("slot_mapping", args.slot_mapping, {T}).dtype(DType::kInt64);
  } else {
    check.optional("v", args.v, {T, Hkv, D}).dtype(args.k.dtype);
  }
  check_cache_scales(check, writes ? args.k_cache.dtype : DType::kFloat8E4M3, args.k_scale,
                     args.v_scale);
  MMCORE_RETURN_IF_ERROR(check.status());
  if (on_gpu(check.device())) return cuda::rope_kv_write(args, stream);

  const int64_t tokens = check.size(T);
  const Problem problem{
      .q = rows_of(args.q),
      .k = rows_of(args.k),
      .v = rows_of(args.v),
      .k_cache = cache_of(args.k_cache),
      .v_cache = cache_of(args.v_cache),
      .dtype = args.k.dtype,
      .cache_dtype = writes ? args.k_cache.dtype : args.k.dtype,
      .positions = args.positions.ptr<int64_t>(),
      .axis_stride = axes ? args.positions.stride(0) : 0,
      .cos_sin = args.cos_sin.ptr<float>(),
      .cos_sin_stride = args.cos_sin.stride(0),
      .slot_mapping = args.slot_mapping.ptr<int64_t>(),
      .block_size = check.size(P),
      .q_heads = static_cast<int32_t>(args.q.present ? check.size(Hq) : 0),
      .kv_heads = static_cast<int32_t>(check.size(Hkv)),
      .head_dim = static_cast<int32_t>(check.size(D)),
      .rotary_dim = static_cast<int32_t>(check.size(R)),
      .interleaved = args.interleaved,
      .sections = {args.sections[0], args.sections[1], args.sections[2]},
      .sections_interleaved = args.sections_interleaved,
      .k_factor = 1.0f / args.k_scale,
      .v_factor = 1.0f / args.v_scale,
  };
  // Before anything is written: a refused call leaves its tensors as they were.
  for (int64_t axis = 0; rotates && axis < (axes ? 3 : 1); ++axis) {
    check_range(check, axes ? "positions[" + std::to_string(axis) + "]" : "positions",
                problem.positions + axis * problem.axis_stride, tokens, 0, check.size(M));
  }
  if (writes) {
    check_range(check, "slot_mapping", problem.slot_mapping, tokens, INT64_MIN,
                check.size(B) * check.size(P));
  }
  MMCORE_RETURN_IF_ERROR(check.status());

  // A few thousand elements a range: below that, waking a thread costs more than it saves.
  const int64_t width = int64_t{problem.q_heads + 2 * problem.kv_heads} * problem.head_dim;
  const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, width));
  const auto kernel = kKernels.pick();
  parallel_for(tokens, grain, [&](int64_t begin, int64_t end) { kernel(problem, begin, end); });
  return {};
}

}  // namespace mmcore::ops
