// The text for the calling thread's last failure.
#include <algorithm>
#include <cstring>

#include "mmcore/c_api_cpp.h"

namespace mmcore::c_api {
namespace {

// Plain memory: it needs no allocation, which may be what failed, and no destructor, which may run
// before a host's last call.
thread_local char last_error[1024] = "";

}  // namespace

mmcore_status report(mmcore_status code, const char* message) noexcept {
  const size_t length = std::min(std::strlen(message), sizeof(last_error) - 1);
  std::memcpy(last_error, message, length);
  last_error[length] = '\0';
  return code;
}

}  // namespace mmcore::c_api

const char* mmcore_last_error(void) { return mmcore::c_api::last_error; }
