// mmcore._C.Engine, its configuration, metrics and outputs.
#include "mmcore/engine.h"

#include <pybind11/native_enum.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <memory>
#include <utility>
#include <vector>

#include "errors.h"
#include "module.h"
#include "runner.h"

namespace py = pybind11;

namespace mmcore::python {
namespace {

/// One request's news as Python reads it.
struct Output {
  RequestOutput core;
  py::object error = py::none();
};

using Alternative = py::typing::Tuple<py::int_, py::float_, py::int_>;
using Alternatives = py::typing::List<Alternative>;

Alternatives logprobs_of(const std::vector<TokenLogprob>& alternatives) {
  Alternatives out;
  for (const TokenLogprob& a : alternatives) out.append(py::make_tuple(a.token, a.logprob, a.rank));
  return out;
}

py::typing::List<py::int_> tokens_of(const Output& output) {
  py::typing::List<py::int_> out;
  for (const SampledToken& token : output.core.new_tokens) out.append(py::int_(token.token));
  return out;
}

py::typing::List<Alternatives> token_logprobs_of(const Output& output) {
  py::typing::List<Alternatives> out;
  for (const SampledToken& token : output.core.new_tokens) out.append(logprobs_of(token.logprobs));
  return out;
}

py::typing::List<Alternatives> prompt_logprobs_of(const Output& output) {
  py::typing::List<Alternatives> out;
  for (const auto& alternatives : output.core.new_prompt_logprobs)
    out.append(logprobs_of(alternatives));
  return out;
}

/// An Engine and the Python runner that it calls. Every call is refused while a step runs: step()
/// lets go of the GIL, so another thread, or the runner itself, could come in between.
class PyEngine {
 public:
  PyEngine(const EngineConfig& config, py::object runner)
      : runner_(std::make_unique<PyModelRunner>(std::move(runner))),
        engine_(value_or_throw(Engine::create(config, runner_.get()))) {}

  Engine& idle() const {
    if (stepping_) {
      throw_error(
          Status::internal("the engine is running a step; call it from one thread at a time, and "
                           "not from its runner"));
    }
    return *engine_;
  }

  RequestId submit(Request request) { return value_or_throw(idle().submit(std::move(request))); }

  StepOutcome step() {
    Engine& engine = idle();
    stepping_ = true;
    const Reset reset{stepping_};
    Result<StepOutcome> outcome = [&] {
      py::gil_scoped_release unlocked;
      return engine.step();
    }();
    runner_->rethrow_interrupt();
    return value_or_throw(std::move(outcome));
  }

  std::vector<Output> take_outputs() {
    std::vector<Output> out;
    for (RequestOutput& core : idle().take_outputs()) {
      Output& output = out.emplace_back(Output{std::move(core)});
      if (!output.core.finished()) continue;
      const py::object cause = runner_->take_exception(output.core.id);
      if (output.core.finish_reason == FinishReason::kError)
        output.error = exception_for(output.core.error, cause);
    }
    return out;
  }

 private:
  struct Reset {
    bool& flag;
    ~Reset() { flag = false; }
  };

