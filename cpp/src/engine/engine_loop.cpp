#include "mmcore/engine_loop.h"

#include <new>
#include <system_error>
#include <utility>

#include "engine/engine_loop_impl.h"
#include "engine/request_channel.h"

namespace mmcore {
namespace {

Status no_memory() {
  return {StatusCode::kOverloaded, "Not enough host memory for another request. Try again later."};
}

}  // namespace

EngineLoop::EngineLoop(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

EngineLoop::~EngineLoop() { Impl::let_go(std::move(impl_)); }

Result<std::unique_ptr<EngineLoop>> EngineLoop::create(const EngineConfig& config,
                                                       std::shared_ptr<ModelRunner> runner,
                                                       const EngineLoopOptions& options) {
  if (options.max_unfinished < 0)
    return Status::invalid_argument("max_unfinished is " + std::to_string(options.max_unfinished) +
                                    "; expected 0 (no limit) or more.");
  Result<std::unique_ptr<Engine>> engine = Engine::create(config, runner.get());
  if (!engine.ok()) return engine.status();
  try {
    auto impl = std::make_shared<Impl>(std::move(runner), std::move(engine).value(), options);
    std::unique_ptr<EngineLoop> loop(new EngineLoop(impl));
    Impl::start(impl);
    return loop;
  } catch (const std::bad_alloc&) {
    return Status::unservable("Not enough host memory for an engine's loop.");
  } catch (const std::system_error& e) {
    return Status::unservable(std::string("The loop's thread cannot be started: ") + e.what());
  }
}

Result<RequestId> EngineLoop::submit(Request request, OutputCallback on_output,
                                     const SubmitOptions& options) {
  if (!on_output) return Status::invalid_argument("on_output must not be empty.");
  try {
    auto sink = std::make_shared<CallbackSink>(std::move(on_output));
    return impl_->submit(std::move(request), std::move(sink), options);
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
}

Result<std::unique_ptr<RequestStream>> EngineLoop::stream(Request request,
                                                          const SubmitOptions& options) {
  try {
    auto channel = std::make_shared<RequestStream::Channel>(request.num_sequences);
    std::unique_ptr<RequestStream> stream(new RequestStream(channel, impl_));
    const Result<RequestId> id = impl_->submit(std::move(request), channel, options);
    if (!id.ok()) return id.status();
    stream->id_ = id.value();
    return stream;
  } catch (const std::bad_alloc&) {
    return no_memory();
  }
}

Status EngineLoop::abort(RequestId id) { return impl_->end(id, std::nullopt); }

Status EngineLoop::finish(RequestId id, int32_t sequence) { return impl_->end(id, sequence); }

Status EngineLoop::drain(std::chrono::microseconds timeout) { return impl_->drain(timeout); }

Status EngineLoop::shutdown(ShutdownMode mode) { return impl_->shutdown(mode); }

Status EngineLoop::status() const { return impl_->status(); }

EngineMetrics EngineLoop::metrics() const { return impl_->metrics(); }

Result<EngineSnapshot> EngineLoop::snapshot() const {
  EngineSnapshot out;
  MMCORE_RETURN_IF_ERROR(impl_->visit("snapshot", [&](Engine& e) { out = e.snapshot(); }));
  out.accepting = out.accepting && impl_->status().ok();  // a loop that drains accepts nothing
  return out;
}

Status EngineLoop::reset_caches() {
  Status status;
  MMCORE_RETURN_IF_ERROR(
      impl_->visit("reset_caches", [&](Engine& e) { status = e.reset_caches(); }));
  return status;
}

Result<std::vector<std::string>> EngineLoop::check_invariants() const {
  std::vector<std::string> out;
  MMCORE_RETURN_IF_ERROR(
      impl_->visit("check_invariants", [&](Engine& e) { out = e.check_invariants(); }));
  return out;
}

const EngineConfig& EngineLoop::config() const { return impl_->config(); }

int64_t EngineLoop::max_servable_tokens() const { return impl_->max_servable_tokens(); }

bool EngineLoop::on_loop_thread() const { return impl_->on_own_thread(); }

}  // namespace mmcore
