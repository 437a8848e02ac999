#include "mmcore/engine.h"

#include <new>
#include <utility>

#include "engine/engine_impl.h"
#include "sched/admission.h"

namespace mmcore {

ModelRunner::~ModelRunner() = default;
MediaPayload::~MediaPayload() = default;
Status ModelRunner::accept(RequestId /*request*/, const Request& /*content*/) { return {}; }
void ModelRunner::release(RequestId /*request*/) {}
bool ModelRunner::overlaps() const { return false; }

Status ModelRunner::begin(StepPlan& /*plan*/, StepResult& /*result*/) {
  return Status::internal("The runner overlaps() steps, but has no begin().");
}

Status ModelRunner::end() {
  return Status::internal("The runner overlaps() steps, but has no end().");
}

void fill_unknown_tokens(StepPlan& plan, const StepResult& previous) {
  for (size_t row = 0; row < plan.token_sources.size(); ++row) {
    const int32_t source = plan.token_sources[row];
    if (source < 0) continue;
    const auto sample = static_cast<size_t>(source);
    plan.token_ids[row] = sample < previous.tokens.size() ? previous.tokens[sample].token : 0;
  }
  plan.token_sources.clear();
}
int32_t ModelRunner::num_host_blocks() const { return 0; }

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::create(const EngineConfig& config, ModelRunner* runner) {
  if (runner == nullptr) return Status::invalid_argument("runner must not be null.");
  Result<EngineConfig> resolved = resolve_config(config);
  if (!resolved.ok()) return resolved.status();
  if (config.num_host_blocks > runner->num_host_blocks())
    return Status::invalid_argument(
        "num_host_blocks is " + std::to_string(config.num_host_blocks) + ", but the runner has " +
        std::to_string(runner->num_host_blocks()) +
        " blocks of host memory. Use a runner that keeps as many, or 0 to do without.");
  try {
    return std::unique_ptr<Engine>(new Engine(std::make_unique<Impl>(resolved.value(), runner)));
  } catch (const std::bad_alloc&) {
    return Status::unservable("Not enough host memory for the books of num_blocks=" +
                              std::to_string(config.num_blocks) + " KV blocks.");
  }
}

Result<RequestId> Engine::submit(Request request) { return impl_->submit(std::move(request)); }

Result<RequestId> Engine::submit(Request request, RequestId id) {
  return impl_->submit(std::move(request), id);
}

Status Engine::abort(RequestId id) { return impl_->abort(id); }

Status Engine::finish(RequestId id, int32_t sequence) { return impl_->finish(id, sequence); }

Result<StepOutcome> Engine::step() { return impl_->step(); }

std::vector<RequestOutput> Engine::take_outputs() {
  std::vector<RequestOutput> batch;
  impl_->outputs().take(batch);
  return batch;
}

void Engine::take_outputs(std::vector<RequestOutput>& batch) { impl_->outputs().take(batch); }

bool Engine::has_unfinished() const { return impl_->has_unfinished(); }

void Engine::drain() { impl_->drain(); }

EngineSnapshot Engine::snapshot() const { return impl_->snapshot(); }

Status Engine::reset_caches() { return impl_->reset_caches(); }

EngineMetrics Engine::metrics() const { return impl_->metrics(); }

const EngineConfig& Engine::config() const { return impl_->config(); }

int64_t Engine::max_servable_tokens() const { return pool_tokens(impl_->config()); }

std::vector<std::string> Engine::check_invariants() const { return impl_->violations(); }

}  // namespace mmcore
