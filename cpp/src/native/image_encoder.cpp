#include "native/image_encoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "mmcore/ops.h"

namespace mmcore::native {

namespace {

constexpr size_t kMaxBatch = 8;  // images at a time: more are no faster and take more memory

}  // namespace

ImageEncoder::ImageEncoder(const VisionConfig& config, int64_t hidden_size, DType dtype,
                           WeightLoader& weights)
    : config_(config), hidden_size_(hidden_size), dtype_(dtype), place_(weights.place()) {
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

Status ImageEncoder::reserve(int64_t images) {
  images = std::min(images, static_cast<int64_t>(kMaxBatch));
  if (images <= most_) return {};
  const int64_t W = config_.hidden_size, p = config_.patch_size, R = images * config_.tower_rows();
  const int64_t width = W * static_cast<int64_t>(config_.feature_layers.size());
  const int64_t patches = images * config_.patches(), patch = config_.channels * p * p;
  const Device device = place_.device;
  patches_ = OwnedTensor(dtype_, {patches, patch}, device);
  hidden_ = OwnedTensor(dtype_, {R, W}, device);
  normed_ = OwnedTensor(dtype_, {R, W}, device);
  qkv_ = OwnedTensor(dtype_, {R, 3 * W}, device);
  attended_ = OwnedTensor(dtype_, {R, W}, device);
  inner_ = OwnedTensor(dtype_, {R, config_.intermediate_size}, device);
  features_ = OwnedTensor(dtype_, {R, width}, device);
  workspace_ =
      OwnedTensor(DType::kUInt8,
                  {ops::vision_projector_workspace_bytes(R, hidden_size_, dtype_, device)}, device);
  std::vector<int64_t> patch_rows;
  for (int64_t i = 0; i < images; ++i)
    for (int64_t k = 0; k < config_.patches(); ++k)
      patch_rows.push_back(i * config_.tower_rows() + 1 + k);
  std::vector<int32_t> starts;
  for (int64_t i = 0; i <= images; ++i)
    starts.push_back(static_cast<int32_t>(i * config_.tower_rows()));
  patch_rows_ = OwnedTensor(DType::kInt64, {patches}, device);
  starts_ = OwnedTensor(DType::kInt32, {images + 1}, device);
  // From memory that is not pinned: done when these return.
  MMCORE_RETURN_IF_ERROR(copy(place_, patch_rows_.view().data, patch_rows.data(), patches * 8));
  MMCORE_RETURN_IF_ERROR(copy(place_, starts_.view().data, starts.data(), (images + 1) * 4));
  if (place_.on_gpu()) {
    Result<gpu::Memory> staged =
        gpu::Memory::pinned(device, patches * patch * static_cast<int64_t>(size_of(dtype_)));
    if (!staged.ok()) return staged.status();
    Result<gpu::Event> sent = gpu::Event::make(device);
    if (!sent.ok()) return sent.status();
    staged_ = std::move(staged).value();
    sent_ = std::move(sent).value();
  }
  most_ = images;
  return {};
}

void ImageEncoder::add_feature_rows(int64_t first, std::vector<int64_t>& rows) const {
  if (config_.drops_first_row) rows.push_back(-1);
  for (int64_t i = 0; i < config_.image_tokens(); ++i) rows.push_back(first + i);
}

Status ImageEncoder::encode(std::span<const std::vector<float>> pixels, const TensorView& rows,
                            const TensorView& out) {
  const int64_t each = config_.tower_rows();
  check_eq(rows.size(0), static_cast<int64_t>(pixels.size()) * each, "rows of encoded images");
  for (size_t first = 0; first < pixels.size(); first += kMaxBatch) {
    const size_t count = std::min(kMaxBatch, pixels.size() - first);
    MMCORE_RETURN_IF_ERROR(encode_batch(
        pixels.subspan(first, count),
        rows_of(rows, static_cast<int64_t>(first) * each, static_cast<int64_t>(count) * each),
        out));
  }
  return {};
}

Status ImageEncoder::encode_batch(std::span<const std::vector<float>> pixels,
                                  const TensorView& rows, const TensorView& out) {
  images_ = static_cast<int64_t>(pixels.size());
  MMCORE_RETURN_IF_ERROR(reserve(images_));
  MMCORE_RETURN_IF_ERROR(write_patches(pixels));
  MMCORE_RETURN_IF_ERROR(embed());
  MMCORE_RETURN_IF_ERROR(keep_features(0));
  for (size_t i = 0; i < layers_.size(); ++i) {
    MMCORE_RETURN_IF_ERROR(run(layers_[i]));
    MMCORE_RETURN_IF_ERROR(keep_features(static_cast<int32_t>(i + 1)));
  }
  return ops::vision_projector({.x = features_.rows(0, images_ * config_.tower_rows()),
                                .w1 = linear1_.view(),
                                .b1 = linear1_bias_.view(),
                                .w2 = linear2_.view(),
                                .b2 = linear2_bias_.view(),
                                .rows = rows,
                                .out = out,
                                .act = config_.projector_act,
                                .workspace = workspace_.view()},
                               place_.stream);
}

// Patches in rows, each [3, p, p].
Status ImageEncoder::write_patches(std::span<const std::vector<float>> pixels) {
  const int64_t p = config_.patch_size, S = config_.image_size, side = S / p;
  const int64_t C = config_.channels, width = C * p * p;
  const int64_t rows = images_ * config_.patches();
  if (place_.on_gpu()) MMCORE_RETURN_IF_ERROR(sent_.wait());
  void* const written = place_.on_gpu() ? staged_.data() : patches_.view().data;
  const TensorView target(written, dtype_, {rows, width});
  std::vector<float> patch(static_cast<size_t>(width));
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t image = i / (side * side), y = i % (side * side) / side * p, x = i % side * p;
    const std::vector<float>& source = pixels[static_cast<size_t>(image)];
    check_eq(static_cast<int64_t>(source.size()), C * S * S, "pixels of an image");
    for (int64_t c = 0; c < C; ++c)
      for (int64_t dy = 0; dy < p; ++dy)
        std::copy_n(source.data() + (c * S + y + dy) * S + x, p, patch.data() + (c * p + dy) * p);
    convert(TensorView(patch.data(), DType::kFloat32, {width}), rows_of(target, i, 1));
  }
  if (!place_.on_gpu()) return {};
  MMCORE_RETURN_IF_ERROR(copy(place_, patches_.view().data, written,
                              rows * width * static_cast<int64_t>(size_of(dtype_))));
  return sent_.record(place_.stream);
}

// A linear map of the patches; the class embedding before those of an image, and positions added to
// all.
Status ImageEncoder::embed() {
  const int64_t each = config_.tower_rows(), rows = images_ * config_.patches();
  const TensorView hidden = hidden_.rows(0, images_ * each);
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = patches_.rows(0, rows),
                                      .weight = patch_.view(),
                                      .bias = {},
                                      .out = hidden,
                                      .out_rows = patch_rows_.rows(0, rows),
                                      .steady_weight = true},
                                     place_.stream));
  for (int64_t i = 0; i < images_; ++i) {
    const TensorView image = rows_of(hidden, i * each, each);
    MMCORE_RETURN_IF_ERROR(copy(place_, image.data, class_.view().data,
                                config_.hidden_size * static_cast<int64_t>(size_of(dtype_))));
    MMCORE_RETURN_IF_ERROR(ops::add(positions_.view(), image, place_.stream));
  }
  return ops::layer_norm({.x = hidden,
                          .weight = pre_norm_.view(),
                          .bias = pre_norm_bias_.view(),
                          .out = hidden,
                          .eps = config_.layer_norm_eps},
                         place_.stream);
}

