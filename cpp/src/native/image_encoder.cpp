#include "native/image_encoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "mmcore/ops.h"

namespace mmcore::native {

namespace {

constexpr size_t kMaxBatch = 8;  // images at a time: more are no faster and take more memory

}  // namespace

ImageEncoder::ImageEncoder(const VisionConfig& config, int64_t hidden_size, DType dtype,
                           WeightLoader& weights)
    : config_(config), hidden_size_(hidden_size), dtype_(dtype) {
  const int64_t W = config.hidden_size, p = config.patch_size, C = config.channels;
  const std::string tower = "vision_tower.", embeddings = tower + "embeddings.";
  const std::array<int64_t, 4> kernel = {W, C, p, p};
  patch_ = weights.load_as(embeddings + "patch_embedding.weight", kernel, {W, C * p * p});
  class_ = weights.load(embeddings + "class_embedding", {W});
  positions_ = weights.load(embeddings + "position_embedding.weight", {config.tower_rows(), W});
  // The name is misspelt in every checkpoint.
  pre_norm_ = weights.load(tower + "pre_layrnorm.weight", {W});
  pre_norm_bias_ = weights.load(tower + "pre_layrnorm.bias", {W});
  const int32_t needed = *std::ranges::max_element(config.feature_layers);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    const std::string layer = tower + "encoder.layers." + std::to_string(i) + ".";
    if (i < needed)
      layers_.push_back(load_layer(layer, weights));
    else
      weights.ignore_prefix(layer);
  }
  weights.ignore_prefix(tower + "post_layernorm.");  // behind no state that LLaVA uses
  const std::string projector = "multi_modal_projector.";
  const int64_t in = W * static_cast<int64_t>(config.feature_layers.size());
  linear1_ = weights.load(projector + "linear_1.weight", {hidden_size, in});
  linear2_ = weights.load(projector + "linear_2.weight", {hidden_size, hidden_size});
  if (config.projector_bias) {
    linear1_bias_ = weights.load(projector + "linear_1.bias", {hidden_size});
    linear2_bias_ = weights.load(projector + "linear_2.bias", {hidden_size});
  }
  for (int32_t i = 0; i < config.tower_rows(); ++i)
    feature_rows_.push_back(i - (config.drops_first_row ? 1 : 0));
}

ImageEncoder::Layer ImageEncoder::load_layer(const std::string& prefix,
                                             WeightLoader& weights) const {
  const int64_t W = config_.hidden_size, I = config_.intermediate_size;
  const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const std::array<int64_t, 3> rows = {W, W, W};
  const auto qkv = [&](const char* kind) {
    return std::array<std::string, 3>{attention + "q_proj" + kind, attention + "k_proj" + kind,
                                      attention + "v_proj" + kind};
  };
  Layer layer;
  layer.norm1 = weights.load(prefix + "layer_norm1.weight", {W});
  layer.norm1_bias = weights.load(prefix + "layer_norm1.bias", {W});
  layer.qkv = weights.load_stacked(qkv(".weight"), rows, W);
  layer.qkv_bias = weights.load_stacked(qkv(".bias"), rows, 0);
  layer.output = weights.load(attention + "out_proj.weight", {W, W});
  layer.output_bias = weights.load(attention + "out_proj.bias", {W});
  layer.norm2 = weights.load(prefix + "layer_norm2.weight", {W});
  layer.norm2_bias = weights.load(prefix + "layer_norm2.bias", {W});
  layer.fc1 = weights.load(mlp + "fc1.weight", {I, W});
  layer.fc1_bias = weights.load(mlp + "fc1.bias", {I});
  layer.fc2 = weights.load(mlp + "fc2.weight", {W, I});
  layer.fc2_bias = weights.load(mlp + "fc2.bias", {W});
  return layer;
}

