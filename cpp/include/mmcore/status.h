// Errors of the public API.
//
// An expected failure (bad input, a full queue, something that can never fit) is a Status or a
// Result<T>; it names what was given, what was expected and what to do. A broken invariant of
// mmcore itself throws InternalError. Nothing else is thrown by the public API.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

#include "mmcore/export.h"

namespace mmcore {

enum class StatusCode : int32_t {
  kOk = 0,
  kInvalidArgument = 1,      // the request or call is malformed
  kUnservable = 2,           // well-formed, but can never fit this engine's limits
  kMediaError = 3,           // a media item cannot be used
  kPlaceholderMismatch = 4,  // placeholder ranges and media items disagree
  kOverloaded = 5,           // the queue is full; try later
  kNotFound = 6,             // no such request
  kAborted = 7,              // the request was aborted
  kShutdown = 8,             // the engine does not accept work any more
  kUnsupported = 9,          // a valid call that this build or device cannot do
  kInternal = 10,            // the runner or mmcore failed
  kTimeout = 11,             // the request's time was over
};

/// Names a code in snake_case, for messages and metrics ("invalid_argument").
MMCORE_API const char* to_string(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status invalid_argument(std::string m) {
    return {StatusCode::kInvalidArgument, std::move(m)};
  }
  static Status unservable(std::string m) { return {StatusCode::kUnservable, std::move(m)}; }
  static Status unsupported(std::string m) { return {StatusCode::kUnsupported, std::move(m)}; }
  static Status internal(std::string m) { return {StatusCode::kInternal, std::move(m)}; }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

/// Holds a value or the Status that says why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}         // NOLINT: implicit
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {}  // NOLINT: implicit

  bool ok() const { return state_.index() == 0; }
  /// The value; undefined unless ok().
  T& value() & { return *std::get_if<0>(&state_); }
  const T& value() const& { return *std::get_if<0>(&state_); }
  T&& value() && { return std::move(*std::get_if<0>(&state_)); }
  /// The error; Ok when there is a value.
  Status status() const { return ok() ? Status() : *std::get_if<1>(&state_); }

 private:
  std::variant<T, Status> state_;
};

/// A broken invariant of mmcore: a bug, never the caller's input.
class MMCORE_API InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

}  // namespace mmcore

/// Returns from the enclosing function when `expr` is a failed Status.
#define MMCORE_RETURN_IF_ERROR(expr)                 \
  do {                                               \
    ::mmcore::Status mmcore_status_ = (expr);        \
    if (!mmcore_status_.ok()) return mmcore_status_; \
  } while (false)
