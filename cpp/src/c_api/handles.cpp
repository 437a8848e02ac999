#include "c_api/handles.h"

#include <pthread.h>

#include <atomic>

namespace mmcore::c_api {
namespace {

std::atomic<bool> has_threads = false;
std::atomic<bool> forked = false;

}  // namespace

bool is_forked_child() { return forked; }

// A process that forks before it makes an engine is none the worse: its child has lost nothing.
void note_threads() {
  [[maybe_unused]] static const int registered =
      pthread_atfork(nullptr, nullptr, [] { forked = has_threads.load(); });
  has_threads = true;
}

Status make_runner(std::shared_ptr<ModelRunner> runner, mmcore_runner* handle) {
  if (runner == nullptr) return null_argument("runner");
  if (handle == nullptr) return null_argument("handle");
  *handle = Runners::instance().add(std::move(runner));
  return {};
}

std::shared_ptr<ModelRunner> runner_of(mmcore_runner handle) {
  return Runners::instance().find(handle);
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
