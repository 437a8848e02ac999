// Times a layer of a 7B decoder while it decodes, in a graph of several: products beside what
// stands between them, whose time weights that are read early can hide. Per product: how
// few_tokens is divided, or which other kernel computes it.
//
// Usage: mmcore_bench_decoder_layer
#include <algorithm>
#include <array>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "graph_timing.h"
#include "host/device.h"
#include "matrix/few_tokens.h"
#include "matrix/problem.h"
#include "mmcore/ops.h"

namespace {

using namespace mmcore;         // NOLINT: a program of its own
using namespace mmcore::bench;  // NOLINT
using namespace mmcore::cuda;   // NOLINT

constexpr int64_t kHidden = 4096, kInner = 11008, kHeads = 32, kDim = 128, kKeys = 704;
constexpr int kLayers = 8;

TensorView zeros(DType dtype, std::initializer_list<int64_t> dims) {
  TensorView t(nullptr, dtype, dims, Device{DeviceType::kCuda, 0});
  const auto bytes = static_cast<size_t>(t.numel()) * size_of(dtype);
  must(cudaMalloc(&t.data, bytes));
  must(cudaMemset(t.data, 0, bytes));
  return t;
}
template <class T>
TensorView on_device(const std::vector<T>& values, DType dtype,
                     std::initializer_list<int64_t> dims) {
  const TensorView t = zeros(dtype, dims);
  must(cudaMemcpy(t.data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return t;
}

/// How one product is computed: 0 kilobytes for what run_matrix chooses, a negative split for a
/// kernel other than few_tokens, without weights read early (-1) or with (-2).
struct Way {
  int split = 0, kilobytes = 0, part = 1;  // one of `part` stages is filled early
};
/// Of qkv, o, gate_up and down.
using Ways = std::array<Way, 4>;

struct Decoder {
  const DeviceFacts& facts;
  int64_t rows;
  TensorView qkv_w = zeros(DType::kBFloat16, {kLayers, 3 * kHidden, kHidden});
  TensorView o_w = zeros(DType::kBFloat16, {kLayers, kHidden, kHidden});
  TensorView gate_up_w = zeros(DType::kBFloat16, {kLayers, 2 * kInner, kHidden});
  TensorView down_w = zeros(DType::kBFloat16, {kLayers, kHidden, kInner});
  TensorView norm_w = zeros(DType::kBFloat16, {kHidden});
  TensorView hidden, residual, qkv, attended, gate_up, inner, cache, positions, cos_sin, slots;
  ops::PagedAttentionArgs attention;

  Decoder(const DeviceFacts& facts_, int64_t rows_) : facts(facts_), rows(rows_) {
    hidden = zeros(DType::kBFloat16, {rows, kHidden});
    residual = zeros(DType::kBFloat16, {rows, kHidden});
    qkv = zeros(DType::kBFloat16, {rows, 3 * kHidden});
    attended = zeros(DType::kBFloat16, {rows, kHidden});
    gate_up = zeros(DType::kBFloat16, {rows, 2 * kInner});
    inner = zeros(DType::kBFloat16, {rows, kInner});
    cos_sin = zeros(DType::kFloat32, {4096, kDim});
    const int64_t pages = kKeys / 16;
    cache = zeros(DType::kBFloat16, {2 * kLayers, rows * pages, 16, kHeads, kDim});
    std::vector<int64_t> last, slot;
    std::vector<int32_t> starts, lens, table(static_cast<size_t>(rows * pages));
    std::iota(table.begin(), table.end(), 0);
    for (int32_t n = 0; n < rows; ++n) {
      last.push_back(kKeys - 1);
      slot.push_back((n + 1) * kKeys - 1);
      lens.push_back(kKeys);
    }
    for (int32_t n = 0; n <= rows; ++n) starts.push_back(n);
    positions = on_device(last, DType::kInt64, {rows});
    slots = on_device(slot, DType::kInt64, {rows});
    const ops::AttentionPlanShape shape{.sequences = rows,
                                        .tokens = rows,
                                        .max_query_len = 1,
                                        .heads = kHeads,
                                        .kv_heads = kHeads,
                                        .head_dim = kDim,
                                        .multiprocessors = facts.multiprocessors};
    std::vector<int32_t> plan(static_cast<size_t>(ops::attention_plan_words(shape)));
    const auto words = static_cast<int64_t>(plan.size());
    must(ops::plan_paged_attention(TensorView(starts.data(), DType::kInt32, {rows + 1}),
                                   TensorView(lens.data(), DType::kInt32, {rows}), shape,
                                   TensorView(plan.data(), DType::kInt32, {words}), true));
    attention = {.q = {},
                 .k_cache = {},
                 .v_cache = {},
                 .block_tables = on_device(table, DType::kInt32, {rows, pages}),
                 .query_start = on_device(starts, DType::kInt32, {rows + 1}),
                 .seq_lens = on_device(lens, DType::kInt32, {rows}),
                 .out = heads_of(attended, 0),
                 .scale = 0.1f,
                 .plan = on_device(plan, DType::kInt32, {words}),
                 .workspace = zeros(DType::kUInt8, {ops::paged_attention_workspace_bytes(shape)}),
                 .max_query_len = 1};
  }

  TensorView heads_of(const TensorView& t, int64_t first) const {
    TensorView view(t.ptr<uint16_t>() + first * kHidden, t.dtype, {rows, kHeads, kDim}, t.device);
    view.strides[0] = t.size(1);
    return view;
  }
  TensorView caches_of(int which) const {
    const int64_t blocks = cache.size(1), each = blocks * 16 * kHeads * kDim;
    return TensorView(cache.ptr<uint16_t>() + which * each, cache.dtype, {blocks, 16, kHeads, kDim},
                      cache.device);
  }

  Status multiply(const TensorView& x, const TensorView& weights, int layer, const TensorView& out,
                  const Way& way, cudaStream_t stream) const {
    const int64_t n = weights.size(1), k = weights.size(2);
    const MatrixProblem p{.dtype = DType::kBFloat16,
                          .x = x.data,
                          .x_stride = k,
                          .w = weights.ptr<uint16_t>() + layer * n * k,
                          .w_stride = k,
                          .out = out.data,
                          .out_stride = n,
                          .out_rows = rows,
                          .tokens = rows,
                          .n = n,
                          .k = k,
                          .steady_weights = way.split != -1};
    if (way.split < 0) {
      return rows == 1    ? run_gemv("linear", p, facts, stream)
             : rows <= 16 ? run_skinny("linear", p, facts, stream)
                          : run_wgmma("linear", p, facts, stream);
    }
    if (way.kilobytes == 0) return run_matrix("linear", p, facts, stream);
    FewTokensPlan plan = plan_few_tokens(p, facts, way.split, way.kilobytes * 1024);
    plan.early = std::max(1, plan.stages / way.part);
    return run_few_tokens("linear", p, plan, stream);
  }

  Status run(int layer, const Ways& ways, Stream stream) {
    const cudaStream_t queue = stream_of(stream);
    const auto norm = [&] {
      return ops::rms_norm({.x = hidden, .weight = norm_w, .residual = residual, .out = hidden},
                           stream);
    };
    MMCORE_RETURN_IF_ERROR(norm());
    MMCORE_RETURN_IF_ERROR(multiply(hidden, qkv_w, layer, qkv, ways[0], queue));
    attention.q = heads_of(qkv, 0);
    attention.k_cache = caches_of(2 * layer);
    attention.v_cache = caches_of(2 * layer + 1);
    MMCORE_RETURN_IF_ERROR(ops::rope_kv_write({.q = attention.q,
                                               .k = heads_of(qkv, 1),
                                               .v = heads_of(qkv, 2),
                                               .positions = positions,
                                               .cos_sin = cos_sin,
                                               .k_cache = attention.k_cache,
                                               .v_cache = attention.v_cache,
                                               .slot_mapping = slots,
                                               .keep_k = false},
                                              stream));
    MMCORE_RETURN_IF_ERROR(ops::paged_attention(attention, stream));
    MMCORE_RETURN_IF_ERROR(multiply(attended, o_w, layer, hidden, ways[1], queue));
    MMCORE_RETURN_IF_ERROR(norm());
    MMCORE_RETURN_IF_ERROR(multiply(hidden, gate_up_w, layer, gate_up, ways[2], queue));
    MMCORE_RETURN_IF_ERROR(ops::activation_mul(gate_up, ops::Activation::kSilu, inner, stream));
    return multiply(inner, down_w, layer, hidden, ways[3], queue);
  }
};

struct Variant {
  const char* name;
  Ways ways;
};
constexpr Way kOther{-1, 0, 1}, kOtherEarly{-2, 0, 1};
constexpr std::array kVariants = {
    Variant{"gemv, skinny, wgmma", {kOther, kOther, kOther, kOther}},
    Variant{"the same, all early", {kOtherEarly, kOtherEarly, kOtherEarly, kOtherEarly}},
    Variant{"the same, o, down early", {kOther, kOtherEarly, kOther, kOtherEarly}},
    Variant{"200, all early", {{{1, 200, 1}, {2, 200, 1}, {1, 200, 1}, {2, 200, 1}}}},
    Variant{"160, all early", {{{1, 160, 1}, {2, 160, 1}, {1, 160, 1}, {2, 160, 1}}}},
    Variant{"160, half early", {{{1, 160, 2}, {2, 160, 2}, {1, 160, 2}, {2, 160, 2}}}},
    Variant{"140, all early", {{{1, 140, 1}, {2, 140, 1}, {1, 140, 1}, {2, 140, 1}}}},
    Variant{"as chosen", {}},
};

}  // namespace

int main() {
  const auto facts = device_facts({DeviceType::kCuda, 0});
  if (!facts.ok() || facts.value()->capability != 90) {
    std::puts("no Hopper GPU here: nothing to time");
    return 0;
  }
  for (const int64_t rows : {1, 8, 32, 64}) {
    Decoder decoder(*facts.value(), rows);
    for (const Variant& variant : kVariants) {
      const double us = graph_us(
          [&](int i, Stream stream) { return decoder.run(i % kLayers, variant.ways, stream); },
          2 * kLayers);
      std::printf("%2lld rows, %-24s %8.2f us a layer\n", static_cast<long long>(rows),
                  variant.name, us);
      std::fflush(stdout);
    }
    for (const TensorView& t :
         {decoder.qkv_w, decoder.o_w, decoder.gate_up_w, decoder.down_w, decoder.cache}) {
      must(cudaFree(t.data));
    }
  }
  return 0;
}
