// What config.json and generation_config.json say of a model, in the layout of the hub or in that
// of transformers 5, with transformers' defaults for what they leave out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mmcore/ops.h"
#include "mmcore/status.h"
#include "mmcore/types.h"
#include "native/config_reader.h"

namespace mmcore::native {

struct RopeConfig {
  std::string type = "default";  // or "linear", "llama3"
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 1.0;
  double original_positions = 0;
};

struct TextConfig {
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t max_position = 0;
  float rms_eps = 1e-6f;
  ops::Activation act = ops::Activation::kSilu;
  RopeConfig rope;
  bool qkv_bias = false;
  bool output_bias = false;
  bool mlp_bias = false;
  bool tied_head = false;
  std::vector<int32_t> windows;  // one a layer; 0: every key is seen
  int32_t num_layers() const { return static_cast<int32_t>(windows.size()); }
};

struct VisionConfig {
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;
  int32_t image_size = 0;
  int32_t patch_size = 0;
  int32_t channels = 0;
  ops::Activation act = ops::Activation::kGeluQuick;
  float layer_norm_eps = 1e-5f;

  // What the model makes of the tower.
  std::vector<int32_t> feature_layers;  // state k is the output of k layers; side by side
  bool drops_first_row = true;          // the class embedding's
  ops::Activation projector_act = ops::Activation::kGeluErf;
  bool projector_bias = true;
  TokenId image_token_id = -1;

  int32_t patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  int32_t tower_rows() const { return patches() + 1; }
  int32_t image_tokens() const { return tower_rows() - (drops_first_row ? 1 : 0); }
};

struct ModelConfig {
  std::string architecture;
  std::string dtype;  // "" where the checkpoint does not say
  TextConfig text;
  std::optional<VisionConfig> vision;
  std::vector<TokenId> eos_token_ids;
  TokenId bos_token_id = -1;
};

/// Reads a checkpoint's folder. What this runner cannot compute is kUnsupported.
Result<ModelConfig> read_model_config(const std::string& folder);

// Parts of it, in files of their own.
TextConfig read_text_config(ConfigReader& reader, const std::string& model_type);
VisionConfig read_vision_config(ConfigReader& model, ConfigReader& vision);

}  // namespace mmcore::native
