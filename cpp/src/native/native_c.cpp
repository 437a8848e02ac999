#include "mmcore/native_c.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

#include "c_api/sized_struct.h"
#include "mmcore/c_api_cpp.h"
#include "native/open_checkpoint.h"

namespace {

using namespace mmcore;
using namespace mmcore::native;
using c_api::guarded;
using c_api::read_struct;
using c_api::write_struct;

constexpr int64_t kMaxLength = int64_t{1} << 31;  // of anything that is handed in

Status null_argument(const char* name) {
  return Status::invalid_argument(std::string(name) + " must not be NULL.");
}

/// An array of the caller's: there, and not longer than makes sense.
Status check_array(const char* name, const void* data, int64_t count) {
  if (count < 0 || count > kMaxLength)
    return Status::invalid_argument("The length of " + std::string(name) + " is " +
                                    std::to_string(count) + ".");
  return data == nullptr && count > 0 ? null_argument(name) : Status();
}

/// Finds the checkpoint behind a handle and calls `call` with it.
template <class Call>
mmcore_status with_checkpoint(mmcore_runner handle, Call&& call) {
  return guarded([&]() -> mmcore_status {
    const std::shared_ptr<ModelRunner> runner = c_api::runner_of(handle);
    const auto* checkpoint = dynamic_cast<const OpenCheckpoint*>(runner.get());
    if (checkpoint == nullptr)
      return c_api::report(MMCORE_INVALID_HANDLE,
                           "This is no handle of a runner that mmcore_native_open made: it was "
                           "destroyed, or never given out.");
    return guarded([&] { return std::forward<Call>(call)(*checkpoint); });
  });
}

mmcore_status too_small(const char* name, int64_t needed) {
  const std::string message = std::string(name) + " needs room for " + std::to_string(needed) + ".";
  return c_api::report(MMCORE_BUFFER_TOO_SMALL, message.c_str());
}

mmcore_native_options default_options() {
  const RunnerOptions defaults;
  mmcore_native_options options{};
  options.struct_size = sizeof(options);
  options.dtype = MMCORE_NATIVE_DTYPE_AUTO;
  options.block_size = defaults.block_size;
  options.max_model_len = defaults.max_model_len;
  options.max_num_seqs = defaults.max_num_seqs;
  options.max_num_batched_tokens = defaults.max_num_batched_tokens;
  options.kv_cache_bytes = defaults.kv_cache_bytes;
  options.encoder_cache_rows = defaults.encoder_cache_rows;
  options.gpu_memory_utilization = defaults.gpu_memory_utilization;
  return options;
}

Status to_options(const mmcore_native_options* given, RunnerOptions& options) {
  mmcore_native_options in = default_options();
  if (given != nullptr) MMCORE_RETURN_IF_ERROR(read_struct("mmcore_native_options", given, in));
  if (in.dtype < MMCORE_NATIVE_DTYPE_AUTO || in.dtype > MMCORE_NATIVE_FLOAT16)
    return Status::invalid_argument("dtype is " + std::to_string(in.dtype) +
                                    "; expected one of MMCORE_NATIVE_*.");
  if (in.dtype != MMCORE_NATIVE_DTYPE_AUTO) options.dtype = static_cast<DType>(in.dtype);
  options.block_size = in.block_size;
  options.max_model_len = in.max_model_len;
  options.max_num_seqs = in.max_num_seqs;
  options.max_num_batched_tokens = in.max_num_batched_tokens;
  options.kv_cache_bytes = in.kv_cache_bytes;
  options.encoder_cache_rows = in.encoder_cache_rows;
  if (in.device != nullptr) options.device = in.device;
  if (in.gpu_memory_utilization != 0) options.gpu_memory_utilization = in.gpu_memory_utilization;
  if (in.enforce_eager != 0 && in.enforce_eager != 1)
    return Status::invalid_argument("enforce_eager is " + std::to_string(in.enforce_eager) +
                                    "; expected 0 or 1.");
  if (in.reserved0 != 0) return Status::unsupported("reserved0 of mmcore_native_options is set.");
  options.enforce_eager = in.enforce_eager == 1;
  return {};
}

/// Gives the items of a request to the caller; on a failure none.
Status give_items(const Request& request, mmcore_media_item* media, uint32_t item_size) {
  auto* at = reinterpret_cast<unsigned char*>(media);
  for (size_t i = 0; i < request.media.size(); ++i, at += item_size) {
    const MediaItem& item = request.media[i];
    mmcore_media_item out{};
    out.kind = MMCORE_MEDIA_IMAGE;
    std::ranges::copy(item.id.bytes, out.content_id);
    out.offset = item.offset;
    out.length = item.length;
    Status status = c_api::make_payload(item.payload, &out.payload);
    if (status.ok())
      status = write_struct("mmcore_media_item", out, reinterpret_cast<mmcore_media_item*>(at),
                            item_size);
    if (status.ok()) continue;
    if (out.payload != 0) mmcore_payload_destroy(out.payload);
    for (size_t k = 0; k < i; ++k) {
      at -= item_size;
      mmcore_payload_destroy(reinterpret_cast<mmcore_media_item*>(at)->payload);
    }
    return status;
  }
  return {};
}

}  // namespace

