#include "mmcore/status.h"

namespace mmcore {

const char* to_string(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return "ok";
    case StatusCode::kInvalidArgument:
      return "invalid_argument";
    case StatusCode::kUnservable:
      return "unservable";
    case StatusCode::kMediaError:
      return "media_error";
    case StatusCode::kPlaceholderMismatch:
      return "placeholder_mismatch";
    case StatusCode::kOverloaded:
      return "overloaded";
    case StatusCode::kNotFound:
      return "not_found";
    case StatusCode::kAborted:
      return "aborted";
    case StatusCode::kShutdown:
      return "shutdown";
    case StatusCode::kUnsupported:
      return "unsupported";
    case StatusCode::kInternal:
      return "internal";
    case StatusCode::kTimeout:
      return "timeout";
  }
  return "unknown";
}

}  // namespace mmcore
