#include "native/decoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "mmcore/ops.h"
#include "native/rope_table.h"

namespace mmcore::native {

namespace {

// Plans are read only; views have no const.
template <class T>
TensorView view_of(const std::vector<T>& values, DType dtype,
                   std::initializer_list<int64_t> shape) {
  return TensorView(const_cast<T*>(values.data()), dtype, shape);
}

}  // namespace

Decoder::Decoder(const TextConfig& config, const std::string& prefix, DType dtype,
                 WeightLoader& weights)
    : config_(config), dtype_(dtype) {
  const int64_t H = config.hidden_size, V = config.vocab_size;
  table_ = weights.load(prefix + "model.embed_tokens.weight", {V, H});
  for (int32_t i = 0; i < config.num_layers(); ++i)
    layers_.push_back(load_layer(prefix + "model.layers." + std::to_string(i) + ".", weights));
  norm_ = weights.load(prefix + "model.norm.weight", {H});
  // A tied head may be stored all the same.
  if (config.tied_head)
    weights.ignore_prefix(prefix + "lm_head.");
  else
    head_ = weights.load(prefix + "lm_head.weight", {V, H});
}

Decoder::Layer Decoder::load_layer(const std::string& prefix, WeightLoader& weights) const {
  const int64_t H = config_.hidden_size, I = config_.intermediate_size;
  const int64_t q = int64_t{config_.num_heads} * config_.head_dim;
  const int64_t kv = int64_t{config_.num_kv_heads} * config_.head_dim;
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const auto names = [](const std::string& part, std::span<const char* const> projections,
                        const char* kind) {
    std::vector<std::string> all;
    for (const char* name : projections) all.push_back(part + name + kind);
    return all;
  };
  const std::array<int64_t, 3> qkv_rows = {q, kv, kv};
  const std::array<int64_t, 2> gate_up_rows = {I, I};
  constexpr std::array<const char*, 3> kQkv = {"q_proj", "k_proj", "v_proj"};
  constexpr std::array<const char*, 2> kGateUp = {"gate_proj", "up_proj"};
  Layer layer;
  layer.input_norm = weights.load(prefix + "input_layernorm.weight", {H});
  layer.qkv = weights.load_stacked(names(attention, kQkv, ".weight"), qkv_rows, H);
  if (config_.qkv_bias)
    layer.qkv_bias = weights.load_stacked(names(attention, kQkv, ".bias"), qkv_rows, 0);
  layer.output = weights.load(attention + "o_proj.weight", {H, q});
  if (config_.output_bias) layer.output_bias = weights.load(attention + "o_proj.bias", {H});
  layer.post_norm = weights.load(prefix + "post_attention_layernorm.weight", {H});
  layer.gate_up = weights.load_stacked(names(mlp, kGateUp, ".weight"), gate_up_rows, H);
  layer.down = weights.load(mlp + "down_proj.weight", {H, I});
  if (config_.mlp_bias) {
    layer.gate_up_bias = weights.load_stacked(names(mlp, kGateUp, ".bias"), gate_up_rows, 0);
    layer.down_bias = weights.load(mlp + "down_proj.bias", {H});
  }
  return layer;
}

int64_t Decoder::kv_bytes_per_block(int32_t block_size) const {
  return int64_t{2} * config_.num_layers() * block_size * config_.num_kv_heads * config_.head_dim *
         static_cast<int64_t>(size_of(dtype_));
}

void Decoder::make_caches(int64_t num_blocks, int32_t block_size, int64_t positions) {
  for (Layer& layer : layers_)
    for (HostTensor* cache : {&layer.k_cache, &layer.v_cache})
      *cache = HostTensor(dtype_, {num_blocks, block_size, config_.num_kv_heads, config_.head_dim});
  rope_ = make_rope_table(config_.rope, config_.head_dim, positions);
}

Status Decoder::copy_blocks(const std::vector<BlockCopy>& copies) {
  if (copies.empty()) return {};
  std::vector<int64_t> pairs;
  for (const BlockCopy& copy : copies) pairs.insert(pairs.end(), {copy.src, copy.dst});
  const TensorView view = view_of(pairs, DType::kInt64, {static_cast<int64_t>(copies.size()), 2});
  for (const Layer& layer : layers_) {
    MMCORE_RETURN_IF_ERROR(ops::copy_blocks(layer.k_cache.view(), view));
    MMCORE_RETURN_IF_ERROR(ops::copy_blocks(layer.v_cache.view(), view));
  }
  return {};
}

void Decoder::reserve(int64_t tokens) {
  tokens_ = tokens;
  if (tokens <= capacity_) return;
  capacity_ = std::max(tokens, 2 * capacity_);
  const int64_t H = config_.hidden_size, I = config_.intermediate_size;
  const int64_t q = int64_t{config_.num_heads} * config_.head_dim;
  const int64_t kv = int64_t{config_.num_kv_heads} * config_.head_dim;
  hidden_ = HostTensor(dtype_, {capacity_, H});
  residual_ = HostTensor(dtype_, {capacity_, H});
  qkv_ = HostTensor(dtype_, {capacity_, q + 2 * kv});
  attended_ = HostTensor(dtype_, {capacity_, q});
  gate_up_ = HostTensor(dtype_, {capacity_, 2 * I});
  inner_ = HostTensor(dtype_, {capacity_, I});
}

Status Decoder::embed(const StepPlan& plan, const TensorView& source, const TensorView& media) {
  const auto T = static_cast<int64_t>(plan.token_ids.size());
  reserve(T);
  return ops::embedding_merge({.token_ids = view_of(plan.token_ids, DType::kInt32, {T}),
                               .table = table_.view(),
                               .source = source,
                               .media = media,
                               .out = hidden_.rows(0, T)});
}

Status Decoder::attend(const Layer& layer, int32_t window, const StepPlan& plan) {
  const int64_t T = tokens_, D = config_.head_dim;
  const auto N = static_cast<int64_t>(plan.sequences.size());
  const int64_t heads = config_.num_heads, kv_heads = config_.num_kv_heads;
  const TensorView qkv = qkv_.rows(0, T);
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = hidden_.rows(0, T),
                                      .weight = layer.qkv.view(),
                                      .bias = layer.qkv_bias.view(),
                                      .out = qkv,
                                      .out_rows = {}}));
  const TensorView q = heads_of(qkv, 0, heads, D);
  const TensorView k = heads_of(qkv, heads * D, kv_heads, D);
  const TensorView v = heads_of(qkv, (heads + kv_heads) * D, kv_heads, D);
  MMCORE_RETURN_IF_ERROR(
      ops::rope_kv_write({.q = q,
                          .k = k,
                          .v = v,
                          .positions = view_of(plan.positions, DType::kInt64, {T}),
                          .cos_sin = rope_.view(),
                          .k_cache = layer.k_cache.view(),
                          .v_cache = layer.v_cache.view(),
                          .slot_mapping = view_of(plan.slot_mapping, DType::kInt64, {T})}));
  const TensorView attended = attended_.rows(0, T);
  MMCORE_RETURN_IF_ERROR(
      ops::paged_attention({.q = q,
                            .k_cache = layer.k_cache.view(),
                            .v_cache = layer.v_cache.view(),
                            .block_tables = view_of(plan.block_tables, DType::kInt32,
                                                    {N, int64_t{plan.block_table_width}}),
                            .query_start = view_of(plan.query_start, DType::kInt32, {N + 1}),
                            .seq_lens = view_of(plan.seq_lens, DType::kInt32, {N}),
                            .out = heads_of(attended, 0, heads, D),
                            .scale = 1.0f / std::sqrt(static_cast<float>(D)),
                            .window = window}));
  return ops::linear({.x = attended,
                      .weight = layer.output.view(),
                      .bias = layer.output_bias.view(),
                      .out = hidden_.rows(0, T),
                      .out_rows = {}});
}

