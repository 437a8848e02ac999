#include "http_api.h"

#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

namespace service {
namespace {

using httplib::DataSink;
using mmcore::FinishReason;
using mmcore::Status;
using mmcore::StatusCode;
using nlohmann::json;

constexpr std::chrono::milliseconds kLook{50};  // how often a waiting answer looks for its client

// Text that a model made may hold anything; JSON must not.
std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

int http_code(StatusCode code) {
  switch (code) {
    case StatusCode::kOverloaded:
      return 429;
    case StatusCode::kShutdown:
    case StatusCode::kAborted:  // by us: the service ends
      return 503;
    case StatusCode::kTimeout:
      return 504;
    case StatusCode::kUnsupported:
      return 501;
    case StatusCode::kInternal:
      return 500;
    default:
      return 400;
  }
}

json error_body(const Status& status) {
  return {{"error", {{"message", status.message()}, {"type", to_string(status.code())}}}};
}

void answer_error(httplib::Response& response, const Status& status) {
  response.status = http_code(status.code());
  if (response.status == 429 || response.status == 503) response.set_header("Retry-After", "1");
  response.set_content(dump(error_body(status)), "application/json");
}

Status error_of(const Piece& piece) {
  if (piece.reason == FinishReason::kAborted)
    return {StatusCode::kAborted, "the service is shutting down"};
  return piece.error;
}

const char* reason_name(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : "stop";
}

/// One answer on its way to a client, as a whole or in events. Lives in httplib's content provider,
/// which calls write() until it returns false or has called done().
class Reply {
 public:
  Reply(std::unique_ptr<Answer> answer, const Completion& completion, const std::string& model,
        HttpCounters& counters)
      : answer_(std::move(answer)),
        counters_(counters),
        model_(model),
        stream_(completion.stream),
        with_ids_(completion.return_token_ids),
        created_(std::time(nullptr)) {}

  ~Reply() {
    if (!answer_->ended()) ++counters_.disconnects;
  }

  /// Waits until there is a token or the end, so that an early failure gets its status code.
  Status begin(const std::function<bool()>& client_left) {
    while (!answer_->ended() && whole_.token_ids.empty()) {
      if (client_left()) break;
      join(answer_->next(kLook));
    }
    if (whole_.reason == FinishReason::kError || whole_.reason == FinishReason::kAborted)
      return error_of(whole_);
    return {};
  }

  bool write(DataSink& sink) {
    if (!sink.is_writable()) return false;
    return stream_ ? write_events(sink) : write_whole(sink);
  }

 private:
  void join(Piece piece) {
    whole_.text += piece.text;
    whole_.token_ids.insert(whole_.token_ids.end(), piece.token_ids.begin(), piece.token_ids.end());
    whole_.reason = piece.reason;
    whole_.error = std::move(piece.error);
  }

  json body(const Piece& piece) const {
    json choice = {{"index", 0}, {"text", piece.text}, {"finish_reason", nullptr}};
    if (piece.reason != FinishReason::kNone) choice["finish_reason"] = reason_name(piece.reason);
    if (with_ids_) choice["token_ids"] = piece.token_ids;
    return {{"id", "cmpl-" + std::to_string(answer_->id())},
            {"object", "text_completion"},
            {"created", created_},
            {"model", model_},
            {"choices", json::array({std::move(choice)})}};
  }

  json usage() const {
    return {{"prompt_tokens", answer_->prompt_tokens()},
            {"completion_tokens", generated_},
            {"total_tokens", answer_->prompt_tokens() + generated_},
            {"prompt_tokens_details", {{"cached_tokens", answer_->cached_tokens()}}}};
  }

  static bool send(DataSink& sink, const std::string& text) {
    return sink.write(text.data(), text.size());
  }

