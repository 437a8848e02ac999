#include "c_api/convert.h"

#include <cstring>
#include <span>
#include <string>

#include "c_api/sized_struct.h"
#include "mmcore/c_api_cpp.h"

namespace mmcore::c_api {
namespace {

/// Elements that one array of a caller may have; a larger count is a mistake, not a wish.
constexpr int64_t kMaxElements = int64_t{1} << 31;

template <class T>
Status view(const char* name, const T* data, int64_t count, std::span<const T>& out) {
  if (count < 0 || count > kMaxElements)
    return Status::invalid_argument("The number of " + std::string(name) + " is " +
                                    std::to_string(count) + "; expected 0 to 2^31.");
  if (count > 0 && data == nullptr)
    return Status::invalid_argument(std::string(name) + " is NULL, but " + std::to_string(count) +
                                    " are announced.");
  out = {data, static_cast<size_t>(count)};
  return {};
}

template <class T, class Out>
Status copy(const char* name, const T* data, int64_t count, Out& out) {
  std::span<const T> values;
  MMCORE_RETURN_IF_ERROR(view(name, data, count, values));
  out.assign(values.begin(), values.end());
  return {};
}

Status to_bool(const char* name, int32_t given, bool& out) {
  if (given != 0 && given != 1)
    return Status::invalid_argument(std::string(name) + " is " + std::to_string(given) +
                                    "; expected 0 or 1.");
  out = given == 1;
  return {};
}

Status to_sampling(const mmcore_sampling* given, SamplingParams& out) {
  mmcore_sampling in = default_sampling();
  MMCORE_RETURN_IF_ERROR(read_struct("mmcore_sampling", given, in));
  out.temperature = in.temperature;
  out.top_p = in.top_p;
  out.top_k = in.top_k;
  out.min_p = in.min_p;
  out.presence_penalty = in.presence_penalty;
  out.frequency_penalty = in.frequency_penalty;
  out.repetition_penalty = in.repetition_penalty;
  out.seed = in.seed;
  out.max_tokens = in.max_tokens;
  out.min_tokens = in.min_tokens;
  out.num_logprobs = in.num_logprobs;
  out.num_prompt_logprobs = in.num_prompt_logprobs;
  MMCORE_RETURN_IF_ERROR(to_bool("ignore_eos", in.ignore_eos, out.ignore_eos));
  MMCORE_RETURN_IF_ERROR(to_bool("reads_history", in.reads_history, out.reads_history));
  MMCORE_RETURN_IF_ERROR(
      copy("stop_token_ids", in.stop_token_ids, in.num_stop_token_ids, out.stop_token_ids));
  MMCORE_RETURN_IF_ERROR(copy("allowed_token_ids", in.allowed_token_ids, in.num_allowed_token_ids,
                              out.allowed_token_ids));
  std::span<const mmcore_logit_bias> biases;
  MMCORE_RETURN_IF_ERROR(view("logit_bias", in.logit_bias, in.num_logit_bias, biases));
  for (const mmcore_logit_bias& bias : biases) out.logit_bias.emplace_back(bias.token, bias.bias);
  return {};
}

Status to_item(const mmcore_media_item* given, MediaItem& out) {
  mmcore_media_item in{};
  MMCORE_RETURN_IF_ERROR(read_struct("mmcore_media_item", given, in));
  if (in.kind < MMCORE_MEDIA_IMAGE || in.kind > MMCORE_MEDIA_OTHER)
    return Status::invalid_argument("The kind of a media item is " + std::to_string(in.kind) +
                                    "; expected one of MMCORE_MEDIA_*.");
  out.kind = static_cast<MediaKind>(in.kind);
  std::memcpy(out.id.bytes.data(), in.content_id, out.id.bytes.size());
  out.offset = in.offset;
  out.length = in.length;
  MMCORE_RETURN_IF_ERROR(copy("embed_mask", in.embed_mask, in.embed_mask_length, out.embed_mask));
  if (in.payload != 0) {
    if (in.user_data != nullptr)
      return Status::invalid_argument("A media item has a payload and user_data; expected one.");
    out.payload = payload_of(in.payload);
    if (out.payload == nullptr)
      return Status::invalid_argument("The payload of a media item is no handle of a payload.");
  } else if (in.user_data != nullptr) {
    out.payload = std::make_shared<UserPayload>(in.user_data);
  }
  return {};
}

Status to_media(const mmcore_submission& in, std::vector<MediaItem>& out) {
  std::span<const mmcore_media_item> items;
  MMCORE_RETURN_IF_ERROR(view("media items", in.media, in.num_media, items));
  if (items.empty()) return {};
  // Elements are as far apart as the caller's compiler put them.
  const uint32_t stride = in.media->struct_size;
  MMCORE_RETURN_IF_ERROR(check_size("mmcore_media_item", stride));
  if (stride % alignof(mmcore_media_item) != 0)
    return Status::invalid_argument("struct_size of the first media item is " +
                                    std::to_string(stride) + ", which is no size of a struct.");
  const auto* next = reinterpret_cast<const unsigned char*>(in.media);
  for (int64_t i = 0; i < in.num_media; ++i, next += stride) {
    const auto* item = reinterpret_cast<const mmcore_media_item*>(next);
    if (item->struct_size != stride)
      return Status::invalid_argument("struct_size of media item " + std::to_string(i) + " is " +
                                      std::to_string(item->struct_size) + ", that of the first " +
                                      std::to_string(stride) + "; expected the same.");
    MMCORE_RETURN_IF_ERROR(to_item(item, out.emplace_back()));
  }
  return {};
}

template <class T>
T sized() {
  T value{};
  value.struct_size = static_cast<uint32_t>(sizeof(T));
  return value;
}

}  // namespace

mmcore_config default_config() {
  const EngineConfig from;
  auto out = sized<mmcore_config>();
  out.block_size = from.block_size;
  out.num_blocks = from.num_blocks;
  out.enable_prefix_caching = from.enable_prefix_caching;
  out.share_within_step = from.share_within_step;
  out.hash_bits = from.hash_bits;
  out.hash_key = from.hash_key;
  out.max_model_len = from.max_model_len;
  out.max_num_seqs = from.max_num_seqs;
  out.max_num_batched_tokens = from.max_num_batched_tokens;
  out.enable_chunked_prefill = from.enable_chunked_prefill;
  out.max_prefill_chunk = from.max_prefill_chunk;
  out.policy = static_cast<int32_t>(from.policy);
  out.max_preemptions = from.max_preemptions;
  out.headroom = from.headroom;
  out.max_queued_requests = from.max_queued_requests;
  out.max_queued_tokens = from.max_queued_tokens;
  out.step_watchdog_us = from.step_watchdog_us;
  out.encoder_budget = from.encoder_budget;
  out.encoder_cache_rows = from.encoder_cache_rows;
  out.multimodal = from.multimodal;
  out.split_media_items = from.split_media_items;
  out.vocab_size = from.vocab_size;
  out.logits_size = from.logits_size;
  out.max_logprobs = from.max_logprobs;
  out.max_logit_bias = from.max_logit_bias;
  out.max_stop_token_ids = from.max_stop_token_ids;
  out.max_sequences = from.max_sequences;
  out.max_unfinished = EngineLoopOptions().max_unfinished;
  out.async_schedule = from.async_schedule;
  out.num_host_blocks = from.num_host_blocks;
  return out;
}

mmcore_sampling default_sampling() {
  const SamplingParams from;
  auto out = sized<mmcore_sampling>();
  out.temperature = from.temperature;
  out.top_p = from.top_p;
  out.top_k = from.top_k;
  out.min_p = from.min_p;
  out.presence_penalty = from.presence_penalty;
  out.frequency_penalty = from.frequency_penalty;
  out.repetition_penalty = from.repetition_penalty;
  out.seed = from.seed;
  out.max_tokens = from.max_tokens;
  out.min_tokens = from.min_tokens;
  out.num_logprobs = from.num_logprobs;
  out.num_prompt_logprobs = from.num_prompt_logprobs;
  out.ignore_eos = from.ignore_eos;
  out.reads_history = from.reads_history;
  return out;
}

mmcore_submission default_submission() {
  auto out = sized<mmcore_submission>();
  out.num_sequences = Request().num_sequences;
  return out;
}

Status to_config(const mmcore_config* given, EngineConfig& out, EngineLoopOptions& options) {
  mmcore_config in = default_config();
  MMCORE_RETURN_IF_ERROR(read_struct("mmcore_config", given, in));
  if (in.policy < MMCORE_POLICY_FCFS || in.policy > MMCORE_POLICY_LONGEST_PREFIX)
    return Status::invalid_argument("policy is " + std::to_string(in.policy) +
                                    "; expected one of MMCORE_POLICY_*.");
  out.block_size = in.block_size;
  out.num_blocks = in.num_blocks;
  MMCORE_RETURN_IF_ERROR(
      to_bool("enable_prefix_caching", in.enable_prefix_caching, out.enable_prefix_caching));
  MMCORE_RETURN_IF_ERROR(to_bool("share_within_step", in.share_within_step, out.share_within_step));
  out.hash_bits = in.hash_bits;
  out.hash_key = in.hash_key;
  out.max_model_len = in.max_model_len;
  out.max_num_seqs = in.max_num_seqs;
  out.max_num_batched_tokens = in.max_num_batched_tokens;
  MMCORE_RETURN_IF_ERROR(
      to_bool("enable_chunked_prefill", in.enable_chunked_prefill, out.enable_chunked_prefill));
  out.max_prefill_chunk = in.max_prefill_chunk;
  out.policy = static_cast<SchedulingPolicy>(in.policy);
  out.max_preemptions = in.max_preemptions;
  out.headroom = in.headroom;
  out.max_queued_requests = in.max_queued_requests;
  out.max_queued_tokens = in.max_queued_tokens;
  out.step_watchdog_us = in.step_watchdog_us;
  out.encoder_budget = in.encoder_budget;
  out.encoder_cache_rows = in.encoder_cache_rows;
  MMCORE_RETURN_IF_ERROR(to_bool("multimodal", in.multimodal, out.multimodal));
  MMCORE_RETURN_IF_ERROR(to_bool("split_media_items", in.split_media_items, out.split_media_items));
  out.vocab_size = in.vocab_size;
  out.logits_size = in.logits_size;
  MMCORE_RETURN_IF_ERROR(
      copy("eos_token_ids", in.eos_token_ids, in.num_eos_token_ids, out.eos_token_ids));
  out.max_logprobs = in.max_logprobs;
  out.max_logit_bias = in.max_logit_bias;
  out.max_stop_token_ids = in.max_stop_token_ids;
  out.max_sequences = in.max_sequences;
  MMCORE_RETURN_IF_ERROR(to_bool("async_schedule", in.async_schedule, out.async_schedule));
  out.num_host_blocks = in.num_host_blocks;
  options.max_unfinished = in.max_unfinished;
  return {};
}

Status to_request(const mmcore_submission* given, Request& out, SubmitOptions& options) {
  mmcore_submission in = default_submission();
  MMCORE_RETURN_IF_ERROR(read_struct("mmcore_submission", given, in));
  MMCORE_RETURN_IF_ERROR(
      copy("prompt_token_ids", in.prompt_token_ids, in.num_prompt_token_ids, out.prompt_token_ids));
  MMCORE_RETURN_IF_ERROR(to_media(in, out.media));
  if (in.sampling != nullptr) MMCORE_RETURN_IF_ERROR(to_sampling(in.sampling, out.sampling));
  MMCORE_RETURN_IF_ERROR(
      copy("bytes of cache_salt", in.cache_salt, in.cache_salt_length, out.cache_salt));
  out.priority = in.priority;
  out.lora_id = in.lora_id;
  out.timeout_us = in.timeout_us;
  out.queue_timeout_us = in.queue_timeout_us;
  out.user_data = in.user_data;
  out.num_sequences = in.num_sequences;
  options.place_timeout = in.place_timeout_us < 0 ? std::chrono::microseconds::max()
                                                  : std::chrono::microseconds(in.place_timeout_us);
  return {};
}

mmcore_metrics from_metrics(const EngineMetrics& from) {
  auto out = sized<mmcore_metrics>();
  out.num_waiting = from.num_waiting;
  out.waiting_tokens = from.waiting_tokens;
  out.num_running = from.num_running;
  out.blocks_total = from.blocks_total;
  out.blocks_used = from.blocks_used;
  out.blocks_cached = from.blocks_cached;
  out.host_blocks_total = from.host_blocks_total;
  out.host_blocks_used = from.host_blocks_used;
  out.encoder_entries = from.encoder_entries;
  out.encoder_entries_pinned = from.encoder_entries_pinned;
  out.encoder_rows = from.encoder_rows;
  out.steps = from.steps;
  out.steps_failed = from.steps_failed;
  out.requests_submitted = from.requests_submitted;
  out.requests_rejected = from.requests_rejected;
  out.requests_finished = from.requests_finished;
  out.requests_aborted = from.requests_aborted;
  out.requests_failed = from.requests_failed;
  out.requests_timed_out = from.requests_timed_out;
  out.tokens_planned = from.tokens_planned;
  out.tokens_generated = from.tokens_generated;
  out.prefix_tokens_queried = from.prefix_tokens_queried;
  out.prefix_tokens_hit = from.prefix_tokens_hit;
  out.prefix_tokens_copied = from.prefix_tokens_copied;
  out.prefix_tokens_shared = from.prefix_tokens_shared;
  out.prefix_tokens_loaded = from.prefix_tokens_loaded;
  out.tokens_forked = from.tokens_forked;
  out.blocks_evicted = from.blocks_evicted;
  out.blocks_offloaded = from.blocks_offloaded;
  out.blocks_loaded = from.blocks_loaded;
  out.host_blocks_evicted = from.host_blocks_evicted;
  out.block_copies = from.block_copies;
  out.items_encoded = from.items_encoded;
  out.items_skipped = from.items_skipped;
  out.preemptions = from.preemptions;
  out.steps_ahead = from.steps_ahead;
  out.rows_surplus = from.rows_surplus;
  out.steps_slow = from.steps_slow;
  out.slowest_step_us = from.slowest_step_us;
  return out;
}

}  // namespace mmcore::c_api
