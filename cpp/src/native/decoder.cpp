#include "native/decoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "mmcore/ops.h"
#include "native/rope_table.h"

namespace mmcore::native {

Decoder::Decoder(const TextConfig& config, const std::string& prefix, DType dtype,
                 WeightLoader& weights)
    : config_(config), dtype_(dtype), place_(weights.place()) {
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
  for (const int32_t window : config.windows) {
    const auto found = std::ranges::find(windows_, window);
    window_of_.push_back(static_cast<size_t>(found - windows_.begin()));
    if (found == windows_.end()) windows_.push_back(window);
  }
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

Status Decoder::make_caches(int64_t num_blocks, int32_t block_size, int64_t positions) {
  for (Layer& layer : layers_)
    for (OwnedTensor* cache : {&layer.k_cache, &layer.v_cache})
      *cache = OwnedTensor(dtype_, {num_blocks, block_size, config_.num_kv_heads, config_.head_dim},
                           place_.device);
  rope_ = make_rope_table(config_.rope, config_.head_dim, positions);
  if (!place_.on_gpu()) return {};
  OwnedTensor on_gpu(DType::kFloat32, {positions, config_.head_dim}, place_.device);
  WeightUpload upload(place_);
  MMCORE_RETURN_IF_ERROR(upload.copy(rope_.view(), on_gpu.view()));
  rope_ = std::move(on_gpu);
  return upload.finish();
}

Status Decoder::copy_blocks(const TensorView& pairs) {
  if (!pairs.present) return {};
  for (const Layer& layer : layers_) {
    MMCORE_RETURN_IF_ERROR(ops::copy_blocks(layer.k_cache.view(), pairs, place_.stream));
    MMCORE_RETURN_IF_ERROR(ops::copy_blocks(layer.v_cache.view(), pairs, place_.stream));
  }
  return {};
}

void Decoder::reserve(int64_t tokens, int64_t logits_rows, int64_t attention_bytes) {
  const int64_t H = config_.hidden_size, I = config_.intermediate_size;
  const int64_t q = int64_t{config_.num_heads} * config_.head_dim;
  const int64_t kv = int64_t{config_.num_kv_heads} * config_.head_dim;
  const auto make = [&](OwnedTensor& tensor, int64_t rows, int64_t columns) {
    tensor = OwnedTensor(dtype_, {rows, columns}, place_.device);
  };
  if (!hidden_.present() || tokens > hidden_.view().size(0)) {
    make(hidden_, tokens, H);
    make(residual_, tokens, H);
    make(qkv_, tokens, q + 2 * kv);
    make(attended_, tokens, q);
    make(gate_up_, tokens, 2 * I);
    make(inner_, tokens, I);
  }
  if (!logits_.present() || logits_rows > logits_.view().size(0)) {
    make(picked_, logits_rows, H);
    make(logits_, logits_rows, config_.vocab_size);
  }
  if (attention_bytes > 0)
    attention_workspace_ = OwnedTensor(DType::kUInt8, {attention_bytes}, place_.device);
}

Status Decoder::embed(const StepTensors& step, const TensorView& media) {
  tokens_ = step.token_ids.size(0);
  reserve(tokens_, 1, 0);
  return ops::embedding_merge({.token_ids = step.token_ids,
                               .table = table_.view(),
                               .source = step.sources,
                               .media = step.sources.present ? media : TensorView(),
                               .out = hidden_.rows(0, tokens_)},
                              place_.stream);
}

Status Decoder::attend(const Layer& layer, size_t window, const StepTensors& step) {
  const int64_t T = tokens_, D = config_.head_dim;
  const int64_t heads = config_.num_heads, kv_heads = config_.num_kv_heads;
  const TensorView qkv = qkv_.rows(0, T);
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = hidden_.rows(0, T),
                                      .weight = layer.qkv.view(),
                                      .bias = layer.qkv_bias.view(),
                                      .out = qkv,
                                      .out_rows = {},
                                      .steady_weight = true},
                                     place_.stream));
  const TensorView q = heads_of(qkv, 0, heads, D);
  const TensorView k = heads_of(qkv, heads * D, kv_heads, D);
  const TensorView v = heads_of(qkv, (heads + kv_heads) * D, kv_heads, D);
  MMCORE_RETURN_IF_ERROR(ops::rope_kv_write({.q = q,
                                             .k = k,
                                             .v = v,
                                             .positions = step.positions,
                                             .cos_sin = rope_.view(),
                                             .k_cache = layer.k_cache.view(),
                                             .v_cache = layer.v_cache.view(),
                                             .slot_mapping = step.slots,
                                             .keep_k = false},
                                            place_.stream));
  const TensorView attended = attended_.rows(0, T);
  MMCORE_RETURN_IF_ERROR(
      ops::paged_attention({.q = q,
                            .k_cache = layer.k_cache.view(),
                            .v_cache = layer.v_cache.view(),
                            .block_tables = step.block_tables,
                            .query_start = step.query_start,
                            .seq_lens = step.seq_lens,
                            .out = heads_of(attended, 0, heads, D),
                            .scale = 1.0f / std::sqrt(static_cast<float>(D)),
                            .window = windows_[window],
                            .plan = step.plans.empty() ? TensorView() : step.plans[window],
                            .workspace = attention_workspace_.view(),
                            .max_query_len = step.max_query_len},
                           place_.stream));
  return ops::linear({.x = attended,
                      .weight = layer.output.view(),
                      .bias = layer.output_bias.view(),
                      .out = hidden_.rows(0, T),
                      .out_rows = {},
                      .steady_weight = true},
                     place_.stream);
}