void ImageEncoder::reserve(int64_t images) {
  if (images <= images_) return;
  images_ = images;
  const int64_t W = config_.hidden_size, p = config_.patch_size, R = images * config_.tower_rows();
  const int64_t width = W * static_cast<int64_t>(config_.feature_layers.size());
  patches_ = HostTensor(dtype_, {images * config_.patches(), config_.channels * p * p});
  hidden_ = HostTensor(dtype_, {R, W});
  normed_ = HostTensor(dtype_, {R, W});
  qkv_ = HostTensor(dtype_, {R, 3 * W});
  attended_ = HostTensor(dtype_, {R, W});
  inner_ = HostTensor(dtype_, {R, config_.intermediate_size});
  features_ = HostTensor(dtype_, {R, width});
  workspace_ = HostTensor(DType::kUInt8, {ops::vision_projector_workspace_bytes(
                                             config_.tower_rows(), hidden_size_, dtype_)});
  patch_rows_.clear();
  for (int64_t i = 0; i < images; ++i)
    for (int64_t k = 0; k < config_.patches(); ++k)
      patch_rows_.push_back(i * config_.tower_rows() + 1 + k);
}

Status ImageEncoder::encode(std::span<const std::vector<float>> pixels,
                            std::span<const TensorView> outputs) {
  for (size_t first = 0; first < pixels.size(); first += kMaxBatch) {
    const size_t count = std::min(kMaxBatch, pixels.size() - first);
    MMCORE_RETURN_IF_ERROR(
        encode_batch(pixels.subspan(first, count), outputs.subspan(first, count)));
  }
  return {};
}

Status ImageEncoder::encode_batch(std::span<const std::vector<float>> pixels,
                                  std::span<const TensorView> outputs) {
  const auto images = static_cast<int64_t>(pixels.size());
  reserve(images);
  starts_.assign(1, 0);
  for (int32_t i = 1; i <= images; ++i) starts_.push_back(i * config_.tower_rows());
  MMCORE_RETURN_IF_ERROR(embed(pixels));
  keep_features(0);
  for (size_t i = 0; i < layers_.size(); ++i) {
    MMCORE_RETURN_IF_ERROR(run(layers_[i]));
    keep_features(static_cast<int32_t>(i + 1));
  }
  for (int64_t i = 0; i < images; ++i)
    MMCORE_RETURN_IF_ERROR(project(i, outputs[static_cast<size_t>(i)]));
  return {};
}

// Patches in rows, each [3, p, p]; a linear map of them; the class embedding before those of an
// image, and positions added to all.
Status ImageEncoder::embed(std::span<const std::vector<float>> pixels) {
  const int64_t p = config_.patch_size, S = config_.image_size, side = S / p;
  const int64_t C = config_.channels, width = C * p * p, W = config_.hidden_size;
  const auto images = static_cast<int64_t>(pixels.size());
  const int64_t rows = images * config_.patches();
  std::vector<float> patch(static_cast<size_t>(width));
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t image = i / (side * side), y = i % (side * side) / side * p, x = i % side * p;
    const std::vector<float>& source = pixels[static_cast<size_t>(image)];
    check_eq(static_cast<int64_t>(source.size()), C * S * S, "pixels of an image");
    for (int64_t c = 0; c < C; ++c)
      for (int64_t dy = 0; dy < p; ++dy)
        std::copy_n(source.data() + (c * S + y + dy) * S + x, p, patch.data() + (c * p + dy) * p);
    convert(TensorView(patch.data(), DType::kFloat32, {width}), patches_.rows(i, 1));
  }
  const TensorView hidden = hidden_.rows(0, images * config_.tower_rows());
  MMCORE_RETURN_IF_ERROR(
      ops::linear({.x = patches_.rows(0, rows),
                   .weight = patch_.view(),
                   .bias = {},
                   .out = hidden,
                   .out_rows = TensorView(patch_rows_.data(), DType::kInt64, {rows})}));
  for (int64_t i = 0; i < images; ++i) {
    const TensorView image = rows_of(hidden, i * config_.tower_rows(), config_.tower_rows());
    std::memcpy(image.data, class_.view().data, static_cast<size_t>(W) * size_of(dtype_));
    add(positions_.view(), image);
  }
  return ops::layer_norm({.x = hidden,
                          .weight = pre_norm_.view(),
                          .bias = pre_norm_bias_.view(),
                          .out = hidden,
                          .eps = config_.layer_norm_eps});
}

