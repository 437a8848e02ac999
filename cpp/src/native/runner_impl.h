// What a NativeRunner is made of.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "mmcore/gpu.h"
#include "mmcore/native.h"
#include "native/decode_graphs.h"
#include "native/decoder.h"
#include "native/device_sampler.h"
#include "native/encoder_store.h"
#include "native/image_encoder.h"
#include "native/image_payload.h"
#include "native/model_config.h"
#include "native/place.h"
#include "native/step_arrays.h"

namespace mmcore::native {

/// Rows of logits that prompt logprobs take at a time: a long prompt's would not fit.
inline constexpr int64_t kPromptLogitsRows = 256;

struct NativeRunner::Impl {
  RunnerOptions options;
  ModelConfig config;
  ModelInfo info;
  EngineConfig engine;
  std::unique_ptr<Preprocessor> preprocessor;
  std::string preprocessing;  // its description
  gpu::OwnedStream stream;    // outlives what works on it
  Place place;
  std::optional<Decoder> decoder;
  std::optional<ImageEncoder> image_encoder;
  std::optional<EncoderStore> store;
  std::optional<StepArrays> arrays;
  std::optional<DeviceSampler> sampler;  // on a GPU
  std::optional<DecodeGraphs> graphs;    // on a GPU, unless enforce_eager
  std::unordered_map<RequestId, std::vector<std::shared_ptr<const ImagePayload>>> images;
  StepMedia media;  // of a step
  StepTensors step;

  Impl() = default;
  ~Impl() {
    if (place.on_gpu()) static_cast<void>(stream.wait());  // nothing is freed that is in use
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  /// Loads all of it; then the engine's configuration is known.
  Status load(const std::string& folder);

  size_t crop_bytes() const {
    return size_t{3} * static_cast<size_t>(preprocessor->width()) *
           static_cast<size_t>(preprocessor->height());
  }
  Status check_limits(const StepPlan& plan) const;
  /// Makes room for the outputs of the step's items, and says where they and its media rows are.
  Status place_media(const StepPlan& plan);
  Status encode(const StepPlan& plan);
  Status run_decoder(const StepPlan& plan);
  Status prompt_logprobs(const StepPlan& plan, StepResult& result);
  Status sample(const StepPlan& plan, StepResult& result);

 private:
  Status check_options() const;
  Status choose_device();
  Status choose_dtype();
  Status load_preprocessor(const std::string& folder);
  void describe_model();
  Status load_weights(const std::string& folder);
  Status make_workspaces();
  int64_t longest() const;  // positions that a sequence may have, as far as is known before sizing
  Result<int64_t> choose_kv_bytes() const;
  Result<int64_t> choose_kv_bytes_on_gpu() const;
  Status size_caches();
};

}  // namespace mmcore::native
