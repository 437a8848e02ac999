// Handles of c_api.h from C++: for libraries that open a runner of their own to C callers.
//
//   mmcore_status my_runner_open(const char* path, mmcore_runner* runner) {
//     return mmcore::c_api::guarded([&]() -> mmcore::Status {
//       return mmcore::c_api::make_runner(std::make_shared<MyRunner>(path), runner);
//     });
//   }
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "mmcore/c_api.h"
#include "mmcore/config.h"
#include "mmcore/export.h"
#include "mmcore/media.h"
#include "mmcore/model_runner.h"
#include "mmcore/status.h"

namespace mmcore::c_api {

/// Gives out a handle, which mmcore_runner_destroy ends. kInvalidArgument for a null argument.
MMCORE_API Status make_runner(std::shared_ptr<ModelRunner> runner, mmcore_runner* handle);

/// Likewise, with the configuration of an engine that is made without one (config NULL).
MMCORE_API Status make_runner(std::shared_ptr<ModelRunner> runner, const EngineConfig& config,
                              mmcore_runner* handle);

/// The runner behind a handle; null if there is none.
MMCORE_API std::shared_ptr<ModelRunner> runner_of(mmcore_runner handle);

/// Likewise for what an item of a request carries.
MMCORE_API Status make_payload(std::shared_ptr<const MediaPayload> payload, mmcore_payload* handle);
MMCORE_API std::shared_ptr<const MediaPayload> payload_of(mmcore_payload handle);

/// Makes `message` the calling thread's last error and returns `code`. Never throws.
MMCORE_API mmcore_status report(mmcore_status code, const char* message) noexcept;

inline mmcore_status report(const Status& status) noexcept {
  return status.ok() ? MMCORE_OK
                     : report(static_cast<mmcore_status>(status.code()), status.message().c_str());
}

/// Runs `call`, which returns a Status or an mmcore_status it has reported itself, and lets nothing
/// out but a code.
template <class Call>
mmcore_status guarded(Call&& call) noexcept {
  try {
    if constexpr (std::is_same_v<decltype(call()), Status>)
      return report(std::forward<Call>(call)());
    else
      return std::forward<Call>(call)();
  } catch (const std::bad_alloc&) {
    return report(MMCORE_OUT_OF_MEMORY, "Not enough host memory.");
  } catch (const std::exception& e) {
    return report(MMCORE_INTERNAL, e.what());
  } catch (...) {
    return report(MMCORE_INTERNAL, "Something was thrown that is not a std::exception.");
  }
}

}  // namespace mmcore::c_api