mmcore_status mmcore_native_options_init(mmcore_native_options* options, uint32_t struct_size) {
  return guarded([&] {
    return write_struct("mmcore_native_options", default_options(), options, struct_size);
  });
}

mmcore_status mmcore_native_open(const char* folder, const mmcore_native_options* options,
                                 mmcore_runner* runner) {
  return guarded([&]() -> Status {
    if (runner == nullptr) return null_argument("runner");
    *runner = 0;
    if (folder == nullptr) return null_argument("folder");
    RunnerOptions known;
    MMCORE_RETURN_IF_ERROR(to_options(options, known));
    auto loaded = NativeRunner::load(folder, known);
    if (!loaded.ok()) return loaded.status();
    const EngineConfig config = loaded.value()->engine_config();
    return c_api::make_runner(
        std::make_shared<OpenCheckpoint>(std::move(loaded).value(), Tokenizer::load(folder)),
        config, runner);
  });
}

mmcore_status mmcore_native_describe(mmcore_runner runner, mmcore_native_info* info) {
  return with_checkpoint(runner, [&](const OpenCheckpoint& checkpoint) -> Status {
    if (info == nullptr) return null_argument("info");
    const ModelInfo& model = checkpoint.runner().model();
    mmcore_native_info out{};
    out.dtype = static_cast<int32_t>(model.dtype);
    out.vocab_size = model.vocab_size;
    out.hidden_size = model.hidden_size;
    out.num_layers = model.num_layers;
    out.max_position = model.max_position;
    out.bos_token_id = model.bos_token_id;
    out.image_token_id = model.image_token_id;
    out.image_tokens = model.image_tokens;
    out.num_blocks = model.num_blocks;
    out.has_tokenizer = checkpoint.tokenizer() != nullptr ? 1 : 0;
    out.weight_bytes = model.weight_bytes;
    out.kv_bytes_per_block = model.kv_bytes_per_block;
    out.gpu = model.device.type == DeviceType::kCuda ? model.device.index : -1;
    return write_struct("mmcore_native_info", out, info, info->struct_size);
  });
}

mmcore_status mmcore_native_configure(mmcore_runner runner, mmcore_config* config) {
  return with_checkpoint(runner, [&](const OpenCheckpoint& checkpoint) -> Status {
    mmcore_config out{};
    MMCORE_RETURN_IF_ERROR(read_struct("mmcore_config", config, out));
    const EngineConfig found = checkpoint.runner().engine_config();
    out.block_size = found.block_size;
    out.num_blocks = found.num_blocks;
    out.max_model_len = found.max_model_len;
    out.max_num_seqs = found.max_num_seqs;
    out.max_num_batched_tokens = found.max_num_batched_tokens;
    out.encoder_budget = found.encoder_budget;
    out.encoder_cache_rows = found.encoder_cache_rows;
    out.multimodal = found.multimodal ? 1 : 0;
    out.split_media_items = found.split_media_items ? 1 : 0;
    out.vocab_size = found.vocab_size;
    out.logits_size = found.logits_size;
    out.eos_token_ids = checkpoint.eos_token_ids().data();
    out.num_eos_token_ids = static_cast<int64_t>(checkpoint.eos_token_ids().size());
    return write_struct("mmcore_config", out, config, config->struct_size);
  });
}

