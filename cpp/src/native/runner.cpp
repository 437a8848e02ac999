#include <algorithm>
#include <iterator>
#include <utility>

#include "mmcore/ops.h"
#include "native/runner_impl.h"

namespace mmcore::native {

namespace {

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

Status NativeRunner::Impl::check_limits(const StepPlan& plan) const {
  const auto most_tokens = static_cast<size_t>(options.max_num_batched_tokens);
  const auto most_sequences = static_cast<size_t>(options.max_num_seqs);
  // The CPU's memory grows.
  if (!place.on_gpu() ||
      (plan.token_ids.size() <= most_tokens && plan.sequences.size() <= most_sequences))
    return {};
  return Status::invalid_argument(
      "a step of " + std::to_string(plan.token_ids.size()) + " tokens of " +
      std::to_string(plan.sequences.size()) + " sequences; the runner was loaded for at most " +
      std::to_string(most_tokens) + " of " + std::to_string(most_sequences) +
      ": lower the engine's max_num_batched_tokens and max_num_seqs, or raise the runner's");
}

Status NativeRunner::Impl::place_media(const StepPlan& plan) {
  media.sources.clear();
  media.feature_rows.clear();
  if (!store) return {};
  store->evict(plan.evict);
  for (const EncodeItem& item : plan.encode) {
    const Result<int64_t> first = store->add(item.slot);
    if (!first.ok()) return first.status();
    image_encoder->add_feature_rows(first.value(), media.feature_rows);
  }
  return store->find_rows(plan, media.sources);
}

Status NativeRunner::Impl::encode(const StepPlan& plan) {
  if (plan.encode.empty()) return {};
  std::vector<std::vector<float>> pixels;
  for (const EncodeItem& item : plan.encode) {
    const ImagePayload& image = *images.at(item.request).at(static_cast<size_t>(item.item_index));
    Result<std::vector<float>> normalized = preprocessor->normalize(image.pixels());
    if (!normalized.ok()) return normalized.status();
    pixels.push_back(std::move(normalized).value());
  }
  return image_encoder->encode(pixels, step.feature_rows, store->view());
}

Status NativeRunner::Impl::run_decoder(const StepPlan& plan) {
  const int64_t rows = graphs ? graphs->rows_for(plan) : 0;
  if (rows != 0)
    MMCORE_RETURN_IF_ERROR(arrays->read_decode(plan, rows, step));
  else
    MMCORE_RETURN_IF_ERROR(arrays->read(plan, media, step));
  MMCORE_RETURN_IF_ERROR(decoder->copy_blocks(step.block_copies));
  MMCORE_RETURN_IF_ERROR(encode(plan));
  const auto forward = [&]() -> Status {
    MMCORE_RETURN_IF_ERROR(decoder->embed(step, store ? store->view() : TensorView()));
    return decoder->forward(step);
  };
  if (rows == 0) return forward();
  return graphs->run(rows, arrays->base(), [&]() -> Status {
    MMCORE_RETURN_IF_ERROR(forward());
    return decoder->compute_logits(step.sample_rows);
  });
}

Status NativeRunner::Impl::prompt_logprobs(const StepPlan& plan, StepResult& result) {
  const size_t rows = plan.prompt_logprob_rows.size();
  for (size_t first = 0; first < rows; first += kPromptLogitsRows) {
    const size_t count = std::min<size_t>(kPromptLogitsRows, rows - first);
    const auto n = static_cast<int64_t>(count);
    MMCORE_RETURN_IF_ERROR(
        decoder->compute_logits(rows_of(step.prompt_rows, static_cast<int64_t>(first), n)));
    std::vector<std::vector<TokenLogprob>> lists;
    MMCORE_RETURN_IF_ERROR(ops::logprobs(
        decoder->logits(n), std::span(plan.prompt_logprob_targets).subspan(first, count),
        std::span(plan.prompt_logprob_counts).subspan(first, count), lists, place.stream));
    std::ranges::move(lists, std::back_inserter(result.prompt_logprobs));
  }
  return {};
}

Status NativeRunner::Impl::sample(const StepPlan& plan, StepResult& result) {
  if (plan.sample_rows.empty()) return {};
  const auto S = static_cast<int64_t>(plan.sample_rows.size());
  // A step from a graph has its logits.
  if (!graphs || graphs->rows_for(plan) == 0)
    MMCORE_RETURN_IF_ERROR(decoder->compute_logits(step.sample_rows));
  const TensorView logits = decoder->logits(S);
  if (sampler && sampler->takes(plan.sampling)) {
    std::span<const TokenId> tokens;
    MMCORE_RETURN_IF_ERROR(sampler->pick(logits, step, tokens));
    for (const TokenId token : tokens) result.tokens.push_back({.token = token, .logprobs = {}});
    if (std::ranges::none_of(tokens, [](TokenId token) { return token < 0; })) return {};
    result.tokens.clear();  // sample() says what is wrong with the row
  }
  std::vector<Status> rows;
  MMCORE_RETURN_IF_ERROR(ops::sample(logits, plan.sampling, result.tokens, &rows, place.stream));
  for (size_t row = 0; row < rows.size(); ++row)
    if (!rows[row].ok()) result.failed.emplace_back(request_of_sample(plan, row), rows[row]);
  return {};
}

Status NativeRunner::execute(const StepPlan& plan, StepResult& result) {
  Impl& runner = *impl_;
  MMCORE_RETURN_IF_ERROR(runner.check_limits(plan));
  MMCORE_RETURN_IF_ERROR(runner.place_media(plan));
  MMCORE_RETURN_IF_ERROR(runner.run_decoder(plan));
  MMCORE_RETURN_IF_ERROR(runner.prompt_logprobs(plan, result));
  return runner.sample(plan, result);
}

}  // namespace mmcore::native
