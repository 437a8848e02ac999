// mmcore_request_*, and what describes a request: initial structs, content ids, names.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "c_api/convert.h"
#include "c_api/handles.h"
#include "c_api/sized_struct.h"

namespace {

using namespace mmcore;
using namespace mmcore::c_api;

constexpr const char* kRequest = "a request";

}  // namespace

uint32_t mmcore_abi_version(void) { return MMCORE_C_ABI_VERSION; }

const char* mmcore_version(void) { return MMCORE_VERSION; }

const char* mmcore_status_name(mmcore_status status) {
  switch (status) {
    case MMCORE_INVALID_HANDLE:
      return "invalid_handle";
    case MMCORE_OUT_OF_MEMORY:
      return "out_of_memory";
    case MMCORE_WRONG_THREAD:
      return "wrong_thread";
    case MMCORE_BUFFER_TOO_SMALL:
      return "buffer_too_small";
    case MMCORE_END:
      return "end";
    default:
      return to_string(static_cast<StatusCode>(status));
  }
}

mmcore_status mmcore_config_init(mmcore_config* config, uint32_t struct_size) {
  return guarded(
      [&] { return write_struct("mmcore_config", default_config(), config, struct_size); });
}

mmcore_status mmcore_sampling_init(mmcore_sampling* sampling, uint32_t struct_size) {
  return guarded(
      [&] { return write_struct("mmcore_sampling", default_sampling(), sampling, struct_size); });
}

mmcore_status mmcore_submission_init(mmcore_submission* submission, uint32_t struct_size) {
  return guarded([&] {
    return write_struct("mmcore_submission", default_submission(), submission, struct_size);
  });
}

mmcore_status mmcore_content_id(const void* const* frames, const int64_t* lengths,
                                int64_t num_frames, uint8_t* id) {
  return guarded([&]() -> Status {
    if (id == nullptr) return null_argument("id");
    if (num_frames < 1 || num_frames > 1024)
      return Status::invalid_argument("num_frames is " + std::to_string(num_frames) +
                                      "; expected 1 to 1024.");
    if (frames == nullptr || lengths == nullptr) return null_argument("frames and lengths");
    std::vector<std::string_view> views;
    for (int64_t i = 0; i < num_frames; ++i) {
      if (lengths[i] < 0 || (lengths[i] > 0 && frames[i] == nullptr))
        return Status::invalid_argument("Frame " + std::to_string(i) + " is NULL or has length " +
                                        std::to_string(lengths[i]) + ".");
      views.emplace_back(static_cast<const char*>(frames[i]), static_cast<size_t>(lengths[i]));
    }
    std::ranges::copy(content_id(views).bytes, id);
    return {};
  });
}

mmcore_status mmcore_request_read(mmcore_request request, int64_t timeout_us,
                                  mmcore_output* output) {
  return with<Requests>(kRequest, request,
                        [&](const auto& found) { return found->read(timeout_us, output); });
}

mmcore_status mmcore_request_collect(mmcore_request request, int64_t timeout_us,
                                     mmcore_output* output) {
  return with<Requests>(kRequest, request,
                        [&](const auto& found) { return found->collect(timeout_us, output); });
}

mmcore_status mmcore_request_id(mmcore_request request, uint64_t* id) {
  return with<Requests>(kRequest, request, [&](const auto& found) -> Status {
    if (id == nullptr) return null_argument("id");
    *id = found->id();
    return {};
  });
}

mmcore_status mmcore_request_abort(mmcore_request request) {
  return with<Requests>(kRequest, request, [](const auto& found) { return found->abort(); });
}

mmcore_status mmcore_request_destroy(mmcore_request request) {
  return entry([&]() -> mmcore_status {
    const std::shared_ptr<ReadableRequest> found = Requests::instance().take(request);
    if (found == nullptr) return no_handle(kRequest);
    found->close();
    return MMCORE_OK;
  });
}
