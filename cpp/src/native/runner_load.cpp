#include <algorithm>
#include <new>

#include "native/runner_impl.h"
#include "native/weight_loader.h"

namespace mmcore::native {

namespace {

// Checkpoints name the same tensors in two ways, with the base model inside or outside of `model`,
// and the tower with one more module or without.
void rename_llava_tensors(WeightLoader& weights) {
  weights.rename_prefix("model.language_model.", "language_model.model.");
  weights.rename_prefix("model.vision_tower.", "vision_tower.");
  weights.rename_prefix("model.multi_modal_projector.", "multi_modal_projector.");
  weights.rename_prefix("lm_head.", "language_model.lm_head.");
  weights.rename_prefix("vision_tower.vision_model.", "vision_tower.");
}

}  // namespace

Status NativeRunner::Impl::load(const std::string& folder) {
  MMCORE_RETURN_IF_ERROR(check_options());
  Result<ModelConfig> read = read_model_config(folder);
  if (!read.ok()) return read.status();
  config = std::move(read).value();
  MMCORE_RETURN_IF_ERROR(choose_device());
  MMCORE_RETURN_IF_ERROR(choose_dtype());
  if (config.vision) MMCORE_RETURN_IF_ERROR(load_preprocessor(folder));
  describe_model();
  MMCORE_RETURN_IF_ERROR(load_weights(folder));
  MMCORE_RETURN_IF_ERROR(make_workspaces());
  return size_caches();
}

Status NativeRunner::Impl::check_options() const {
  const auto refuse = [](const char* name, auto value, const char* expected) {
    return Status::invalid_argument(std::string(name) + " is " + std::to_string(value) +
                                    ", expected " + expected);
  };
  const int32_t size = options.block_size;
  if (size < 1 || size > 128 || (size & (size - 1)) != 0)
    return refuse("block_size", size, "a power of 2 up to 128");
  if (options.max_num_seqs < 1) return refuse("max_num_seqs", options.max_num_seqs, "at least 1");
  if (options.max_num_batched_tokens < 1)
    return refuse("max_num_batched_tokens", options.max_num_batched_tokens, "at least 1");
  if (options.encoder_cache_rows < 0)
    return refuse("encoder_cache_rows", options.encoder_cache_rows, "0 or more");
  if (options.kv_cache_bytes < 0)
    return refuse("kv_cache_bytes", options.kv_cache_bytes, "0 or more");
  // Not the other way round: a NaN is no share.
  if (!(options.gpu_memory_utilization > 0 && options.gpu_memory_utilization <= 1))
    return refuse("gpu_memory_utilization", options.gpu_memory_utilization, "above 0, at most 1");
  return {};
}

Status NativeRunner::Impl::choose_device() {
  const Result<Device> device = parse_device(options.device);
  if (!device.ok()) return device.status();
  place.device = info.device = device.value();
  if (!place.on_gpu()) return {};
  Result<gpu::OwnedStream> made = gpu::OwnedStream::make(place.device);
  if (!made.ok()) return made.status();
  stream = std::move(made).value();
  place.stream = stream.get();
  return {};
}

Status NativeRunner::Impl::choose_dtype() {
  if (options.dtype) {
    const bool known = *options.dtype == DType::kFloat32 || *options.dtype == DType::kBFloat16 ||
                       (*options.dtype == DType::kFloat16 && place.on_gpu());
    if (!known)
      return Status::unsupported("dtype " + std::string(to_string(*options.dtype)) +
                                 (place.on_gpu()
                                      ? " is no dtype of a model; use float32, bfloat16 or float16"
                                      : " is not supported on a CPU; use float32 or bfloat16"));
    info.dtype = *options.dtype;
  } else if (config.dtype == "bfloat16") {
    info.dtype = DType::kBFloat16;
  } else if (config.dtype == "float16") {
    info.dtype = place.on_gpu() ? DType::kFloat16 : DType::kFloat32;
  } else if (config.dtype.empty() || config.dtype == "float32") {
    info.dtype = DType::kFloat32;
  } else {
    return Status::unsupported("config.json: dtype '" + config.dtype +
                               "' is not supported; known: float32, bfloat16, float16");
  }
  return {};
}

Status NativeRunner::Impl::load_preprocessor(const std::string& folder) {
  Result<std::unique_ptr<Preprocessor>> loaded = Preprocessor::load(folder);
  if (!loaded.ok()) return loaded.status();
  preprocessor = std::move(loaded).value();
  preprocessing = preprocessor->description();
  const int32_t side = config.vision->image_size;
  if (preprocessor->width() != side || preprocessor->height() != side) {
    return Status::invalid_argument(
        "the image processor gives pictures of " + std::to_string(preprocessor->width()) + " x " +
        std::to_string(preprocessor->height()) + " pixels, but the tower takes " +
        std::to_string(side) + " x " + std::to_string(side));
  }
  return {};
}

void NativeRunner::Impl::describe_model() {
  const TextConfig& text = config.text;
  info.architecture = config.architecture;
  info.vocab_size = text.vocab_size;
  info.hidden_size = text.hidden_size;
  info.num_layers = text.num_layers();
  info.max_position = text.max_position;
  info.eos_token_ids = config.eos_token_ids;
  info.bos_token_id = config.bos_token_id;

  engine.block_size = options.block_size;
  engine.max_num_seqs = options.max_num_seqs;
  engine.max_num_batched_tokens = options.max_num_batched_tokens;
  engine.vocab_size = engine.logits_size = text.vocab_size;
  engine.eos_token_ids = config.eos_token_ids;
  if (!config.vision) return;
  info.image_token_id = config.vision->image_token_id;
  info.image_tokens = config.vision->image_tokens();
  // A placeholder may lie outside of the embedding table, since it is never looked up there.
  engine.vocab_size = std::max(text.vocab_size, info.image_token_id + 1);
  engine.multimodal = true;
  engine.encoder_budget = std::max(options.max_num_batched_tokens, info.image_tokens);
  engine.encoder_cache_rows =
      options.encoder_cache_rows != 0 ? options.encoder_cache_rows : 4 * engine.encoder_budget;
}

Status NativeRunner::Impl::load_weights(const std::string& folder) {
  Result<std::vector<SafetensorsFile>> files = open_checkpoint_tensors(folder);
  if (!files.ok()) return files.status();
  WeightLoader weights(std::move(files).value(), info.dtype, place);
  if (config.vision) {
    rename_llava_tensors(weights);
    image_encoder.emplace(*config.vision, config.text.hidden_size, info.dtype, weights);
  }
  decoder.emplace(config.text, config.vision ? "language_model." : "", info.dtype, weights);
  weights.require_all_used();
  info.weight_bytes = weights.loaded_bytes();
  return weights.finish();
}

NativeRunner::NativeRunner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
NativeRunner::~NativeRunner() = default;

Result<std::unique_ptr<NativeRunner>> NativeRunner::load(const std::string& folder,
                                                         const RunnerOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  try {
    MMCORE_RETURN_IF_ERROR(impl->load(folder));
  } catch (const OutOfGpuMemory& error) {
    if (error.status().code() != StatusCode::kUnservable) return error.status();
    return Status::unservable(
        "the model does not fit: " + error.status().message() +
        "; free memory, lower kv_cache_bytes, max_num_batched_tokens or encoder_cache_rows, or use "
        "a dtype of 16 bits");
  } catch (const std::bad_alloc&) {
    return Status::unservable(
        "there is not enough memory for the model and its KV cache; lower "
        "kv_cache_bytes, or use a dtype of 16 bits");
  }
  return std::unique_ptr<NativeRunner>(new NativeRunner(std::move(impl)));
}

const ModelInfo& NativeRunner::model() const { return impl_->info; }
EngineConfig NativeRunner::engine_config() const { return impl_->engine; }
const Preprocessor* NativeRunner::preprocessor() const { return impl_->preprocessor.get(); }

}  // namespace mmcore::native
