// From pictures to embedding rows: CLIP's tower and LLaVA's projector.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mmcore/gpu.h"
#include "mmcore/status.h"
#include "native/model_config.h"
#include "native/owned_tensor.h"
#include "native/place.h"
#include "native/weight_loader.h"

namespace mmcore::native {

class ImageEncoder {
 public:
  /// Tensors are named "vision_tower.embeddings..." and "multi_modal_projector...". `hidden_size`
  /// is the decoder's. Look at the loader's status afterwards.
  ImageEncoder(const VisionConfig& config, int64_t hidden_size, DType dtype, WeightLoader& weights);

  /// Makes the memory that encode() needs for so many images at a time. On a CPU it grows later.
  Status reserve(int64_t images);
  /// Where an image's features are kept whose first row is `first`: a row for each of the tower's,
  /// or -1 for what the model has no use for.
  void add_feature_rows(int64_t first, std::vector<int64_t>& rows) const;
  /// Encodes pictures, each float32 [3, S, S], into rows of `out` [rows, hidden size]. `rows`,
  /// int64, is what add_feature_rows() gave for all of them, where the model computes.
  Status encode(std::span<const std::vector<float>> pixels, const TensorView& rows,
                const TensorView& out);

 private:
  struct Layer {
    OwnedTensor norm1, norm1_bias, qkv, qkv_bias, output, output_bias;
    OwnedTensor norm2, norm2_bias, fc1, fc1_bias, fc2, fc2_bias;
  };
  Layer load_layer(const std::string& prefix, WeightLoader& weights) const;
  Status encode_batch(std::span<const std::vector<float>> pixels, const TensorView& rows,
                      const TensorView& out);
  Status write_patches(std::span<const std::vector<float>> pixels);
  Status embed();
  Status run(const Layer& layer);
  Status keep_features(int32_t state);

  VisionConfig config_;
  int64_t hidden_size_;
  DType dtype_;
  Place place_;
  OwnedTensor patch_, class_, positions_, pre_norm_, pre_norm_bias_;
  std::vector<Layer> layers_;
  OwnedTensor linear1_, linear1_bias_, linear2_, linear2_bias_;

  // Of one batch; R is its images times the tower's rows.
  int64_t most_ = 0;        // images that the tensors have room for
  int64_t images_ = 0;      // of the batch
  OwnedTensor patches_;     // [images * patches, 3 p p]
  OwnedTensor hidden_;      // [R, W]
  OwnedTensor normed_;      // [R, W]
  OwnedTensor qkv_;         // [R, 3 W]
  OwnedTensor attended_;    // [R, W]
  OwnedTensor inner_;       // [R, I]
  OwnedTensor features_;    // [R, W * feature layers]
  OwnedTensor patch_rows_;  // int64: the row of each patch
  OwnedTensor starts_;      // int32 [images + 1]
  OwnedTensor workspace_;
  gpu::Memory staged_;  // patches on their way to a GPU
  gpu::Event sent_;
};

}  // namespace mmcore::native
