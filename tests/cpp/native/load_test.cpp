// What NativeRunner::load and Preprocessor::load refuse, and what they say.
#include <gtest/gtest.h>

#include "mmcore/native.h"
#include "native/folder.h"

namespace mmcore::native {
namespace {

using testing::bundled;
using testing::Folder;

/// On the CPU, also where there is a GPU.
Result<std::unique_ptr<NativeRunner>> load(const std::string& folder, RunnerOptions options = {}) {
  options.device = "cpu";
  return NativeRunner::load(folder, options);
}

struct Edit {
  const char* file;
  const char* from;
  const char* to;
  const char* words;
};

void expect_refusals(std::span<const Edit> edits) {
  for (const Edit& edit : edits) {
    const Folder folder;
    folder.copy_bundled();
    folder.edit(edit.file, edit.from, edit.to);
    const auto loaded = load(folder.path());
    ASSERT_FALSE(loaded.ok()) << edit.to;
    EXPECT_NE(loaded.status().message().find(edit.words), std::string::npos)
        << edit.to << " gave: " << loaded.status().message();
    EXPECT_EQ(loaded.status().message().find(folder.path()), std::string::npos);
  }
}

TEST(Load, describes_the_bundled_checkpoint) {
  const auto runner = load(bundled()).value();
  const ModelInfo& model = runner->model();
  EXPECT_EQ(model.architecture, "LlavaForConditionalGeneration");
  EXPECT_EQ(model.dtype, DType::kBFloat16);
  EXPECT_EQ(model.vocab_size, 640);
  EXPECT_EQ(model.num_layers, 4);
  EXPECT_EQ(model.eos_token_ids, std::vector<TokenId>{2});
  EXPECT_EQ(model.bos_token_id, 1);
  EXPECT_EQ(model.image_token_id, 4);
  EXPECT_EQ(model.image_tokens, 196);
  EXPECT_EQ(model.kv_bytes_per_block, 2 * 4 * 16 * 2 * 32 * 2);
  const EngineConfig config = runner->engine_config();
  EXPECT_EQ(config.max_model_len, 2048);
  EXPECT_EQ(config.num_blocks, model.num_blocks);
  EXPECT_EQ(int64_t{config.num_blocks - 1} * model.kv_bytes_per_block, int64_t{256} << 20);
  EXPECT_TRUE(config.multimodal);
}

TEST(Load, a_small_kv_cache_shortens_what_a_sequence_may_have) {
  RunnerOptions options;
  options.kv_cache_bytes = 10 * 16384 + 16383;
  const auto runner = load(bundled(), options).value();
  EXPECT_EQ(runner->engine_config().num_blocks, 11);
  EXPECT_EQ(runner->engine_config().max_model_len, 160);
}

TEST(Load, refuses_options_that_make_no_sense) {
  const auto message = [](const RunnerOptions& options) {
    return load(bundled(), options).status().message();
  };
  EXPECT_NE(message({.dtype = DType::kFloat16}).find("float16"), std::string::npos);
  EXPECT_NE(message({.dtype = {}, .block_size = 12}).find("block_size is 12"), std::string::npos);
  EXPECT_NE(message({.dtype = {}, .max_num_seqs = 0}).find("max_num_seqs is 0"), std::string::npos);
  EXPECT_NE(message({.dtype = {}, .encoder_cache_rows = -1}).find("encoder_cache_rows is -1"),
            std::string::npos);
  EXPECT_NE(message({.dtype = {}, .gpu_memory_utilization = 1.5}).find("utilization is 1.5"),
            std::string::npos);
  EXPECT_NE(message({.dtype = {}, .kv_cache_bytes = 100}).find("at least two blocks"),
            std::string::npos);
  EXPECT_NE(message({.dtype = {}, .max_model_len = 2049}).find("2049"), std::string::npos);
  EXPECT_NE(
      message({.dtype = {}, .kv_cache_bytes = 10 * 16384, .max_model_len = 161}).find("holds 160"),
      std::string::npos);
}

TEST(Load, refuses_devices_that_it_cannot_use) {
  const auto status = [](const char* device) {
    return NativeRunner::load(bundled(), {.dtype = {}, .device = device}).status();
  };
  for (const char* device : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cpu:0", "CPU"}) {
    EXPECT_EQ(status(device).code(), StatusCode::kInvalidArgument) << device;
    EXPECT_NE(status(device).message().find("expected auto, cpu, cuda or cuda:N"),
              std::string::npos)
        << status(device).message();
  }
  // Without CUDA kernels, or with fewer GPUs.
  EXPECT_EQ(status("cuda:63").code(), StatusCode::kUnsupported);
  EXPECT_NE(status("cuda:63").message().find("device cpu"), std::string::npos)
      << status("cuda:63").message();
}

TEST(Load, refuses_models_that_it_cannot_run) {
  const Edit edits[] = {
      {"config.json", "\"LlavaForConditionalGeneration\"", "\"Idefics3\"", "Idefics3"},
      {"config.json", "\"model_type\": \"llama\"", "\"model_type\": \"gemma\"", "gemma"},
      {"config.json", "\"clip_vision_model\"", "\"siglip_vision_model\"", "siglip"},
      {"config.json", "\"quick_gelu\"", "\"mish\"", "mish"},
      {"config.json", "\"ignore_index\"", "\"quantization_config\": {}, \"x\"", "quantised"},
      {"config.json", "\"rope_theta\": 10000.0", "\"rope_scaling\": {\"type\": \"yarn\"}", "yarn"},
      {"config.json", "\"torch_dtype\": \"bfloat16\"", "\"torch_dtype\": \"int8\"", "int8"},
      {"config.json", "\"default\"", "\"other\"", "other"},
      {"config.json", "\"vision_feature_layer\": -2", "\"vision_feature_layer\": 9", "6 layers"},
      {"preprocessor_config.json", "\"CLIPImageProcessor\"", "\"ViTImageProcessor\"", "ViT"},
      {"preprocessor_config.json", "\"resample\": 3", "\"resample\": 1", "resample 1"},
      {"preprocessor_config.json", "\"height\": 112", "\"height\": 120", "112 x 120"},
      {"preprocessor_config.json", "\"do_center_crop\": true", "\"do_center_crop\": false", "crop"},
      {"preprocessor_config.json", "0.26862954", "0.0", "image_std"},
  };
  expect_refusals(edits);
}

TEST(Load, refuses_configs_that_are_wrong) {
  const Edit edits[] = {
      {"config.json", "{", "[", "config.json: invalid JSON"},
      {"config.json", "\"hidden_size\": 192,\n    \"intermediate_size\": 384",
       "\"hidden_size\": -1,\n    \"intermediate_size\": 384", "hidden_size is -1"},
      {"config.json", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4",
       "does not divide"},
      {"config.json", "\"patch_size\": 8", "\"patch_size\": 9", "multiple of patch_size"},
      {"config.json", "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": \"x\"", "rms_norm_eps"},
      {"config.json", "\"vocab_size\": 640", "\"vocab_size\": 641", "[640, 192], expected [641"},
      {"config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3",
       "layers.3.input_layernorm.weight' (BF16 [192]) belongs to no part"},
      {"config.json", "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5",
       "layers.4.input_layernorm.weight' is missing"},
      {"config.json", "\"attention_bias\": false", "\"attention_bias\": true", "q_proj.bias"},
      {"generation_config.json", "{", "{{", "generation_config.json"},
  };
  expect_refusals(edits);
}

TEST(Load, refuses_weights_that_are_damaged_or_of_another_type) {
  const Folder folder;
  folder.copy_bundled();
  const std::string weights = folder.read("model.safetensors");
  folder.write("model.safetensors", weights.substr(0, weights.size() - 2));
  EXPECT_NE(load(folder.path()).status().message().find("model.safetensors: tensor"),
            std::string::npos);
  folder.write("model.safetensors", weights);
  folder.edit("model.safetensors", "\"BF16\",\"shape\":[640,192]", "\"U16\" ,\"shape\":[640,192]");
  EXPECT_NE(load(folder.path()).status().message().find("expected F32, BF16 or F16"),
            std::string::npos);
  std::filesystem::remove(folder.file("model.safetensors"));
  EXPECT_EQ(load(folder.path()).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(load("/no/such/folder").status().code(), StatusCode::kNotFound);
}

TEST(Load, finds_an_image_processor_inside_of_processor_config) {
  const Folder folder;
  folder.copy_bundled();
  const std::string own = folder.read("preprocessor_config.json");
  std::filesystem::remove(folder.file("preprocessor_config.json"));
  EXPECT_EQ(Preprocessor::load(folder.path()).status().code(), StatusCode::kNotFound);
  folder.write("processor_config.json", "{\"image_processor\": " + own + "}");
  const auto processor = Preprocessor::load(folder.path());
  ASSERT_TRUE(processor.ok()) << processor.status().message();
  EXPECT_EQ(processor.value()->width(), 112);
  EXPECT_EQ(processor.value()->description(), Preprocessor::load(bundled()).value()->description());
}

TEST(Load, a_preprocessor_refuses_pictures_without_pixels) {
  const auto processor = Preprocessor::load(bundled()).value();
  const uint8_t pixel[3] = {1, 2, 3};
  for (const ImageView& image : {ImageView{nullptr, 4, 4}, ImageView{pixel, 0, 1},
                                 ImageView{pixel, 1, -1}, ImageView{pixel, 1 << 30, 1 << 30}})
    EXPECT_EQ((*processor)(image).status().code(), StatusCode::kMediaError);
  EXPECT_TRUE((*processor)({pixel, 1, 1}).ok());
  EXPECT_EQ(processor->normalize(std::span(pixel)).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmcore::native
