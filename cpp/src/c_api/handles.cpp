#include "c_api/handles.h"

#include <pthread.h>

#include <atomic>
#include <utility>

namespace mmcore::c_api {
namespace {

std::atomic<bool> has_threads = false;
std::atomic<bool> forked = false;

Status add_runner(std::shared_ptr<ModelRunner> runner, std::optional<EngineConfig> config,
                  mmcore_runner* handle) {
  if (runner == nullptr) return null_argument("runner");
  if (handle == nullptr) return null_argument("handle");
  auto shared = std::make_shared<SharedRunner>();
  shared->runner = std::move(runner);
  shared->config = std::move(config);
  *handle = Runners::instance().add(std::move(shared));
  return {};
}

}  // namespace

bool is_forked_child() { return forked; }

// A process that forks before it makes an engine is none the worse: its child has lost nothing.
void note_threads() {
  [[maybe_unused]] static const int registered =
      pthread_atfork(nullptr, nullptr, [] { forked = has_threads.load(); });
  has_threads = true;
}

Status make_runner(std::shared_ptr<ModelRunner> runner, mmcore_runner* handle) {
  return add_runner(std::move(runner), std::nullopt, handle);
}

Status make_runner(std::shared_ptr<ModelRunner> runner, const EngineConfig& config,
                   mmcore_runner* handle) {
  return add_runner(std::move(runner), config, handle);
}

std::shared_ptr<ModelRunner> runner_of(mmcore_runner handle) {
  const std::shared_ptr<SharedRunner> shared = Runners::instance().find(handle);
  return shared == nullptr ? nullptr : shared->runner;
}

Result<std::shared_ptr<ModelRunner>> lend(const std::shared_ptr<SharedRunner>& shared) {
  if (shared->in_use.exchange(true))
    return Status::invalid_argument(
        "Another engine has this runner; destroy that engine first, or make a second runner.");
  return std::shared_ptr<ModelRunner>(shared->runner.get(),
                                      [shared](ModelRunner*) { shared->in_use = false; });
}

Status make_payload(std::shared_ptr<const MediaPayload> payload, mmcore_payload* handle) {
  if (payload == nullptr) return null_argument("payload");
  if (handle == nullptr) return null_argument("handle");
  *handle = Payloads::instance().add(std::move(payload));
  return {};
}

std::shared_ptr<const MediaPayload> payload_of(mmcore_payload handle) {
  return Payloads::instance().find(handle);
}

}  // namespace mmcore::c_api