  bool write_whole(DataSink& sink) {
    if (!answer_->ended()) {
      join(answer_->next(kLook));
      if (!answer_->ended()) return true;
    }
    generated_ = static_cast<int>(whole_.token_ids.size());
    json object = body(whole_);
    object["usage"] = usage();
    // The status line is gone already; a failure this late is told in the body.
    if (whole_.reason == FinishReason::kError || whole_.reason == FinishReason::kAborted)
      object = error_body(error_of(whole_));
    if (!send(sink, dump(object))) return false;
    sink.done();
    return true;
  }

  bool write_events(DataSink& sink) {
    // First what begin() waited for, then what comes.
    const Piece piece = std::exchange(first_, false) ? whole_ : answer_->next(kLook);
    if (piece.token_ids.empty() && piece.reason == FinishReason::kNone) return true;
    generated_ += static_cast<int>(piece.token_ids.size());
    const bool failed =
        piece.reason == FinishReason::kError || piece.reason == FinishReason::kAborted;
    json object = failed ? error_body(error_of(piece)) : body(piece);
    if (!failed && piece.reason != FinishReason::kNone) object["usage"] = usage();
    std::string event = "data: " + dump(object) + "\n\n";
    if (piece.reason != FinishReason::kNone) event += "data: [DONE]\n\n";
    if (!send(sink, event)) return false;
    if (piece.reason != FinishReason::kNone) sink.done();
    return true;
  }

  std::unique_ptr<Answer> answer_;
  HttpCounters& counters_;
  std::string model_;
  bool stream_;
  bool with_ids_;
  std::time_t created_;
  Piece whole_;
  bool first_ = true;
  int generated_ = 0;
};

// Newer releases of cpp-httplib can tell; with older ones a client that left is noticed when its
// first token comes.
template <class Request>
bool client_left(const Request& request) {
  if constexpr (requires { request.is_connection_closed(); }) {
    return request.is_connection_closed();
  } else {
    return false;
  }
}

void complete(const httplib::Request& request, httplib::Response& response, EngineService& engine,
              HttpCounters& counters) {
  auto completion = parse_completion(request.body, {});
  if (!completion.ok()) return answer_error(response, completion.status());
  auto answer = engine.submit(completion.value());
  if (!answer.ok()) return answer_error(response, answer.status());
  auto reply = std::make_shared<Reply>(std::move(answer).value(), completion.value(),
                                       engine.model_name(), counters);
  const Status begun = reply->begin([&request] { return client_left(request); });
  if (!begun.ok()) return answer_error(response, begun);
  response.set_chunked_content_provider(
      completion.value().stream ? "text/event-stream" : "application/json",
      [reply](size_t, DataSink& sink) { return reply->write(sink); });
}

}  // namespace

void add_routes(httplib::Server& server, EngineService& engine, HttpCounters& counters) {
  server.Post("/v1/completions", [&](const httplib::Request& request, httplib::Response& response) {
    complete(request, response, engine, counters);
  });
  server.Get("/v1/models", [&](const httplib::Request&, httplib::Response& response) {
    const json model = {{"id", engine.model_name()}, {"object", "model"}, {"owned_by", "local"}};
    response.set_content(dump({{"object", "list"}, {"data", json::array({model})}}),
                         "application/json");
  });
  server.Get("/health", [&](const httplib::Request&, httplib::Response& response) {
    const Status status = engine.status();
    if (!status.ok()) return answer_error(response, {StatusCode::kShutdown, status.message()});
    response.set_content(R"({"status":"ok"})", "application/json");
  });
  server.Get("/metrics", [&](const httplib::Request&, httplib::Response& response) {
    response.set_content(metrics_text(engine.metrics(), counters), "text/plain; version=0.0.4");
  });
  server.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
    if (!response.body.empty()) return;
    response.set_content(
        dump({{"error",
               {{"message", "no answer for " + request.method + " " + request.path},
                {"type", "http_" + std::to_string(response.status)}}}}),
        "application/json");
  });
  server.set_logger([&](const httplib::Request&, const httplib::Response& response) {
    counters.count(response.status);
  });
}

}  // namespace service
