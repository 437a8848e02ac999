// From pictures to embedding rows: CLIP's tower and LLaVA's projector.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mmcore/status.h"
#include "native/host_tensor.h"
#include "native/model_config.h"
#include "native/weight_loader.h"

namespace mmcore::native {

class ImageEncoder {
 public:
  /// Tensors are named "vision_tower.embeddings..." and "multi_modal_projector...". `hidden_size`
  /// is the decoder's. Look at the loader's status afterwards.
  ImageEncoder(const VisionConfig& config, int64_t hidden_size, DType dtype, WeightLoader& weights);

  /// Encodes pictures, each float32 [3, S, S], into outputs [image_tokens, hidden size].
  Status encode(std::span<const std::vector<float>> pixels, std::span<const TensorView> outputs);

 private:
  struct Layer {
    HostTensor norm1, norm1_bias, qkv, qkv_bias, output, output_bias;
    HostTensor norm2, norm2_bias, fc1, fc1_bias, fc2, fc2_bias;
  };
  Layer load_layer(const std::string& prefix, WeightLoader& weights) const;
  Status encode_batch(std::span<const std::vector<float>> pixels,
                      std::span<const TensorView> outputs);
  Status embed(std::span<const std::vector<float>> pixels);
  Status run(const Layer& layer);
  void keep_features(int32_t state);
  Status project(int64_t image, const TensorView& output);
  void reserve(int64_t images);

  VisionConfig config_;
  int64_t hidden_size_;
  DType dtype_;
  HostTensor patch_, class_, positions_, pre_norm_, pre_norm_bias_;
  std::vector<Layer> layers_;
  HostTensor linear1_, linear1_bias_, linear2_, linear2_bias_;

  // Of one batch; R is its images times the tower's rows.
  int64_t images_ = 0;
  HostTensor patches_;   // [images * patches, 3 p p]
  HostTensor hidden_;    // [R, W]
  HostTensor normed_;    // [R, W]
  HostTensor qkv_;       // [R, 3 W]
  HostTensor attended_;  // [R, W]
  HostTensor inner_;     // [R, I]
  HostTensor features_;  // [R, W * feature layers]
  HostTensor workspace_;
  std::vector<int64_t> patch_rows_;    // the row of each patch
  std::vector<int64_t> feature_rows_;  // the output's row of each feature of an image
  std::vector<int32_t> starts_;        // [images + 1]
};

}  // namespace mmcore::native