Status Decoder::transform(const Layer& layer) {
  const int64_t T = tokens_;
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = hidden_.rows(0, T),
                                      .weight = layer.gate_up.view(),
                                      .bias = layer.gate_up_bias.view(),
                                      .out = gate_up_.rows(0, T),
                                      .out_rows = {}}));
  MMCORE_RETURN_IF_ERROR(ops::activation_mul(gate_up_.rows(0, T), config_.act, inner_.rows(0, T)));
  return ops::linear({.x = inner_.rows(0, T),
                      .weight = layer.down.view(),
                      .bias = layer.down_bias.view(),
                      .out = hidden_.rows(0, T),
                      .out_rows = {}});
}

Status Decoder::forward(const StepPlan& plan) {
  const int64_t T = tokens_;
  const TensorView hidden = hidden_.rows(0, T), residual = residual_.rows(0, T);
  const auto norm = [&](const HostTensor& weight) {
    return ops::rms_norm({.x = hidden,
                          .weight = weight.view(),
                          .residual = residual,
                          .out = hidden,
                          .eps = config_.rms_eps});
  };
  std::memset(residual.data, 0, static_cast<size_t>(residual.numel()) * size_of(dtype_));
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    MMCORE_RETURN_IF_ERROR(norm(layer.input_norm));
    MMCORE_RETURN_IF_ERROR(attend(layer, config_.windows[i], plan));
    MMCORE_RETURN_IF_ERROR(norm(layer.post_norm));
    MMCORE_RETURN_IF_ERROR(transform(layer));
  }
  return norm(norm_);
}

Result<TensorView> Decoder::logits(std::span<const int32_t> rows) {
  const auto S = static_cast<int64_t>(rows.size());
  if (!logits_.present() || logits_.view().size(0) < S) {
    picked_ = HostTensor(dtype_, {S, config_.hidden_size});
    logits_ = HostTensor(dtype_, {S, config_.vocab_size});
  }
  const auto row_bytes = static_cast<size_t>(config_.hidden_size) * size_of(dtype_);
  for (int64_t i = 0; i < S; ++i) {
    std::memcpy(picked_.rows(i, 1).data, hidden_.rows(rows[static_cast<size_t>(i)], 1).data,
                row_bytes);
  }
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = picked_.rows(0, S),
                                      .weight = config_.tied_head ? table_.view() : head_.view(),
                                      .bias = {},
                                      .out = logits_.rows(0, S),
                                      .out_rows = {}}));
  return logits_.rows(0, S);
}

}  // namespace mmcore::native
