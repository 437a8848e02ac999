#include <algorithm>

#include "native/model_config.h"

namespace mmcore::native {

namespace {

constexpr int64_t kMaxPositions = 1 << 24;

// The scaling is in rope_parameters (transformers 5) or rope_scaling, theta there or beside it.
RopeConfig read_rope(ConfigReader& text) {
  RopeConfig rope;
  const char* key = text.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  rope.theta = text.number_of("rope_theta", rope.theta);
  if (text.has(key)) {
    ConfigReader scaling(text.at(key), text.where() + "." + key);
    rope.theta = scaling.number_of("rope_theta", rope.theta);
    rope.type = scaling.text("rope_type", scaling.text("type", "default"));
    if (rope.type == "linear" || rope.type == "llama3") {
      rope.factor = scaling.number_of("factor", 0);
      if (!(rope.factor > 0)) scaling.fail("factor must be a number above 0");
    } else if (rope.type != "default") {
      scaling.fail("RoPE type '" + rope.type +
                   "' is not supported; known: default, linear, llama3");
    }
    if (rope.type == "llama3") {
      rope.low_freq_factor = scaling.number_of("low_freq_factor", 0);
      rope.high_freq_factor = scaling.number_of("high_freq_factor", 0);
      rope.original_positions = scaling.number_of("original_max_position_embeddings", 0);
      if (!(rope.low_freq_factor > 0 && rope.high_freq_factor > rope.low_freq_factor &&
            rope.original_positions > 0)) {
        scaling.fail(
            "llama3 needs low_freq_factor, a greater high_freq_factor and "
            "original_max_position_embeddings");
      }
    }
    if (!scaling.status().ok()) text.fail(scaling.status().message());
  }
  if (!(rope.theta > 1)) text.fail("rope_theta must be a number above 1");
  return rope;
}

void read_windows(ConfigReader& text, const std::string& model_type, TextConfig& config) {
  const int32_t layers = text.size("num_hidden_layers", 32, 1, 1024);
  config.windows.assign(static_cast<size_t>(layers), 0);
  // Mistral's default is a window, and null means none.
  const bool null_window = text.at("sliding_window").is_null();
  const int32_t window = text.size("sliding_window", 4096, 1, kMaxPositions);
  if (model_type == "mistral") {
    const bool absent = [&] {
      for (const Json::Member& member : text.object().as_object())
        if (member.first == "sliding_window") return false;
      return true;
    }();
    if (!null_window || absent) config.windows.assign(static_cast<size_t>(layers), window);
  } else if (model_type == "qwen2") {
    const Json& types = text.at("layer_types");
    if (types.is_array() && types.as_array().size() == config.windows.size()) {
      for (size_t i = 0; i < config.windows.size(); ++i) {
        const Json& type = types.as_array()[i];
        if (type.is_string() && type.as_string() == "sliding_attention" && !null_window)
          config.windows[i] = window;
      }
    } else if (text.flag("use_sliding_window", false) && !null_window) {
      const int32_t first = text.size("max_window_layers", 28, 0);
      for (int32_t i = first; i < layers; ++i) config.windows[static_cast<size_t>(i)] = window;
    }
  }
}

}  // namespace

TextConfig read_text_config(ConfigReader& text, const std::string& model_type) {
  const bool mistral = model_type == "mistral", qwen2 = model_type == "qwen2";
  TextConfig config;
  if (!mistral && !qwen2 && model_type != "llama") {
    text.fail("model_type '" + model_type + "' is not supported; known: llama, mistral, qwen2");
    return config;
  }
  config.vocab_size = text.size("vocab_size", qwen2 ? 151936 : 32000, 1, 1 << 24);
  config.hidden_size = text.size("hidden_size", 4096);
  config.intermediate_size = text.size("intermediate_size", mistral ? 14336
                                                            : qwen2 ? 22016
                                                                    : 11008);
  config.num_heads = text.size("num_attention_heads", 32);
  config.num_kv_heads = text.size("num_key_value_heads", mistral ? 8 : config.num_heads);
  config.head_dim = text.size("head_dim", std::max(1, config.hidden_size / config.num_heads));
  config.max_position = text.size("max_position_embeddings",
                                  mistral ? 131072
                                  : qwen2 ? 32768
                                          : 2048,
                                  1, kMaxPositions);
  config.rms_eps = text.number("rms_norm_eps", 1e-6);
  config.act = text.activation("hidden_act", "silu");
  config.rope = read_rope(text);
  const bool bias = text.flag("attention_bias", false) && !mistral;
  config.qkv_bias = bias || qwen2;
  config.output_bias = bias && !qwen2;
  config.mlp_bias = text.flag("mlp_bias", false) && !mistral && !qwen2;
  config.tied_head = text.flag("tie_word_embeddings", false);
  read_windows(text, model_type, config);
  if (config.num_heads % config.num_kv_heads != 0)
    text.fail("num_key_value_heads does not divide num_attention_heads");
  if (config.head_dim % 2 != 0) text.fail("head_dim is odd");
  if (text.number_of("partial_rotary_factor", 1.0) != 1.0)
    text.fail("partial_rotary_factor is not supported");
  return config;
}

}  // namespace mmcore::native
