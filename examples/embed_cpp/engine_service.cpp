#include "engine_service.h"

#include <filesystem>
#include <utility>

namespace service {
namespace {

using mmcore::FinishReason;
using mmcore::Request;
using mmcore::RequestOutput;
using mmcore::Result;
using mmcore::Status;
using mmcore::TokenId;

constexpr std::string_view kPlaceholder = "<image>";

}  // namespace

Piece Answer::next(std::chrono::milliseconds timeout) {
  Piece piece;
  auto outputs = stream_->wait(timeout);
  if (!outputs.ok()) {
    if (outputs.status().code() == mmcore::StatusCode::kTimeout) return piece;
    piece.reason = FinishReason::kError;
    piece.error = outputs.status();
    ended_ = true;
    return piece;
  }
  for (const RequestOutput& output : outputs.value()) {
    if (ended_) break;
    cached_tokens_ = output.num_cached_tokens;
    for (const mmcore::SampledToken& sampled : output.new_tokens) {
      piece.token_ids.push_back(sampled.token);
      piece.text += stops_.push(detokenizer_.push(sampled.token));
      if (stops_.stopped()) break;
    }
    if (output.finished() && !stops_.stopped()) {
      piece.text += stops_.push(detokenizer_.finish());
      if (!stops_.stopped()) piece.text += stops_.finish();
    }
    piece.reason = stops_.stopped() ? FinishReason::kStop : output.finish_reason;
    piece.error = output.error;
    ended_ = piece.reason != FinishReason::kNone;
  }
  if (stops_.stopped() && ended_) {
    // The engine sees tokens, not text: tell it. kNotFound where it had ended by itself.
    static_cast<void>(loop_.finish(stream_->id()));
  }
  return piece;
}

Result<std::unique_ptr<EngineService>> EngineService::start(const Options& options) {
  std::unique_ptr<EngineService> service(new EngineService());
  service->name_ = std::filesystem::path(options.model).lexically_normal().filename().string();
  service->limits_.max_pixels = int64_t{options.max_megapixels} * 1'000'000;
  service->limits_.max_bytes = static_cast<size_t>(options.max_body_mb) << 20;
  service->timeout_us_ = int64_t{options.timeout_s} * 1'000'000;

  auto tokenizer = mmcore::native::Tokenizer::load(options.model);
  if (!tokenizer.ok()) return tokenizer.status();
  service->tokenizer_ = std::move(tokenizer).value();

  mmcore::native::RunnerOptions runner_options;
  runner_options.kv_cache_bytes = int64_t{options.kv_cache_mb} << 20;
  runner_options.max_model_len = options.max_model_len;
  runner_options.max_num_seqs = options.max_num_seqs;
  runner_options.device = options.device;
  if (options.dtype != "auto") {
    for (const auto dtype :
         {mmcore::DType::kFloat32, mmcore::DType::kBFloat16, mmcore::DType::kFloat16})
      if (options.dtype == mmcore::to_string(dtype)) runner_options.dtype = dtype;
    if (!runner_options.dtype)
      return mmcore::Status::invalid_argument("--dtype is '" + options.dtype +
                                              "', expected auto, float32, bfloat16 or float16");
  }
  auto runner = mmcore::native::NativeRunner::load(options.model, runner_options);
  if (!runner.ok()) return runner.status();
  service->runner_ = std::move(runner).value();

  mmcore::EngineLoopOptions loop_options;
  loop_options.max_unfinished = options.max_requests;
  auto loop =
      mmcore::EngineLoop::create(service->runner_->engine_config(), service->runner_, loop_options);
  if (!loop.ok()) return loop.status();
  service->loop_ = std::move(loop).value();
  return service;
}

// With pictures, "<image>" stands for the next one; everything else, and "<image>" without
// pictures, is text, so that nobody writes control tokens into a prompt.
Result<std::vector<TokenId>> EngineService::encode(const Completion& completion) const {
  std::vector<TokenId> ids;
  std::string_view rest = completion.prompt;
  bool first = true;
  while (true) {
    const size_t at =
        completion.image_files.empty() ? std::string_view::npos : rest.find(kPlaceholder);
    mmcore::native::EncodeOptions options;
    options.add_special_tokens = std::exchange(first, false);
    options.parse_special_tokens = false;
    const auto part = tokenizer_->encode(rest.substr(0, at), options);
    if (!part.ok()) return part.status();
    ids.insert(ids.end(), part.value().begin(), part.value().end());
    if (at == std::string_view::npos) return ids;
    ids.push_back(runner_->model().image_token_id);
    rest.remove_prefix(at + kPlaceholder.size());
  }
}

Result<Request> EngineService::make_request(const Completion& completion) {
  if (!completion.image_files.empty() && runner_->model().image_token_id < 0)
    return Status::invalid_argument("model " + name_ + " sees no pictures");
  const auto ids = encode(completion);
  if (!ids.ok()) return ids.status();
  if (completion.image_files.empty()) return runner_->make_request(ids.value());

  decoders_.acquire();
  struct Release {
    std::counting_semaphore<>& held;
    ~Release() { held.release(); }
  } release{decoders_};
  std::vector<Picture> pictures;
  std::vector<mmcore::native::ImageView> views;
  for (size_t i = 0; i < completion.image_files.size(); ++i) {
    auto picture = decode_picture(completion.image_files[i], limits_);
    if (!picture.ok())
      return Status(picture.status().code(),
                    "images[" + std::to_string(i) + "]: " + picture.status().message());
    pictures.push_back(std::move(picture).value());
  }
  for (const Picture& picture : pictures) views.push_back(picture.view());
  return runner_->make_request(ids.value(), views);
}

Result<std::unique_ptr<Answer>> EngineService::submit(Completion completion) {
  auto request = make_request(completion);
  if (!request.ok()) return request.status();
  request.value().sampling = completion.sampling;
  request.value().timeout_us = timeout_us_;
  const int prompt_tokens = static_cast<int>(request.value().prompt_token_ids.size());
  auto stream = loop_->stream(std::move(request).value());
  if (!stream.ok()) return stream.status();
  return std::make_unique<Answer>(*loop_, std::move(stream).value(), *tokenizer_,
                                  std::move(completion.stop), prompt_tokens);
}

}  // namespace service
