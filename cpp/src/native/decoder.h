// Llama's decoder, and those of Mistral and Qwen2, which differ from it in biases and windows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mmcore/status.h"
#include "native/model_config.h"
#include "native/owned_tensor.h"
#include "native/place.h"
#include "native/step_arrays.h"
#include "native/weight_loader.h"

namespace mmcore::native {

/// Embeddings, layers with their KV cache, the output head, and the memory of a step. One thread.
class Decoder {
 public:
  /// Tensors are named `prefix` + "model.layers.0...". Look at the loader's status afterwards.
  Decoder(const TextConfig& config, const std::string& prefix, DType dtype, WeightLoader& weights);

  int64_t kv_bytes_per_block(int32_t block_size) const;
  /// The windows of its layers, each once: an attention plan of StepArrays' for each.
  const std::vector<int32_t>& windows() const { return windows_; }
  /// Makes the memory of a step of so many tokens, with logits of so many rows. On a CPU it grows
  /// later.
  void reserve(int64_t tokens, int64_t logits_rows, int64_t attention_bytes);
  /// Makes the KV cache, and rotary positions [0, positions).
  Status make_caches(int64_t num_blocks, int32_t block_size, int64_t positions);

  Status copy_blocks(const TensorView& pairs);
  /// Gives the embeddings of the step's tokens: those of the table, or, where step.sources is not
  /// negative, that row of `media`. Valid until forward().
  Status embed(const StepTensors& step, const TensorView& media);
  /// Runs the layers over what embed() gave.
  Status forward(const StepTensors& step);
  /// Computes logits of rows of the step, int32 [S], where logits() finds them.
  Status compute_logits(const TensorView& rows);
  /// [rows, V]; valid until the next compute_logits().
  TensorView logits(int64_t rows) const { return logits_.rows(0, rows); }

 private:
  struct Layer {
    OwnedTensor input_norm, qkv, qkv_bias, output, output_bias;
    OwnedTensor post_norm, gate_up, gate_up_bias, down, down_bias;
    OwnedTensor k_cache, v_cache;
  };
  Layer load_layer(const std::string& prefix, WeightLoader& weights) const;
  Status attend(const Layer& layer, size_t window, const StepTensors& step);
  Status transform(const Layer& layer);

  TextConfig config_;
  DType dtype_;
  Place place_;
  std::vector<int32_t> windows_;
  std::vector<size_t> window_of_;  // of each layer, in windows_
  OwnedTensor table_, norm_, head_;
  std::vector<Layer> layers_;
  OwnedTensor rope_;

  // Of one step; T is the most rows that a step may have.
  int64_t capacity_ = 0;
  int64_t tokens_ = 0;
  OwnedTensor hidden_;    // [T, H]
  OwnedTensor residual_;  // [T, H]
  OwnedTensor qkv_;       // [T, (heads + 2 kv heads) dim]
  OwnedTensor attended_;  // [T, heads dim]
  OwnedTensor gate_up_;   // [T, 2 I]
  OwnedTensor inner_;     // [T, I]
  OwnedTensor picked_;    // [S, H]
  OwnedTensor logits_;    // [S, V]
  OwnedTensor attention_workspace_;
};

}  // namespace mmcore::native