Status ImageEncoder::run(const Layer& layer) {
  const auto images = static_cast<int64_t>(starts_.size()) - 1;
  const int64_t R = images * config_.tower_rows(), heads = config_.num_heads;
  const int64_t W = config_.hidden_size, D = W / heads;
  const TensorView hidden = hidden_.rows(0, R), normed = normed_.rows(0, R);
  const TensorView qkv = qkv_.rows(0, R), attended = attended_.rows(0, R);
  MMCORE_RETURN_IF_ERROR(ops::layer_norm({.x = hidden,
                                          .weight = layer.norm1.view(),
                                          .bias = layer.norm1_bias.view(),
                                          .out = normed,
                                          .eps = config_.layer_norm_eps}));
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = normed,
                                      .weight = layer.qkv.view(),
                                      .bias = layer.qkv_bias.view(),
                                      .out = qkv,
                                      .out_rows = {}}));
  const TensorView starts(starts_.data(), DType::kInt32, {images + 1});
  MMCORE_RETURN_IF_ERROR(ops::varlen_attention({.q = heads_of(qkv, 0, heads, D),
                                                .k = heads_of(qkv, W, heads, D),
                                                .v = heads_of(qkv, 2 * W, heads, D),
                                                .cu_q = starts,
                                                .cu_k = starts,
                                                .out = heads_of(attended, 0, heads, D),
                                                .scale = 1.0f / std::sqrt(static_cast<float>(D))}));
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = attended,
                                      .weight = layer.output.view(),
                                      .bias = layer.output_bias.view(),
                                      .out = normed,
                                      .out_rows = {}}));
  add(normed, hidden);
  MMCORE_RETURN_IF_ERROR(ops::layer_norm({.x = hidden,
                                          .weight = layer.norm2.view(),
                                          .bias = layer.norm2_bias.view(),
                                          .out = normed,
                                          .eps = config_.layer_norm_eps}));
  const TensorView inner = inner_.rows(0, R);
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = normed,
                                      .weight = layer.fc1.view(),
                                      .bias = layer.fc1_bias.view(),
                                      .out = inner,
                                      .out_rows = {},
                                      .act = config_.act}));
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = inner,
                                      .weight = layer.fc2.view(),
                                      .bias = layer.fc2_bias.view(),
                                      .out = normed,
                                      .out_rows = {}}));
  add(normed, hidden);
  return {};
}

void ImageEncoder::keep_features(int32_t state) {
  const auto bytes = static_cast<size_t>(config_.hidden_size) * size_of(dtype_);
  const size_t layers = config_.feature_layers.size();
  const int64_t rows = starts_.back();
  for (size_t k = 0; k < layers; ++k) {
    if (config_.feature_layers[k] != state) continue;
    auto* to = static_cast<uint8_t*>(features_.view().data) + k * bytes;
    const auto* from = static_cast<const uint8_t*>(hidden_.view().data);
    for (int64_t i = 0; i < rows; ++i, to += layers * bytes, from += bytes)
      std::memcpy(to, from, bytes);
  }
}

Status ImageEncoder::project(int64_t image, const TensorView& output) {
  const int64_t rows = config_.tower_rows();
  return ops::vision_projector({.x = features_.rows(image * rows, rows),
                                .w1 = linear1_.view(),
                                .b1 = linear1_bias_.view(),
                                .w2 = linear2_.view(),
                                .b2 = linear2_bias_.view(),
                                .rows = TensorView(feature_rows_.data(), DType::kInt64, {rows}),
                                .out = output,
                                .act = config_.projector_act,
                                .workspace = workspace_.view()});
}

}  // namespace mmcore::native
