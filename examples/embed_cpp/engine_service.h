// The model behind the API: a native runner, its tokenizer and an engine loop.
#pragma once

#include <chrono>
#include <memory>
#include <semaphore>
#include <string>
#include <vector>

#include "completion.h"
#include "mmcore/engine_loop.h"
#include "mmcore/native.h"
#include "options.h"
#include "picture.h"
#include "stop_text.h"

namespace service {

/// What came since the last look.
struct Piece {
  std::string text;
  std::vector<mmcore::TokenId> token_ids;
  mmcore::FinishReason reason = mmcore::FinishReason::kNone;  // kNone: more will come
  mmcore::Status error;                                       // with kError
};

/// The answer to one request as it is made. One thread; destroying it early aborts the request.
class Answer {
 public:
  Answer(mmcore::EngineLoop& loop, std::unique_ptr<mmcore::RequestStream> stream,
         const mmcore::native::Tokenizer& tokenizer, std::vector<std::string> stops,
         int prompt_tokens)
      : loop_(loop),
        stream_(std::move(stream)),
        detokenizer_(tokenizer),
        stops_(std::move(stops)),
        prompt_tokens_(prompt_tokens) {}

  mmcore::RequestId id() const { return stream_->id(); }
  int prompt_tokens() const { return prompt_tokens_; }
  int cached_tokens() const { return cached_tokens_; }

  /// Waits for news, at most that long; an empty piece if there are none.
  Piece next(std::chrono::milliseconds timeout);
  bool ended() const { return ended_; }

 private:
  mmcore::EngineLoop& loop_;
  std::unique_ptr<mmcore::RequestStream> stream_;
  mmcore::native::TextStream detokenizer_;
  StopText stops_;
  int prompt_tokens_;
  int cached_tokens_ = 0;
  bool ended_ = false;
};

class EngineService {
 public:
  static mmcore::Result<std::unique_ptr<EngineService>> start(const Options& options);

  /// Decodes pictures, makes the prompt's tokens and submits; on the caller's thread.
  mmcore::Result<std::unique_ptr<Answer>> submit(Completion completion);

  /// Accepts nothing more and gives what runs that much time.
  mmcore::Status stop(std::chrono::seconds time) {
    const mmcore::Status drained = loop_->drain(time);
    return drained.ok() ? loop_->shutdown() : loop_->shutdown(mmcore::ShutdownMode::kNow);
  }

  const std::string& model_name() const { return name_; }
  mmcore::Status status() const { return loop_->status(); }
  mmcore::EngineMetrics metrics() const { return loop_->metrics(); }
  mmcore::Result<std::vector<std::string>> violations() const { return loop_->check_invariants(); }

 private:
  EngineService() = default;
  mmcore::Result<std::vector<mmcore::TokenId>> encode(const Completion& completion) const;
  mmcore::Result<mmcore::Request> make_request(const Completion& completion);

  std::string name_;
  PictureLimits limits_;
  int64_t timeout_us_ = 0;
  std::shared_ptr<mmcore::native::NativeRunner> runner_;
  std::unique_ptr<mmcore::native::Tokenizer> tokenizer_;
  // A decoded picture is much larger than its file: a few at once, however many clients send one.
  std::counting_semaphore<> decoders_{2};
  std::unique_ptr<mmcore::EngineLoop> loop_;
};

}  // namespace service