  std::unique_ptr<PyModelRunner> runner_;
  std::unique_ptr<Engine> engine_;  // after its runner, which must outlive it
  bool stepping_ = false;           // read and written under the GIL
};

#define MMCORE_ENGINE_CONFIG_FIELDS(X)                                                             \
  X(block_size)                                                                                    \
  X(num_blocks)                                                                                    \
  X(enable_prefix_caching)                                                                         \
  X(hash_key) X(hash_bits) X(max_model_len) X(max_num_seqs) X(max_num_batched_tokens)              \
      X(enable_chunked_prefill) X(max_prefill_chunk) X(policy) X(max_queued_requests)              \
          X(multimodal) X(split_media_items) X(encoder_budget) X(encoder_cache_rows) X(vocab_size) \
              X(logits_size) X(eos_token_ids) X(max_logprobs) X(max_logit_bias)                    \
                  X(max_stop_token_ids)

#define MMCORE_ENGINE_METRICS(X)                                                               \
  X(num_waiting)                                                                               \
  X(num_running)                                                                               \
  X(blocks_total)                                                                              \
  X(blocks_used) X(blocks_cached) X(encoder_entries) X(encoder_entries_pinned) X(encoder_rows) \
      X(steps) X(steps_failed) X(requests_submitted) X(requests_rejected) X(requests_finished) \
          X(requests_aborted) X(requests_failed) X(tokens_planned) X(tokens_generated)         \
              X(prefix_tokens_queried) X(prefix_tokens_hit) X(blocks_evicted) X(block_copies)  \
                  X(items_encoded) X(items_skipped) X(preemptions)

void bind_config(py::module_& m) {
  py::native_enum<SchedulingPolicy>(m, "SchedulingPolicy", "enum.IntEnum", "Who runs first.")
      .value("FCFS", SchedulingPolicy::kFcfs)
      .value("PRIORITY", SchedulingPolicy::kPriority)
      .finalize();
  py::class_<EngineConfig> config(m, "EngineConfig", "Limits and policies of an engine.");
  config.def(py::init<>());
#define MMCORE_FIELD(name) config.def_readwrite(#name, &EngineConfig::name);
  MMCORE_ENGINE_CONFIG_FIELDS(MMCORE_FIELD)
#undef MMCORE_FIELD
}

void bind_outputs(py::module_& m) {
  py::class_<EngineMetrics> metrics(m, "EngineMetrics",
                                    "Counters since the engine was made, and gauges of now.");
#define MMCORE_FIELD(name) metrics.def_readonly(#name, &EngineMetrics::name);
  MMCORE_ENGINE_METRICS(MMCORE_FIELD)
#undef MMCORE_FIELD
  metrics.def("as_dict", [](const EngineMetrics& self) {
    py::typing::Dict<py::str, py::int_> out;
#define MMCORE_FIELD(name) out[#name] = self.name;
    MMCORE_ENGINE_METRICS(MMCORE_FIELD)
#undef MMCORE_FIELD
    return out;
  });

  py::class_<StepOutcome>(m, "StepOutcome", "What one step did.")
      .def_readonly("num_sequences", &StepOutcome::num_sequences)
      .def_readonly("num_tokens", &StepOutcome::num_tokens)
      .def_readonly("committed", &StepOutcome::committed);

  py::class_<Output>(m, "EngineOutput", "What changed for one request since the last call.")
      .def_property_readonly("id", [](const Output& o) { return o.core.id; })
      .def_property_readonly("tokens", &tokens_of)
      .def_property_readonly("logprobs", &token_logprobs_of,
                             "One list of (token, logprob, rank) a new token.")
      .def_property_readonly("prompt_logprobs", &prompt_logprobs_of,
                             "One list of (token, logprob, rank) a new prompt position.")
      .def_property_readonly("finish_reason", [](const Output& o) { return o.core.finish_reason; })
      .def_property_readonly("finished", [](const Output& o) { return o.core.finished(); })
      .def_property_readonly("stop_token", [](const Output& o) { return o.core.stop_token; })
      .def_readonly("error", &Output::error)
      .def_property_readonly("num_cached_tokens",
                             [](const Output& o) { return o.core.num_cached_tokens; })
      .def_property_readonly("num_preemptions",
                             [](const Output& o) { return o.core.num_preemptions; });
}

}  // namespace

void bind_engine(py::module_& m) {
  bind_config(m);
  bind_outputs(m);
  py::class_<PyEngine>(m, "Engine", R"(Queue, scheduler, block pool, prefix index, encoder cache.

`runner` has execute(plan), which returns None or (request id, exception) pairs of requests that
cannot go on, and release(request_id). One thread at a time may use an engine.)")
      .def(py::init<const EngineConfig&, py::object>(), py::arg("config"), py::arg("runner"))
      .def("submit", &PyEngine::submit, py::arg("request"))
      .def(
          "abort", [](PyEngine& e, RequestId id) { throw_if_error(e.idle().abort(id)); },
          py::arg("request_id"))
      .def(
          "finish", [](PyEngine& e, RequestId id) { throw_if_error(e.idle().finish(id)); },
          py::arg("request_id"))
      .def("step", &PyEngine::step)
      .def("take_outputs", &PyEngine::take_outputs)
      .def("has_unfinished", [](const PyEngine& e) { return e.idle().has_unfinished(); })
      .def("reset_caches", [](PyEngine& e) { throw_if_error(e.idle().reset_caches()); })
      .def("metrics", [](const PyEngine& e) { return e.idle().metrics(); })
      .def("max_servable_tokens", [](const PyEngine& e) { return e.idle().max_servable_tokens(); })
      .def("check_invariants", [](const PyEngine& e) { return e.idle().check_invariants(); })
      .def_property_readonly("config", [](const PyEngine& e) { return e.idle().config(); });
}

}  // namespace mmcore::python
