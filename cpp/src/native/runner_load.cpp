#include <algorithm>
#include <limits>
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
  Result<ModelConfig> read = read_model_config(folder);
  if (!read.ok()) return read.status();
  config = std::move(read).value();
  MMCORE_RETURN_IF_ERROR(choose_dtype());
  if (config.vision) MMCORE_RETURN_IF_ERROR(load_preprocessor(folder));
  MMCORE_RETURN_IF_ERROR(load_weights(folder));
  MMCORE_RETURN_IF_ERROR(size_caches());
  describe_engine();
  return {};
}

Status NativeRunner::Impl::choose_dtype() {
  if (options.dtype) {
    if (*options.dtype != DType::kFloat32 && *options.dtype != DType::kBFloat16)
      return Status::unsupported("dtype " + std::string(to_string(*options.dtype)) +
                                 " is not supported on a CPU; use float32 or bfloat16");
    info.dtype = *options.dtype;
  } else if (config.dtype == "bfloat16") {
    info.dtype = DType::kBFloat16;
  } else if (config.dtype.empty() || config.dtype == "float32" || config.dtype == "float16") {
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

Status NativeRunner::Impl::load_weights(const std::string& folder) {
  Result<std::vector<SafetensorsFile>> files = open_checkpoint_tensors(folder);
  if (!files.ok()) return files.status();
  WeightLoader weights(std::move(files).value(), info.dtype);
  if (config.vision) {
    rename_llava_tensors(weights);
    image_encoder.emplace(*config.vision, config.text.hidden_size, info.dtype, weights);
  }
  decoder.emplace(config.text, config.vision ? "language_model." : "", info.dtype, weights);
  store.emplace(info.dtype, config.text.hidden_size);
  weights.require_all_used();
  info.weight_bytes = weights.loaded_bytes();
  return weights.status();
}

Status NativeRunner::Impl::size_caches() {
  const int32_t size = options.block_size;
  if (size < 1 || size > 128 || (size & (size - 1)) != 0)
    return Status::invalid_argument("block_size is " + std::to_string(size) +
                                    ", expected a power of 2 up to 128");
  const int64_t bytes = decoder->kv_bytes_per_block(size);
  // Block 0 is the engine's null block and holds nothing that is read.
  const int64_t blocks = std::min<int64_t>(options.kv_cache_bytes / bytes + 1,
                                           std::numeric_limits<int32_t>::max() / size);
  if (options.kv_cache_bytes < 2 * bytes)
    return Status::invalid_argument("kv_cache_bytes is " + std::to_string(options.kv_cache_bytes) +
                                    ", expected at least two blocks of " + std::to_string(bytes));
  if (options.max_model_len < 0 || options.max_model_len > config.text.max_position)
    return Status::invalid_argument("max_model_len is " + std::to_string(options.max_model_len) +
                                    ", expected 0 or at most the checkpoint's " +
                                    std::to_string(config.text.max_position));
  info.kv_bytes_per_block = bytes;
  info.num_blocks = static_cast<int32_t>(blocks);
  const int64_t held = (blocks - 1) * size;
  if (options.max_model_len > held)
    return Status::unservable("max_model_len is " + std::to_string(options.max_model_len) +
                              ", but a KV cache of " + std::to_string(options.kv_cache_bytes) +
                              " bytes holds " + std::to_string(held) +
                              " tokens; raise kv_cache_bytes");
  engine.max_model_len =
      options.max_model_len != 0
          ? options.max_model_len
          : static_cast<int32_t>(std::min<int64_t>(held, config.text.max_position));
  decoder->make_caches(blocks, size, engine.max_model_len);
  return {};
}

void NativeRunner::Impl::describe_engine() {
  const TextConfig& text = config.text;
  info.architecture = config.architecture;
  info.vocab_size = text.vocab_size;
  info.hidden_size = text.hidden_size;
  info.num_layers = text.num_layers();
  info.max_position = text.max_position;
  info.eos_token_ids = config.eos_token_ids;
  info.bos_token_id = config.bos_token_id;

  engine.block_size = options.block_size;
  engine.num_blocks = info.num_blocks;
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

NativeRunner::NativeRunner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
NativeRunner::~NativeRunner() = default;

Result<std::unique_ptr<NativeRunner>> NativeRunner::load(const std::string& folder,
                                                         const RunnerOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  try {
    MMCORE_RETURN_IF_ERROR(impl->load(folder));
  } catch (const std::bad_alloc&) {
    return Status::unservable("there is not enough memory for the model and a KV cache of " +
                              std::to_string(options.kv_cache_bytes) + " bytes");
  }
  return std::unique_ptr<NativeRunner>(new NativeRunner(std::move(impl)));
}

const ModelInfo& NativeRunner::model() const { return impl_->info; }
EngineConfig NativeRunner::engine_config() const { return impl_->engine; }
const Preprocessor* NativeRunner::preprocessor() const { return impl_->preprocessor.get(); }

}  // namespace mmcore::native