Status ImageEncoder::run(const Layer& layer) {
  const int64_t R = images_ * config_.tower_rows(), heads = config_.num_heads;
  const int64_t W = config_.hidden_size, D = W / heads;
  const Stream stream = place_.stream;
  const TensorView hidden = hidden_.rows(0, R), normed = normed_.rows(0, R);
  const TensorView qkv = qkv_.rows(0, R), attended = attended_.rows(0, R);
  MMCORE_RETURN_IF_ERROR(ops::layer_norm({.x = hidden,
                                          .weight = layer.norm1.view(),
                                          .bias = layer.norm1_bias.view(),
                                          .out = normed,
                                          .eps = config_.layer_norm_eps},
                                         stream));
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = normed,
                                      .weight = layer.qkv.view(),
                                      .bias = layer.qkv_bias.view(),
                                      .out = qkv,
                                      .out_rows = {},
                                      .steady_weight = true},
                                     stream));
  const TensorView starts = starts_.rows(0, images_ + 1);
  MMCORE_RETURN_IF_ERROR(ops::varlen_attention({.q = heads_of(qkv, 0, heads, D),
                                                .k = heads_of(qkv, W, heads, D),
                                                .v = heads_of(qkv, 2 * W, heads, D),
                                                .cu_q = starts,
                                                .cu_k = starts,
                                                .out = heads_of(attended, 0, heads, D),
                                                .scale = 1.0f / std::sqrt(static_cast<float>(D))},
                                               stream));
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = attended,
                                      .weight = layer.output.view(),
                                      .bias = layer.output_bias.view(),
                                      .out = normed,
                                      .out_rows = {},
                                      .steady_weight = true},
                                     stream));
  MMCORE_RETURN_IF_ERROR(ops::add(normed, hidden, stream));
  MMCORE_RETURN_IF_ERROR(ops::layer_norm({.x = hidden,
                                          .weight = layer.norm2.view(),
                                          .bias = layer.norm2_bias.view(),
                                          .out = normed,
                                          .eps = config_.layer_norm_eps},
                                         stream));
  const TensorView inner = inner_.rows(0, R);
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = normed,
                                      .weight = layer.fc1.view(),
                                      .bias = layer.fc1_bias.view(),
                                      .out = inner,
                                      .out_rows = {},
                                      .act = config_.act,
                                      .steady_weight = true},
                                     stream));
  MMCORE_RETURN_IF_ERROR(ops::linear({.x = inner,
                                      .weight = layer.fc2.view(),
                                      .bias = layer.fc2_bias.view(),
                                      .out = normed,
                                      .out_rows = {},
                                      .steady_weight = true},
                                     stream));
  return ops::add(normed, hidden, stream);
}

Status ImageEncoder::keep_features(int32_t state) {
  const int64_t bytes = config_.hidden_size * static_cast<int64_t>(size_of(dtype_));
  const auto layers = static_cast<int64_t>(config_.feature_layers.size());
  for (int64_t k = 0; k < layers; ++k) {
    if (config_.feature_layers[static_cast<size_t>(k)] != state) continue;
    MMCORE_RETURN_IF_ERROR(copy_rows(place_, features_.data<uint8_t>() + k * bytes, layers * bytes,
                                     hidden_.view().data, bytes, bytes,
                                     images_ * config_.tower_rows()));
  }
  return {};
}

}  // namespace mmcore::native
