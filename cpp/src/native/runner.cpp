#include <algorithm>
#include <iterator>
#include <utility>

#include "mmcore/ops.h"
#include "native/runner_impl.h"

namespace mmcore::native {

namespace {

constexpr size_t kPromptLogitsRows = 256;  // at a time: a long prompt's would not fit

RequestId request_of_sample(const StepPlan& plan, size_t row) {
  for (const ScheduledSequence& sequence : plan.sequences)
    if (sequence.sample_row == static_cast<int32_t>(row)) return sequence.request;
  throw InternalError("no sequence has sample row " + std::to_string(row));
}

ContentId identify(const Preprocessor& processor, const std::string& description,
                   const std::vector<uint8_t>& pixels) {
  const std::string shape =
      std::to_string(processor.height()) + "," + std::to_string(processor.width()) + ",3";
  const std::string_view bytes(reinterpret_cast<const char*>(pixels.data()), pixels.size());
  const std::string_view frames[] = {"image", "uint8", shape, "RGB", bytes, description};
  return content_id(frames);
}

}  // namespace

Result<Request> NativeRunner::make_request(std::span<const TokenId> prompt,
                                           std::span<const ImageView> images) const {
  const ModelInfo& info = impl_->info;
  if (info.image_token_id < 0 && !images.empty())
    return Status::unsupported(info.architecture + " sees no images");
  const auto placeholders = static_cast<size_t>(
      info.image_token_id < 0 ? 0 : std::ranges::count(prompt, info.image_token_id));
  if (placeholders != images.size()) {
    return Status(StatusCode::kPlaceholderMismatch,
                  "the prompt has " + std::to_string(placeholders) + " placeholders (token " +
                      std::to_string(info.image_token_id) + ") for " +
                      std::to_string(images.size()) + " images; write one for each");
  }
  Request request;
  request.prompt_token_ids.reserve(prompt.size() +
                                   images.size() * static_cast<size_t>(info.image_tokens));
  size_t next = 0;
  for (const TokenId token : prompt) {
    if (token != info.image_token_id || images.empty()) {
      request.prompt_token_ids.push_back(token);
      continue;
    }
    Result<std::vector<uint8_t>> cropped = impl_->preprocessor->crop(images[next++]);
    if (!cropped.ok()) return cropped.status();
    MediaItem item;
    item.id = identify(*impl_->preprocessor, impl_->preprocessing, cropped.value());
    item.offset = static_cast<int32_t>(request.prompt_token_ids.size());
    item.length = info.image_tokens;
    item.payload = std::make_shared<ImagePayload>(std::move(cropped).value());
    request.media.push_back(std::move(item));
    request.prompt_token_ids.insert(request.prompt_token_ids.end(),
                                    static_cast<size_t>(info.image_tokens), token);
  }
  return request;
}

Status NativeRunner::accept(RequestId id, const Request& request) {
  if (request.lora_id != 0) return Status::unsupported("the native runner has no adapters");
  if (request.media.empty()) return {};
  if (!impl_->preprocessor)
    return Status::unsupported(impl_->info.architecture + " sees no images");
  std::vector<std::shared_ptr<const ImagePayload>> images;
  for (const MediaItem& item : request.media) {
    auto image = std::dynamic_pointer_cast<const ImagePayload>(item.payload);
    if (image == nullptr || item.num_embeddings() != impl_->info.image_tokens ||
        image->pixels().size() != impl_->crop_bytes()) {
      return Status(StatusCode::kMediaError,
                    "item " + std::to_string(images.size()) +
                        " of the request holds no image for this runner; make the request with "
                        "NativeRunner::make_request");
    }
    images.push_back(std::move(image));
  }
  impl_->images.emplace(id, std::move(images));
  return {};
}

void NativeRunner::release(RequestId request) { impl_->images.erase(request); }

Status NativeRunner::Impl::encode(const StepPlan& plan) {
  if (plan.encode.empty()) return {};
  std::vector<std::vector<float>> pixels;
  std::vector<TensorView> outputs;
  for (const EncodeItem& item : plan.encode) {
    const ImagePayload& image = *images.at(item.request).at(static_cast<size_t>(item.item_index));
    Result<std::vector<float>> normalized = preprocessor->normalize(image.pixels());
    if (!normalized.ok()) return normalized.status();
    pixels.push_back(std::move(normalized).value());
    outputs.push_back(store->add(item.slot, item.num_embeddings));
  }
  return image_encoder->encode(pixels, outputs);
}

Status NativeRunner::Impl::prompt_logprobs(const StepPlan& plan, StepResult& result) {
  const std::span<const int32_t> rows = plan.prompt_logprob_rows;
  for (size_t first = 0; first < rows.size(); first += kPromptLogitsRows) {
    const size_t count = std::min(kPromptLogitsRows, rows.size() - first);
    const Result<TensorView> logits = decoder->logits(rows.subspan(first, count));
    if (!logits.ok()) return logits.status();
    std::vector<std::vector<TokenLogprob>> lists;
    MMCORE_RETURN_IF_ERROR(
        ops::logprobs(logits.value(), std::span(plan.prompt_logprob_targets).subspan(first, count),
                      std::span(plan.prompt_logprob_counts).subspan(first, count), lists));
    std::ranges::move(lists, std::back_inserter(result.prompt_logprobs));
  }
  return {};
}

Status NativeRunner::Impl::sample(const StepPlan& plan, StepResult& result) {
  if (plan.sample_rows.empty()) return {};
  const Result<TensorView> logits = decoder->logits(plan.sample_rows);
  if (!logits.ok()) return logits.status();
  std::vector<Status> rows;
  MMCORE_RETURN_IF_ERROR(ops::sample(logits.value(), plan.sampling, result.tokens, &rows));
  for (size_t row = 0; row < rows.size(); ++row)
    if (!rows[row].ok()) result.failed.emplace_back(request_of_sample(plan, row), rows[row]);
  return {};
}

Status NativeRunner::execute(const StepPlan& plan, StepResult& result) {
  Impl& runner = *impl_;
  runner.store->evict(plan.evict);
  MMCORE_RETURN_IF_ERROR(runner.decoder->copy_blocks(plan.block_copies));
  MMCORE_RETURN_IF_ERROR(runner.encode(plan));
  MMCORE_RETURN_IF_ERROR(runner.store->gather(plan));
  MMCORE_RETURN_IF_ERROR(runner.decoder->embed(plan, runner.store->source(), runner.store->rows()));
  MMCORE_RETURN_IF_ERROR(runner.decoder->forward(plan));
  MMCORE_RETURN_IF_ERROR(runner.prompt_logprobs(plan, result));
  return runner.sample(plan, result);
}

}  // namespace mmcore::native
