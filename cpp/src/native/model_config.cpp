#include "native/model_config.h"

#include <algorithm>
#include <array>

namespace mmcore::native {

namespace {

struct Architecture {
  const char* name;
  const char* text_type;  // null: text_config says it
};
constexpr std::array<Architecture, 4> kArchitectures = {{
    {"LlavaForConditionalGeneration", nullptr},
    {"LlamaForCausalLM", "llama"},
    {"MistralForCausalLM", "mistral"},
    {"Qwen2ForCausalLM", "qwen2"},
}};

Result<Architecture> architecture_of(const Json& config) {
  const Json& names = config["architectures"];
  std::string name = "none";
  if (names.is_array() && names.as_array().size() == 1 && names.as_array()[0].is_string())
    name = names.as_array()[0].as_string();
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (name == architecture.name) return architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return Status::unsupported("config.json: architecture '" + name +
                             "' is not one of the native runner's: " + known +
                             "; run it with the Python runner");
}

std::vector<TokenId> token_ids(const Json& value) {
  std::vector<TokenId> ids;
  const auto add = [&](const Json& id) {
    if (id.is_int() && id.as_int() >= 0 && id.as_int() < (1 << 30))
      ids.push_back(static_cast<TokenId>(id.as_int()));
  };
  add(value);
  if (value.is_array()) std::ranges::for_each(value.as_array(), add);
  return ids;
}

// Of the generation config, else the model's, else the language model's.
std::vector<TokenId> find_tokens(std::initializer_list<const Json*> sources, const char* key) {
  for (const Json* source : sources)
    if (std::vector<TokenId> ids = token_ids((*source)[key]); !ids.empty()) return ids;
  return {};
}

}  // namespace

Result<ModelConfig> read_model_config(const std::string& folder) {
  const Result<Json> read = read_config(folder, "config.json");
  if (!read.ok()) return read.status();
  const Json& config = read.value();
  const Result<Architecture> architecture = architecture_of(config);
  if (!architecture.ok()) return architecture.status();
  if (!config["quantization_config"].is_null())
    return Status::unsupported("config.json: quantised checkpoints are not supported");

  ModelConfig model;
  model.architecture = architecture.value().name;
  ConfigReader whole(config, "config.json");
  const bool has_vision = architecture.value().text_type == nullptr;
  const Json& text_json = has_vision ? config["text_config"] : config;
  ConfigReader text(text_json, has_vision ? "config.json: text_config" : "config.json");
  model.text = read_text_config(
      text, has_vision ? text.text("model_type", "llama") : architecture.value().text_type);
  if (has_vision) {
    ConfigReader vision(config["vision_config"], "config.json: vision_config");
    model.vision = read_vision_config(whole, vision);
    model.text.tied_head = model.text.tied_head || whole.flag("tie_word_embeddings", false);
    MMCORE_RETURN_IF_ERROR(vision.status());
  }
  for (ConfigReader* reader : {&whole, &text}) {
    if (model.dtype.empty()) model.dtype = reader->text("torch_dtype", reader->text("dtype", ""));
    MMCORE_RETURN_IF_ERROR(reader->status());
  }
  Json generation;
  if (Result<Json> file = read_config(folder, "generation_config.json"); file.ok())
    generation = std::move(file).value();
  else if (file.status().code() != StatusCode::kNotFound)
    return file.status();
  model.eos_token_ids = find_tokens({&generation, &config, &text_json}, "eos_token_id");
  std::erase_if(model.eos_token_ids, [&](TokenId id) { return id >= model.text.vocab_size; });
  const std::vector<TokenId> bos = find_tokens({&generation, &config, &text_json}, "bos_token_id");
  if (!bos.empty()) model.bos_token_id = bos[0];
  return model;
}

}  // namespace mmcore::native
