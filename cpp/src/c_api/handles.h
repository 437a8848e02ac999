// The tables of handles, and what every function of the border does first.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "c_api/handle_table.h"
#include "c_api/readable_request.h"
#include "mmcore/c_api_cpp.h"
#include "mmcore/engine_loop.h"

namespace mmcore::c_api {

/// A runner, and whether an engine has it: two would mix their requests' ids and KV blocks.
struct SharedRunner {
  std::shared_ptr<ModelRunner> runner;
  std::optional<EngineConfig> config;  // its own, for an engine that is given none
  std::atomic<bool> in_use = false;
};

using Engines = HandleTable<EngineLoop, HandleKind::kEngine>;
using Runners = HandleTable<SharedRunner, HandleKind::kRunner>;
using Requests = HandleTable<ReadableRequest, HandleKind::kRequest>;
using Payloads = HandleTable<const MediaPayload, HandleKind::kPayload>;

/// Whether this process was forked from one that has an engine: then the engine's thread is missing
/// here, and a lock may be held for ever.
bool is_forked_child();
/// To be called before the first engine is made.
void note_threads();

/// The runner for one engine, given back with the last pointer to it; kInvalidArgument while
/// another engine has it.
Result<std::shared_ptr<ModelRunner>> lend(const std::shared_ptr<SharedRunner>& shared);

inline mmcore_status no_handle(const char* kind) {
  const std::string message =
      "This is no handle of " + std::string(kind) + ": it was destroyed, or never given out.";
  return report(MMCORE_INVALID_HANDLE, message.c_str());
}

inline Status null_argument(const char* name) {
  return Status::invalid_argument(std::string(name) + " must not be NULL.");
}

/// guarded(), unless the process is a forked child.
template <class Call>
mmcore_status entry(Call&& call) noexcept {
  if (is_forked_child())
    return report(MMCORE_SHUTDOWN,
                  "This process was forked from one that has an engine; only that one may go on.");
  return guarded(std::forward<Call>(call));
}

/// Looks an object up and passes it on; `call` returns a Status or a reported code.
template <class Table, class Call>
mmcore_status with(const char* kind, uint64_t handle, Call&& call) noexcept {
  return entry([&]() -> mmcore_status {
    const auto object = Table::instance().find(handle);
    if (object == nullptr) return no_handle(kind);
    return guarded([&] { return std::forward<Call>(call)(object); });
  });
}

}  // namespace mmcore::c_api
