// Llama's decoder, and those of Mistral and Qwen2, which differ from it in biases and windows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mmcore/model_runner.h"
#include "mmcore/status.h"
#include "native/host_tensor.h"
#include "native/model_config.h"
#include "native/weight_loader.h"

namespace mmcore::native {

/// Embeddings, layers with their KV cache, the output head, and the memory of a step. One thread.
class Decoder {
 public:
  /// Tensors are named `prefix` + "model.layers.0...". Look at the loader's status afterwards.
  Decoder(const TextConfig& config, const std::string& prefix, DType dtype, WeightLoader& weights);

  int64_t kv_bytes_per_block(int32_t block_size) const;
  /// Makes the KV cache, and rotary positions [0, positions).
  void make_caches(int64_t num_blocks, int32_t block_size, int64_t positions);

  Status copy_blocks(const std::vector<BlockCopy>& copies);

  /// Gives the embeddings of the step's tokens: those of the table, or, where source [T] is not
  /// negative, that row of `media`. Valid until forward().
  Status embed(const StepPlan& plan, const TensorView& source, const TensorView& media);
  /// Runs the layers over what embed() gave.
  Status forward(const StepPlan& plan);
  /// Gives logits [rows, V] of rows of the step; valid until the next call.
  Result<TensorView> logits(std::span<const int32_t> rows);

  DType dtype() const { return dtype_; }
  const TextConfig& config() const { return config_; }

 private:
  struct Layer {
    HostTensor input_norm, qkv, qkv_bias, output, output_bias;
    HostTensor post_norm, gate_up, gate_up_bias, down, down_bias;
    HostTensor k_cache, v_cache;
  };
  Layer load_layer(const std::string& prefix, WeightLoader& weights) const;
  Status attend(const Layer& layer, int32_t window, const StepPlan& plan);
  Status transform(const Layer& layer);
  void reserve(int64_t tokens);

  TextConfig config_;
  DType dtype_;
  HostTensor table_, norm_, head_;
  std::vector<Layer> layers_;
  HostTensor rope_;

  // Of one step; T is the most rows that a step has had.
  int64_t capacity_ = 0;
  int64_t tokens_ = 0;
  HostTensor hidden_;    // [T, H]
  HostTensor residual_;  // [T, H]
  HostTensor qkv_;       // [T, (heads + 2 kv heads) dim]
  HostTensor attended_;  // [T, heads dim]
  HostTensor gate_up_;   // [T, 2 I]
  HostTensor inner_;     // [T, I]
  HostTensor picked_;    // [S, H]
  HostTensor logits_;    // [S, V]
};

}  // namespace mmcore::native