mmcore_status mmcore_native_prepare(mmcore_runner runner, const int32_t* prompt, int64_t num_prompt,
                                    const mmcore_native_image* images, int64_t num_images,
                                    int32_t* token_ids, int64_t capacity, int64_t* num_token_ids,
                                    mmcore_media_item* media, uint32_t media_item_size) {
  return with_checkpoint(runner, [&](const OpenCheckpoint& checkpoint) -> mmcore_status {
    const NativeRunner& native = checkpoint.runner();
    const Status valid = [&]() -> Status {
      if (num_token_ids == nullptr) return null_argument("num_token_ids");
      *num_token_ids = 0;
      MMCORE_RETURN_IF_ERROR(check_array("prompt", prompt, num_prompt));
      MMCORE_RETURN_IF_ERROR(check_array("images", images, num_images));
      MMCORE_RETURN_IF_ERROR(check_array("token_ids", token_ids, capacity));
      if (num_images == 0) return {};
      // A struct without room for the payload could not give it back.
      if (media_item_size < offsetof(mmcore_media_item, payload) + sizeof(mmcore_payload))
        return Status::invalid_argument("media_item_size is " + std::to_string(media_item_size) +
                                        "; expected sizeof(mmcore_media_item).");
      MMCORE_RETURN_IF_ERROR(c_api::check_size("mmcore_media_item", media_item_size));
      return check_array("media", media, num_images);
    }();
    if (!valid.ok()) return c_api::report(valid);
    // What it will take, before images are looked at.
    const int64_t needed = num_prompt + num_images * std::max(0, native.model().image_tokens - 1);
    *num_token_ids = needed;
    if (needed > capacity) return too_small("token_ids", needed);
    std::vector<ImageView> views;
    for (int64_t i = 0; i < num_images; ++i)
      views.push_back({images[i].rgb, images[i].width, images[i].height});
    const auto request = native.make_request({prompt, static_cast<size_t>(num_prompt)}, views);
    if (!request.ok()) return c_api::report(request.status());
    const Status given = give_items(request.value(), media, media_item_size);
    if (!given.ok()) return c_api::report(given);
    std::ranges::copy(request.value().prompt_token_ids, token_ids);
    return MMCORE_OK;
  });
}

mmcore_status mmcore_native_encode(mmcore_runner runner, const char* text, int64_t length,
                                   uint32_t flags, int32_t* token_ids, int64_t capacity,
                                   int64_t* num_token_ids) {
  return with_checkpoint(runner, [&](const OpenCheckpoint& checkpoint) -> mmcore_status {
    std::vector<TokenId> ids;
    const Status status = [&]() -> Status {
      if (num_token_ids == nullptr) return null_argument("num_token_ids");
      *num_token_ids = 0;
      MMCORE_RETURN_IF_ERROR(check_array("text", text, length));
      MMCORE_RETURN_IF_ERROR(check_array("token_ids", token_ids, capacity));
      if (flags > (MMCORE_NATIVE_NO_SPECIAL | MMCORE_NATIVE_TYPED_TEXT))
        return Status::unsupported("flags has a bit that mmcore_native_encode does not know.");
      if (checkpoint.tokenizer() == nullptr) return checkpoint.tokenizer_status();
      auto encoded = checkpoint.tokenizer()->encode(
          {text, static_cast<size_t>(length)},
          {.add_special_tokens = (flags & MMCORE_NATIVE_NO_SPECIAL) == 0,
           .parse_special_tokens = (flags & MMCORE_NATIVE_TYPED_TEXT) == 0});
      if (encoded.ok()) ids = std::move(encoded).value();
      return encoded.status();
    }();
    if (!status.ok()) return c_api::report(status);
    *num_token_ids = static_cast<int64_t>(ids.size());
    if (*num_token_ids > capacity) return too_small("token_ids", *num_token_ids);
    std::ranges::copy(ids, token_ids);
    return MMCORE_OK;
  });
}

mmcore_status mmcore_native_decode(mmcore_runner runner, const int32_t* token_ids,
                                   int64_t num_token_ids, uint32_t flags, char* text,
                                   int64_t capacity, int64_t* length) {
  return with_checkpoint(runner, [&](const OpenCheckpoint& checkpoint) -> mmcore_status {
    const Status status = [&]() -> Status {
      if (length == nullptr) return null_argument("length");
      *length = 0;
      MMCORE_RETURN_IF_ERROR(check_array("token_ids", token_ids, num_token_ids));
      MMCORE_RETURN_IF_ERROR(check_array("text", text, capacity));
      if ((flags & ~uint32_t{MMCORE_NATIVE_KEEP_SPECIAL | MMCORE_NATIVE_HOLD_BACK}) != 0)
        return Status::unsupported("flags has a bit that mmcore_native_decode does not know.");
      return checkpoint.tokenizer() == nullptr ? checkpoint.tokenizer_status() : Status();
    }();
    if (!status.ok()) return c_api::report(status);
    TextStream stream(*checkpoint.tokenizer(), (flags & MMCORE_NATIVE_KEEP_SPECIAL) == 0);
    std::string decoded;
    for (int64_t i = 0; i < num_token_ids; ++i) decoded += stream.push(token_ids[i]);
    if ((flags & MMCORE_NATIVE_HOLD_BACK) == 0) decoded += stream.finish();
    *length = static_cast<int64_t>(decoded.size());
    if (*length >= capacity) return too_small("text", *length + 1);
    std::memcpy(text, decoded.c_str(), decoded.size() + 1);
    return MMCORE_OK;
  });
}
