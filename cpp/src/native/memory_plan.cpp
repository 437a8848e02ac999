// Where a runner's memory goes, after its weights: workspaces of a step first, then the KV cache.
#include <algorithm>
#include <limits>
#include <string>

#include "native/runner_impl.h"

namespace mmcore::native {

namespace {

constexpr int64_t kKvBytesOnCpu = int64_t{256} << 20;

int64_t blocks_of(int64_t tokens, int64_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

}  // namespace

int64_t NativeRunner::Impl::longest() const {
  return options.max_model_len != 0 ? options.max_model_len : config.text.max_position;
}

Status NativeRunner::Impl::make_workspaces() {
  if (options.max_model_len < 0 || options.max_model_len > config.text.max_position)
    return Status::invalid_argument("max_model_len is " + std::to_string(options.max_model_len) +
                                    ", expected 0 or at most the checkpoint's " +
                                    std::to_string(config.text.max_position));
  const int64_t sequences = options.max_num_seqs;
  // A decode step may be padded to the most sequences.
  const int64_t tokens = std::max<int64_t>(options.max_num_batched_tokens, sequences);
  arrays.emplace(place, config.text, decoder->windows(),
                 StepLimits{.tokens = tokens,
                            .sequences = sequences,
                            .blocks = blocks_of(longest(), options.block_size)});
  if (place.on_gpu() && !arrays->attention_supported())
    return Status::unsupported("heads of " + std::to_string(config.text.head_dim) +
                               " have no kernel on a GPU; use the device cpu");
  decoder->reserve(tokens, std::max(sequences, std::min(tokens, kPromptLogitsRows)),
                   place.on_gpu() ? arrays->attention_workspace_bytes() : 0);
  if (image_encoder) {
    store.emplace(place, info.dtype, engine.encoder_cache_rows, info.image_tokens,
                  config.text.hidden_size);
    const int64_t at_once = std::max<int64_t>(1, engine.encoder_budget / info.image_tokens);
    MMCORE_RETURN_IF_ERROR(image_encoder->reserve(at_once));
  }
  if (!place.on_gpu()) return {};
  sampler.emplace(place, sequences, config.text.vocab_size);
  if (!options.enforce_eager) graphs.emplace(place, sequences);
  return sampler->status();
}

Result<int64_t> NativeRunner::Impl::choose_kv_bytes() const {
  if (place.on_gpu()) return choose_kv_bytes_on_gpu();
  return options.kv_cache_bytes != 0 ? options.kv_cache_bytes : kKvBytesOnCpu;
}

Result<int64_t> NativeRunner::Impl::choose_kv_bytes_on_gpu() const {
  const auto found = gpu::properties(place.device);
  if (!found.ok()) return found.status();
  const int64_t total = found.value().total_bytes, free = found.value().free_bytes;
  const int64_t block = decoder->kv_bytes_per_block(options.block_size);
  // What is made besides: the rotary table and the null block.
  const int64_t other = longest() * config.text.head_dim * 4 + block;
  const std::string where = to_string(place.device);
  const std::string state = where + " has " + std::to_string(free) + " of " +
                            std::to_string(total) + " bytes free with the model loaded";
  if (options.kv_cache_bytes != 0) {
    if (options.kv_cache_bytes > free - other)
      return Status::unservable("kv_cache_bytes is " + std::to_string(options.kv_cache_bytes) +
                                ", but " + state + "; lower it, or free memory");
    return options.kv_cache_bytes;
  }
  const auto allowed =
      static_cast<int64_t>(options.gpu_memory_utilization * static_cast<double>(total));
  const int64_t left = allowed - (total - free) - other;
  if (left < 2 * block)
    return Status::unservable("no memory is left for the KV cache: " + state +
                              ", and gpu_memory_utilization allows " + std::to_string(allowed) +
                              " to be used in all; free memory, raise it, or set kv_cache_bytes");
  // More than all sequences at their longest is of no use but to the prefix cache.
  return std::min(left, options.max_num_seqs * blocks_of(longest(), options.block_size) * block);
}

Status NativeRunner::Impl::size_caches() {
  const int32_t size = options.block_size;
  const int64_t bytes = decoder->kv_bytes_per_block(size);
  const Result<int64_t> chosen = choose_kv_bytes();
  if (!chosen.ok()) return chosen.status();
  if (chosen.value() < 2 * bytes)
    return Status::invalid_argument("kv_cache_bytes is " + std::to_string(chosen.value()) +
                                    ", expected at least two blocks of " + std::to_string(bytes));
  // Block 0 is the engine's null block and holds nothing that is read.
  const int64_t blocks =
      std::min<int64_t>(chosen.value() / bytes + 1, std::numeric_limits<int32_t>::max() / size);
  info.kv_bytes_per_block = bytes;
  info.num_blocks = engine.num_blocks = static_cast<int32_t>(blocks);
  const int64_t held = (blocks - 1) * size;
  if (options.max_model_len > held)
    return Status::unservable("max_model_len is " + std::to_string(options.max_model_len) +
                              ", but a KV cache of " + std::to_string(chosen.value()) +
                              " bytes holds " + std::to_string(held) +
                              " tokens; raise kv_cache_bytes");
  engine.max_model_len = static_cast<int32_t>(std::min(held, longest()));
  return decoder->make_caches(blocks, size, engine.max_model_len);
}

}  // namespace mmcore::native
