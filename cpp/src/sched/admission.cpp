#include "sched/admission.h"

#include <algorithm>
#include <string>

namespace mmcore {
namespace {

constexpr size_t kMaxSaltBytes = 1024;

std::string num(int64_t value) { return std::to_string(value); }

Status check_prompt(const Request& request, const EngineConfig& config) {
  const auto size = static_cast<int64_t>(request.prompt_token_ids.size());
  if (size == 0) return Status::invalid_argument("Prompt cannot be empty");
  if (size >= config.max_model_len)
    return Status::invalid_argument(
        "The prompt (total length " + num(size) +
        ") is too long to fit into the model (context length " + num(config.max_model_len) +
        "). Make sure that `max_model_len` is no smaller than the number of text tokens plus "
        "multimodal tokens. For image inputs, the number of image tokens depends on the number "
        "of images, and possibly their aspect ratios as well.");
  for (int64_t i = 0; i < size; ++i) {
    const TokenId id = request.prompt_token_ids[static_cast<size_t>(i)];
    if (id < 0 || id >= config.vocab_size)
      return Status::invalid_argument("The prompt's token id " + num(id) + " at position " +
                                      num(i) + " is out of the vocabulary [0, " +
                                      num(config.vocab_size) + ").");
  }
  return {};
}

Status check_span(const MediaItem& item, int64_t index, int64_t earliest, int64_t prompt_size) {
  const auto mismatch = [&](const std::string& what) {
    return Status(StatusCode::kPlaceholderMismatch, "Media item " + num(index) + ": " + what);
  };
  const int64_t end = int64_t{item.offset} + item.length;
  if (item.length < 1 || item.offset < 0 || end > prompt_size)
    return mismatch("its placeholder span [" + num(item.offset) + ", " + num(end) +
                    ") must be a non-empty part of the prompt of " + num(prompt_size) + " tokens.");
  if (item.offset < earliest)
    return mismatch("its placeholder span begins at " + num(item.offset) +
                    ", before the previous item's span ends at " + num(earliest) +
                    ". Items must be in prompt order and must not overlap.");
  if (item.embed_mask.empty()) return {};
  if (static_cast<int64_t>(item.embed_mask.size()) != item.length)
    return mismatch("its embed mask has " + num(static_cast<int64_t>(item.embed_mask.size())) +
                    " entries for a span of " + num(item.length) + " tokens.");
  if (std::ranges::any_of(item.embed_mask, [](uint8_t bit) { return bit > 1; }))
    return mismatch("its embed mask has entries other than 0 and 1.");
  if (std::ranges::none_of(item.embed_mask, [](uint8_t bit) { return bit == 1; }))
    return mismatch("its embed mask has no 1: no token would receive an embedding.");
  return {};
}

Status check_item_fits(const MediaItem& item, int64_t index, const EngineConfig& config) {
  const auto unservable = [&](int64_t need, const char* unit, int64_t have, const char* option) {
    return Status::unservable("Media item " + num(index) + " needs " + num(need) + " " + unit +
                              " at once, but " + option + " is " + num(have) + ". Raise " + option +
                              " or make the item smaller.");
  };
  const int64_t rows = item.num_embeddings();
  if (rows > config.encoder_budget)
    return unservable(rows, "embedding rows", config.encoder_budget, "encoder_budget");
  if (rows > config.encoder_cache_rows)
    return unservable(rows, "embedding rows", config.encoder_cache_rows, "encoder_cache_rows");
  if (!config.split_media_items && item.length > config.max_num_batched_tokens)
    return unservable(item.length, "tokens", config.max_num_batched_tokens,
                      "max_num_batched_tokens");
  return {};
}

Status check_media(const Request& request, const EngineConfig& config) {
  if (request.media.empty()) return {};
  if (!config.multimodal)
    return {StatusCode::kMediaError, "This model takes text only, but the request has " +
                                         num(static_cast<int64_t>(request.media.size())) +
                                         " media item(s)."};
  const auto prompt_size = static_cast<int64_t>(request.prompt_token_ids.size());
  int64_t earliest = 0;
  int64_t total_rows = 0;
  for (size_t i = 0; i < request.media.size(); ++i) {
    const MediaItem& item = request.media[i];
    const auto index = static_cast<int64_t>(i);
    MMCORE_RETURN_IF_ERROR(check_span(item, index, earliest, prompt_size));
    MMCORE_RETURN_IF_ERROR(check_item_fits(item, index, config));
    earliest = int64_t{item.offset} + item.length;
    total_rows += item.num_embeddings();
  }
  const int64_t at_once = std::min(config.encoder_budget, config.encoder_cache_rows);
  if (!config.enable_chunked_prefill && total_rows > at_once)
    return Status::unservable("The request's media items need " + num(total_rows) +
                              " embedding rows in one step because chunked prefill is off, but "
                              "encoder_budget is " +
                              num(config.encoder_budget) + " and encoder_cache_rows is " +
                              num(config.encoder_cache_rows) +
                              ". Raise them, or enable chunked prefill.");
  return {};
}

Status check_capacity(const Request& request, const EngineConfig& config) {
  const auto size = static_cast<int64_t>(request.prompt_token_ids.size());
  const int64_t need = size / config.block_size + 1;  // blocks of size + 1 tokens
  const int64_t usable = config.num_blocks - 1;
  if (need <= usable) return {};
  return Status::unservable(
      "The prompt of " + num(size) + " tokens and one output token need " + num(need) +
      " KV blocks of " + num(config.block_size) + " tokens, but the pool has " + num(usable) +
      ". Raise num_blocks (give the KV cache more memory) or shorten the prompt.");
}

}  // namespace

int64_t pool_tokens(const EngineConfig& config) {
  return (int64_t{config.num_blocks} - 1) * config.block_size;
}

int64_t length_limit(const EngineConfig& config) {
  return std::min<int64_t>(config.max_model_len, pool_tokens(config));
}

Status check_request(const Request& request, const EngineConfig& config) {
  MMCORE_RETURN_IF_ERROR(check_prompt(request, config));
  MMCORE_RETURN_IF_ERROR(check_sampling(request.sampling, config));
  const bool has_priorities =
      config.policy == SchedulingPolicy::kPriority || config.custom_policy != nullptr;
  if (request.priority != 0 && !has_priorities)
    return Status::invalid_argument("Got priority " + num(request.priority) +
                                    " but Priority scheduling is not enabled.");
  if (request.cache_salt.size() > kMaxSaltBytes)
    return Status::invalid_argument("cache_salt must be at most " + num(kMaxSaltBytes) +
                                    " bytes, got " +
                                    num(static_cast<int64_t>(request.cache_salt.size())) + ".");
  if (request.num_sequences < 1 || request.num_sequences > config.max_sequences)
    return Status::invalid_argument("num_sequences must be in [1, " + num(config.max_sequences) +
                                    "] (max_sequences), got " + num(request.num_sequences) + ".");
  if (request.timeout_us < 0 || request.queue_timeout_us < 0)
    return Status::invalid_argument(
        "timeout_us and queue_timeout_us must be at least 0 (0 means none), got " +
        num(request.timeout_us) + " and " + num(request.queue_timeout_us) + ".");
  MMCORE_RETURN_IF_ERROR(check_media(request, config));
  return check_capacity(request, config);
}

}  // namespace mmcore