Status Decoder::transform(const Layer& layer) {
  const int64_t T = tokens_;
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = hidden_.rows(0, T),
                                      .weight = layer.gate_up.view(),
                                      .bias = layer.gate_up_bias.view(),
                                      .out = gate_up_.rows(0, T),
                                      .out_rows = {},
                                      .steady_weight = true},
                                     place_.stream));
  MMCORE_RETURN_IF_ERROR(
      ops::activation_mul(gate_up_.rows(0, T), config_.act, inner_.rows(0, T), place_.stream));
  return ops::linear({.x = inner_.rows(0, T),
                      .weight = layer.down.view(),
                      .bias = layer.down_bias.view(),
                      .out = hidden_.rows(0, T),
                      .out_rows = {},
                      .steady_weight = true},
                     place_.stream);
}

Status Decoder::forward(const StepTensors& step) {
  const int64_t T = tokens_;
  const TensorView hidden = hidden_.rows(0, T), residual = residual_.rows(0, T);
  const auto norm = [&](const OwnedTensor& weight) {
    return ops::rms_norm({.x = hidden,
                          .weight = weight.view(),
                          .residual = residual,
                          .out = hidden,
                          .eps = config_.rms_eps},
                         place_.stream);
  };
  MMCORE_RETURN_IF_ERROR(fill_zeros(place_, residual));
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    MMCORE_RETURN_IF_ERROR(norm(layer.input_norm));
    MMCORE_RETURN_IF_ERROR(attend(layer, window_of_[i], step));
    MMCORE_RETURN_IF_ERROR(norm(layer.post_norm));
    MMCORE_RETURN_IF_ERROR(transform(layer));
  }
  return norm(norm_);
}

// A gather is what embedding_merge does.
Status Decoder::compute_logits(const TensorView& rows) {
  const int64_t S = rows.size(0);
  reserve(tokens_, S, 0);
  MMCORE_RETURN_IF_ERROR(ops::embedding_merge({.token_ids = rows,
                                               .table = hidden_.rows(0, tokens_),
                                               .source = {},
                                               .media = {},
                                               .out = picked_.rows(0, S)},
                                              place_.stream));
  return ops::linear({.x = picked_.rows(0, S),
                      .weight = config_.tied_head ? table_.view() : head_.view(),
                      .bias = {},
                      .out = logits_.rows(0, S),
                      .out_rows = {},
                      .steady_weight = true},
                     place_.stream);
}

}  // namespace mmcore::native
