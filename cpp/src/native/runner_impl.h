// What a NativeRunner is made of.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "mmcore/native.h"
#include "native/decoder.h"
#include "native/encoder_store.h"
#include "native/image_encoder.h"
#include "native/image_payload.h"
#include "native/model_config.h"

namespace mmcore::native {

struct NativeRunner::Impl {
  RunnerOptions options;
  ModelConfig config;
  ModelInfo info;
  EngineConfig engine;
  std::unique_ptr<Preprocessor> preprocessor;
  std::string preprocessing;  // its description
  std::optional<Decoder> decoder;
  std::optional<ImageEncoder> image_encoder;
  std::optional<EncoderStore> store;
  std::unordered_map<RequestId, std::vector<std::shared_ptr<const ImagePayload>>> images;

  /// Loads all of it; then the engine's configuration is known.
  Status load(const std::string& folder);

  size_t crop_bytes() const {
    return size_t{3} * static_cast<size_t>(preprocessor->width()) *
           static_cast<size_t>(preprocessor->height());
  }
  Status encode(const StepPlan& plan);
  Status sample(const StepPlan& plan, StepResult& result);
  Status prompt_logprobs(const StepPlan& plan, StepResult& result);

 private:
  Status choose_dtype();
  Status load_weights(const std::string& folder);
  Status load_preprocessor(const std::string& folder);
  Status size_caches();
  void describe_engine();
};

}  // namespace mmcore::native
