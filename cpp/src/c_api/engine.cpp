// mmcore_engine_*: each looks its handle up, checks pointers, and lets nothing out but a code.
#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "c_api/convert.h"
#include "c_api/handles.h"
#include "c_api/sized_struct.h"

namespace {

using namespace mmcore;
using namespace mmcore::c_api;

constexpr const char* kEngine = "an engine";

mmcore_status wrong_thread(const char* call) {
  const std::string message = std::string(call) +
                              " was called on the engine's own thread, which would wait for "
                              "itself. Call it from another one.";
  return report(MMCORE_WRONG_THREAD, message.c_str());
}

}  // namespace

mmcore_status mmcore_engine_create(const mmcore_config* config, mmcore_runner runner,
                                   mmcore_engine* engine) {
  return entry([&]() -> mmcore_status {
    if (engine == nullptr) return report(null_argument("engine"));
    *engine = 0;
    EngineConfig converted;
    EngineLoopOptions options;
    const std::shared_ptr<SharedRunner> shared = Runners::instance().find(runner);
    if (shared == nullptr) return no_handle("a runner");
    if (config == nullptr && shared->config)
      converted = *shared->config;
    else if (const Status status = to_config(config, converted, options); !status.ok())
      return report(status);
    Result<std::shared_ptr<ModelRunner>> lent = lend(shared);
    if (!lent.ok()) return report(lent.status());
    note_threads();
    auto loop = EngineLoop::create(converted, std::move(lent).value(), options);
    if (!loop.ok()) return report(loop.status());
    *engine = Engines::instance().add(std::move(loop).value());
    return MMCORE_OK;
  });
}

mmcore_status mmcore_engine_destroy(mmcore_engine engine) {
  return entry([&]() -> mmcore_status {
    std::shared_ptr<EngineLoop> loop = Engines::instance().find(engine);
    if (loop == nullptr) return no_handle(kEngine);
    if (loop->on_loop_thread()) return wrong_thread("mmcore_engine_destroy");
    loop = Engines::instance().take(engine);  // of several threads one gets it
    if (loop == nullptr) return no_handle(kEngine);
    // Other threads may still be in a call; they keep the object, and are woken.
    return report(loop->shutdown(ShutdownMode::kNow));
  });
}

mmcore_status mmcore_engine_submit(mmcore_engine engine, const mmcore_submission* submission,
                                   mmcore_request* request) {
  return with<Engines>(kEngine, engine, [&](const std::shared_ptr<EngineLoop>& loop) -> Status {
    if (request == nullptr) return null_argument("request");
    *request = 0;
    Request content;
    SubmitOptions options;
    MMCORE_RETURN_IF_ERROR(to_request(submission, content, options));
    const auto readable = std::make_shared<ReadableRequest>(content.num_sequences);
    // The handle comes first: nothing may fail once the request runs.
    const mmcore_request handle = Requests::instance().add(readable);
    const Result<RequestId> id =
        loop->submit(std::move(content), readable->make_callback(), options);
    if (!id.ok()) {
      Requests::instance().take(handle);
      return id.status();
    }
    readable->submitted(loop, id.value());
    *request = handle;
    return {};
  });
}

mmcore_status mmcore_engine_submit_callback(mmcore_engine engine,
                                            const mmcore_submission* submission,
                                            mmcore_output_callback callback, void* user_data,
                                            uint64_t* id) {
  return with<Engines>(kEngine, engine, [&](const std::shared_ptr<EngineLoop>& loop) -> Status {
    if (callback == nullptr) return null_argument("callback");
    Request content;
    SubmitOptions options;
    MMCORE_RETURN_IF_ERROR(to_request(submission, content, options));
    const auto tell = [callback, user_data](const RequestOutput& output) {
      OutputScratch scratch;
      const mmcore_output shown = view_output(output, scratch);
      callback(user_data, &shown);
    };
    const Result<RequestId> given = loop->submit(std::move(content), tell, options);
    if (!given.ok()) return given.status();
    if (id != nullptr) *id = given.value();
    return {};
  });
}

mmcore_status mmcore_engine_abort(mmcore_engine engine, uint64_t request_id) {
  return with<Engines>(kEngine, engine, [&](const auto& loop) { return loop->abort(request_id); });
}

mmcore_status mmcore_engine_finish(mmcore_engine engine, uint64_t request_id, int32_t sequence) {
  return with<Engines>(kEngine, engine,
                       [&](const auto& loop) { return loop->finish(request_id, sequence); });
}

mmcore_status mmcore_engine_drain(mmcore_engine engine, int64_t timeout_us) {
  return with<Engines>(kEngine, engine, [&](const auto& loop) {
    if (loop->on_loop_thread()) return wrong_thread("mmcore_engine_drain");
    return report(loop->drain(timeout_us < 0 ? std::chrono::microseconds::max()
                                             : std::chrono::microseconds(timeout_us)));
  });
}

mmcore_status mmcore_engine_status(mmcore_engine engine) {
  return with<Engines>(kEngine, engine, [](const auto& loop) { return loop->status(); });
}

mmcore_status mmcore_engine_reset_caches(mmcore_engine engine) {
  return with<Engines>(kEngine, engine, [](const auto& loop) { return loop->reset_caches(); });
}

mmcore_status mmcore_engine_max_servable_tokens(mmcore_engine engine, int64_t* tokens) {
  return with<Engines>(kEngine, engine, [&](const auto& loop) -> Status {
    if (tokens == nullptr) return null_argument("tokens");
    *tokens = loop->max_servable_tokens();
    return {};
  });
}

mmcore_status mmcore_engine_metrics(mmcore_engine engine, mmcore_metrics* metrics) {
  return with<Engines>(kEngine, engine, [&](const auto& loop) -> Status {
    if (metrics == nullptr) return null_argument("metrics");
    return write_struct("mmcore_metrics", from_metrics(loop->metrics()), metrics,
                        metrics->struct_size);
  });
}
