#include "native/model_config.h"

namespace mmcore::native {

namespace {

std::vector<int32_t> read_feature_layers(ConfigReader& model, int32_t num_layers) {
  const Json& value = model.at("vision_feature_layer");
  std::vector<int64_t> given;
  if (value.is_null()) {
    given = {-2};
  } else if (value.is_int()) {
    given = {value.as_int()};
  } else if (value.is_array() && !value.as_array().empty() && value.as_array().size() <= 64) {
    for (const Json& layer : value.as_array())
      given.push_back(layer.is_int() ? layer.as_int() : 1 << 20);
  } else {
    model.fail("vision_feature_layer is no integer or list of them");
  }
  std::vector<int32_t> states;
  for (const int64_t layer : given) {
    const int64_t state = layer >= 0 ? layer : num_layers + 1 + layer;
    if (state < 0 || state > num_layers) {
      model.fail("a vision_feature_layer does not exist in a tower of " +
                 std::to_string(num_layers) + " layers");
      return {0};
    }
    states.push_back(static_cast<int32_t>(state));
  }
  return states;
}

}  // namespace

VisionConfig read_vision_config(ConfigReader& model, ConfigReader& vision) {
  VisionConfig config;
  const std::string type = vision.text("model_type", "clip_vision_model");
  if (type != "clip_vision_model")
    vision.fail("model_type '" + type + "' is not supported; known: clip_vision_model");
  // Without any vision_config LLaVA's is CLIP's large tower, else what is missing is the base
  // one's.
  const bool absent = vision.object().is_null();
  config.hidden_size = vision.size("hidden_size", absent ? 1024 : 768);
  config.intermediate_size = vision.size("intermediate_size", absent ? 4096 : 3072);
  config.num_layers = vision.size("num_hidden_layers", absent ? 24 : 12, 1, 1024);
  config.num_heads = vision.size("num_attention_heads", absent ? 16 : 12);
  config.image_size = vision.size("image_size", absent ? 336 : 224, 1, 8192);
  config.patch_size = vision.size("patch_size", absent ? 14 : 32, 1, 1024);
  config.channels = vision.size("num_channels", 3);
  config.act = vision.activation("hidden_act", "quick_gelu");
  config.layer_norm_eps = vision.number("layer_norm_eps", 1e-5);
  if (config.channels != 3) vision.fail("num_channels must be 3");
  if (config.image_size % config.patch_size != 0)
    vision.fail("image_size must be a multiple of patch_size");
  if (config.hidden_size % config.num_heads != 0)
    vision.fail("num_attention_heads does not divide hidden_size");

  config.feature_layers = read_feature_layers(model, config.num_layers);
  const std::string strategy = model.text("vision_feature_select_strategy", "default");
  if (strategy != "default" && strategy != "full")
    model.fail("vision_feature_select_strategy '" + strategy + "' is neither default nor full");
  config.drops_first_row = strategy == "default";
  config.projector_act = model.activation("projector_hidden_act", "gelu");
  config.projector_bias = model.flag("multimodal_projector_bias", true);
  const char* key = model.has("image_token_index") ? "image_token_index" : "image_token_id";
  config.image_token_id = model.size(key, 32000, 0, 1 << 24);
  return config;
}

}  // namespace mmcore::native
