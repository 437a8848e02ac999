// mmcore._C.ops: every op of mmcore/ops.h as a function of keyword arguments.
//
// Functions translate and nothing else: the ops check their tensors and say what is wrong. The GIL
// is released while an op runs.
#include "mmcore/ops.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "errors.h"
#include "module.h"
#include "run_op.h"
#include "sampling.h"
#include "tensor_caster.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace mmcore::python {
namespace {

ops::Activation activation_of(int32_t act) { return static_cast<ops::Activation>(act); }

void bind_settings(py::module_& m) {
  py::dict activations;
  activations["none"] = static_cast<int32_t>(ops::Activation::kNone);
  activations["gelu"] = static_cast<int32_t>(ops::Activation::kGeluErf);
  activations["gelu_tanh"] = static_cast<int32_t>(ops::Activation::kGeluTanh);
  activations["quick_gelu"] = static_cast<int32_t>(ops::Activation::kGeluQuick);
  activations["silu"] = static_cast<int32_t>(ops::Activation::kSilu);
  activations["relu"] = static_cast<int32_t>(ops::Activation::kRelu);
  m.attr("ACTIVATIONS") = activations;
  py::dict isas;
  for (const ops::CpuIsa isa : {ops::CpuIsa::kReference, ops::CpuIsa::kAvx2, ops::CpuIsa::kAvx512,
                                ops::CpuIsa::kAvx512Bf16, ops::CpuIsa::kAmxBf16})
    isas[ops::to_string(isa)] = static_cast<int32_t>(isa);
  m.attr("CPU_ISAS") = isas;
  m.def("cpu_isa", [] { return static_cast<int32_t>(ops::cpu_isa()); });
  m.def(
      "set_cpu_isa",
      [](int32_t isa) { throw_if_error(ops::set_cpu_isa(static_cast<ops::CpuIsa>(isa))); },
      "isa"_a);
  m.def("num_threads", &ops::num_threads);
  m.def("set_num_threads", &ops::set_num_threads, "n"_a);
}

void bind_row_ops(py::module_& m) {
  m.def(
      "rms_norm",
      [](TensorView x, TensorView weight, Writable out, Writable residual, float eps) {
        const ops::RmsNormArgs args{
            .x = x, .weight = weight, .residual = residual.view, .out = out.view, .eps = eps};
        run_op(x, [&](Stream stream) { return ops::rms_norm(args, stream); });
      },
      "x"_a, "weight"_a, "out"_a, "residual"_a = py::none(), "eps"_a = ops::RmsNormArgs{}.eps);
  m.def(
      "layer_norm",
      [](TensorView x, TensorView weight, TensorView bias, Writable out, float eps) {
        const ops::LayerNormArgs args{
            .x = x, .weight = weight, .bias = bias, .out = out.view, .eps = eps};
        run_op(x, [&](Stream stream) { return ops::layer_norm(args, stream); });
      },
      "x"_a, "weight"_a, "bias"_a, "out"_a, "eps"_a = ops::LayerNormArgs{}.eps);
  m.def(
      "activation",
      [](TensorView x, int32_t act, Writable out) {
        run_op(x, [&](Stream stream) {
          return ops::activation(x, activation_of(act), out.view, stream);
        });
      },
      "x"_a, "act"_a, "out"_a);
  m.def(
      "activation_mul",
      [](TensorView x, int32_t act, Writable out) {
        run_op(x, [&](Stream stream) {
          return ops::activation_mul(x, activation_of(act), out.view, stream);
        });
      },
      "x"_a, "act"_a, "out"_a);
}

void bind_matrix_ops(py::module_& m) {
  m.def(
      "linear",
      [](TensorView x, TensorView weight, TensorView bias, Writable out, TensorView out_rows,
         int32_t act, bool steady_weight) {
        const ops::LinearArgs args{.x = x,
                                   .weight = weight,
                                   .bias = bias,
                                   .out = out.view,
                                   .out_rows = out_rows,
                                   .act = activation_of(act),
                                   .steady_weight = steady_weight};
        run_op(x, [&](Stream stream) { return ops::linear(args, stream); });
      },
      "x"_a, "weight"_a, "bias"_a, "out"_a, "out_rows"_a = py::none(),
      "act"_a = static_cast<int32_t>(ops::LinearArgs{}.act), "steady_weight"_a = false);
  m.def(
      "vision_projector_workspace_bytes",
      [](int64_t tokens, int64_t intermediate, TensorView like) {
        return ops::vision_projector_workspace_bytes(tokens, intermediate, like.dtype, like.device);
      },
      "tokens"_a, "intermediate"_a, "like"_a);
  m.def(
      "vision_projector",
      [](TensorView x, TensorView w1, TensorView b1, TensorView w2, TensorView b2, TensorView rows,
         Writable out, Writable workspace, int32_t act) {
        const ops::VisionProjectorArgs args{.x = x,
                                            .w1 = w1,
                                            .b1 = b1,
                                            .w2 = w2,
                                            .b2 = b2,
                                            .rows = rows,
                                            .out = out.view,
                                            .act = activation_of(act),
                                            .workspace = workspace.view};
        run_op(x, [&](Stream stream) { return ops::vision_projector(args, stream); });
      },
      "x"_a, "w1"_a, "b1"_a, "w2"_a, "b2"_a, "rows"_a, "out"_a, "workspace"_a,
      "act"_a = static_cast<int32_t>(ops::VisionProjectorArgs{}.act));
  m.def(
      "embedding_merge",
      [](TensorView token_ids, TensorView table, TensorView source, TensorView media,
         Writable out) {
        const ops::EmbeddingMergeArgs args{.token_ids = token_ids,
                                           .table = table,
                                           .source = source,
                                           .media = media,
                                           .out = out.view};
        run_op(table, [&](Stream stream) { return ops::embedding_merge(args, stream); });
      },
      "token_ids"_a, "table"_a, "source"_a, "media"_a, "out"_a);
}

ops::AttentionPlanShape plan_shape(int64_t sequences, int64_t tokens, int64_t max_query_len,
                                   int32_t heads, int32_t kv_heads, int32_t head_dim,
                                   int32_t window, bool causal, int32_t multiprocessors) {
  return {.sequences = sequences,
          .tokens = tokens,
          .max_query_len = max_query_len,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .window = window,
          .causal = causal,
          .multiprocessors = multiprocessors};
}

void bind_attention_plan(py::module_& m) {
  m.def(
      "attention_plan_words",
      [](int64_t sequences, int64_t tokens, int64_t max_query_len, int32_t heads, int32_t kv_heads,
         int32_t head_dim, int32_t window, bool causal, int32_t multiprocessors) {
        return ops::attention_plan_words(plan_shape(sequences, tokens, max_query_len, heads,
                                                    kv_heads, head_dim, window, causal,
                                                    multiprocessors));
      },
      "sequences"_a, "tokens"_a, "max_query_len"_a, "heads"_a, "kv_heads"_a, "head_dim"_a,
      "window"_a, "causal"_a, "multiprocessors"_a);
  m.def(
      "paged_attention_workspace_bytes",
      [](int64_t sequences, int64_t tokens, int64_t max_query_len, int32_t heads, int32_t kv_heads,
         int32_t head_dim, int32_t window, bool causal, int32_t multiprocessors) {
        return ops::paged_attention_workspace_bytes(plan_shape(sequences, tokens, max_query_len,
                                                               heads, kv_heads, head_dim, window,
                                                               causal, multiprocessors));
      },
      "sequences"_a, "tokens"_a, "max_query_len"_a, "heads"_a, "kv_heads"_a, "head_dim"_a,
      "window"_a, "causal"_a, "multiprocessors"_a);
  m.def(
      "plan_paged_attention",
      [](TensorView query_start, TensorView seq_lens, Writable plan, int64_t sequences,
         int64_t tokens, int64_t max_query_len, int32_t heads, int32_t kv_heads, int32_t head_dim,
         int32_t window, bool causal, int32_t multiprocessors, bool settled) {
        const ops::AttentionPlanShape shape =
            plan_shape(sequences, tokens, max_query_len, heads, kv_heads, head_dim, window, causal,
                       multiprocessors);
        throw_if_error(ops::plan_paged_attention(query_start, seq_lens, shape, plan.view, settled));
      },
      "query_start"_a, "seq_lens"_a, "plan"_a, "sequences"_a, "tokens"_a, "max_query_len"_a,
      "heads"_a, "kv_heads"_a, "head_dim"_a, "window"_a, "causal"_a, "multiprocessors"_a,
      "settled"_a = false);
}

void bind_attention_ops(py::module_& m) {
  m.def(
      "rope_kv_write",
      [](Writable q, Writable k, TensorView v, TensorView positions, TensorView cos_sin,
         Writable k_cache, Writable v_cache, TensorView slot_mapping, bool interleaved,
         std::array<int32_t, 3> sections, bool sections_interleaved, float k_scale, float v_scale,
         bool keep_k) {
        const ops::RopeKvWriteArgs args{.q = q.view,
                                        .k = k.view,
                                        .v = v,
                                        .positions = positions,
                                        .cos_sin = cos_sin,
                                        .k_cache = k_cache.view,
                                        .v_cache = v_cache.view,
                                        .slot_mapping = slot_mapping,
                                        .interleaved = interleaved,
                                        .sections = sections,
                                        .sections_interleaved = sections_interleaved,
                                        .k_scale = k_scale,
                                        .v_scale = v_scale,
                                        .keep_k = keep_k};
        run_op(k.view, [&](Stream stream) { return ops::rope_kv_write(args, stream); });
      },
      "q"_a, "k"_a, "v"_a, "positions"_a = py::none(), "cos_sin"_a = py::none(),
      "k_cache"_a = py::none(), "v_cache"_a = py::none(), "slot_mapping"_a = py::none(),
      "interleaved"_a = ops::RopeKvWriteArgs{}.interleaved,
      "sections"_a = ops::RopeKvWriteArgs{}.sections,
      "sections_interleaved"_a = ops::RopeKvWriteArgs{}.sections_interleaved,
      "k_scale"_a = ops::RopeKvWriteArgs{}.k_scale, "v_scale"_a = ops::RopeKvWriteArgs{}.v_scale,
      "keep_k"_a = ops::RopeKvWriteArgs{}.keep_k);
  m.def(
      "copy_blocks",
      [](Writable cache, TensorView pairs) {
        run_op(cache.view,
               [&](Stream stream) { return ops::copy_blocks(cache.view, pairs, stream); });
      },
      "cache"_a, "pairs"_a);
  m.def(
      "paged_attention",
      [](TensorView q, TensorView k_cache, TensorView v_cache, TensorView block_tables,
         TensorView query_start, TensorView seq_lens, Writable out, float scale, float soft_cap,
         int32_t window, bool causal, Writable plan, Writable workspace, int64_t max_query_len,
         float k_scale, float v_scale) {
        const ops::PagedAttentionArgs args{.q = q,
                                           .k_cache = k_cache,
                                           .v_cache = v_cache,
                                           .block_tables = block_tables,
                                           .query_start = query_start,
                                           .seq_lens = seq_lens,
                                           .out = out.view,
                                           .scale = scale,
                                           .soft_cap = soft_cap,
                                           .window = window,
                                           .causal = causal,
                                           .plan = plan.view,
                                           .workspace = workspace.view,
                                           .max_query_len = max_query_len,
                                           .k_scale = k_scale,
                                           .v_scale = v_scale};
        run_op(q, [&](Stream stream) { return ops::paged_attention(args, stream); });
      },
      "q"_a, "k_cache"_a, "v_cache"_a, "block_tables"_a, "query_start"_a, "seq_lens"_a, "out"_a,
      "scale"_a, "soft_cap"_a = ops::PagedAttentionArgs{}.soft_cap,
      "window"_a = ops::PagedAttentionArgs{}.window, "causal"_a = ops::PagedAttentionArgs{}.causal,
      "plan"_a = py::none(), "workspace"_a = py::none(),
      "max_query_len"_a = ops::PagedAttentionArgs{}.max_query_len,
      "k_scale"_a = ops::PagedAttentionArgs{}.k_scale,
      "v_scale"_a = ops::PagedAttentionArgs{}.v_scale);
  m.def(
      "varlen_attention",
      [](TensorView q, TensorView k, TensorView v, TensorView cu_q, TensorView cu_k, Writable out,
         float scale, float soft_cap, int32_t window, bool causal) {
        const ops::VarlenAttentionArgs args{.q = q,
                                            .k = k,
                                            .v = v,
                                            .cu_q = cu_q,
                                            .cu_k = cu_k,
                                            .out = out.view,
                                            .scale = scale,
                                            .soft_cap = soft_cap,
                                            .window = window,
                                            .causal = causal};
        run_op(q, [&](Stream stream) { return ops::varlen_attention(args, stream); });
      },
      "q"_a, "k"_a, "v"_a, "cu_q"_a, "cu_k"_a, "out"_a, "scale"_a,
      "soft_cap"_a = ops::VarlenAttentionArgs{}.soft_cap,
      "window"_a = ops::VarlenAttentionArgs{}.window,
      "causal"_a = ops::VarlenAttentionArgs{}.causal);
}

}  // namespace

void bind_ops(py::module_& m) {
  bind_settings(m);
  bind_row_ops(m);
  bind_matrix_ops(m);
  bind_attention_plan(m);
  bind_attention_ops(m);
  bind_sampling(m);
}

}  // namespace mmcore::python
