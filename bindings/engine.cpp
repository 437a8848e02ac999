// mmcore._C.Engine, its configuration, metrics and outputs.
#include "mmcore/engine.h"

#include <pybind11/native_enum.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <memory>
#include <tuple>
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

// The fields that Python sees, by name.
constexpr auto kConfigFields =
    std::tuple(std::pair("block_size", &EngineConfig::block_size),
               std::pair("num_blocks", &EngineConfig::num_blocks),
               std::pair("enable_prefix_caching", &EngineConfig::enable_prefix_caching),
               std::pair("num_host_blocks", &EngineConfig::num_host_blocks),
               std::pair("hash_key", &EngineConfig::hash_key),
               std::pair("hash_bits", &EngineConfig::hash_bits),
               std::pair("max_model_len", &EngineConfig::max_model_len),
               std::pair("max_num_seqs", &EngineConfig::max_num_seqs),
               std::pair("max_num_batched_tokens", &EngineConfig::max_num_batched_tokens),
               std::pair("enable_chunked_prefill", &EngineConfig::enable_chunked_prefill),
               std::pair("max_prefill_chunk", &EngineConfig::max_prefill_chunk),
               std::pair("policy", &EngineConfig::policy),
               std::pair("max_preemptions", &EngineConfig::max_preemptions),
               std::pair("headroom", &EngineConfig::headroom),
               std::pair("max_queued_requests", &EngineConfig::max_queued_requests),
               std::pair("max_queued_tokens", &EngineConfig::max_queued_tokens),
               std::pair("async_schedule", &EngineConfig::async_schedule),
               std::pair("step_watchdog_us", &EngineConfig::step_watchdog_us),
               std::pair("share_within_step", &EngineConfig::share_within_step),
               std::pair("multimodal", &EngineConfig::multimodal),
               std::pair("split_media_items", &EngineConfig::split_media_items),
               std::pair("encoder_budget", &EngineConfig::encoder_budget),
               std::pair("encoder_cache_rows", &EngineConfig::encoder_cache_rows),
               std::pair("vocab_size", &EngineConfig::vocab_size),
               std::pair("logits_size", &EngineConfig::logits_size),
               std::pair("eos_token_ids", &EngineConfig::eos_token_ids),
               std::pair("max_logprobs", &EngineConfig::max_logprobs),
               std::pair("max_logit_bias", &EngineConfig::max_logit_bias),
               std::pair("max_stop_token_ids", &EngineConfig::max_stop_token_ids),
               std::pair("max_sequences", &EngineConfig::max_sequences));

constexpr auto kMetricFields =
    std::tuple(std::pair("num_waiting", &EngineMetrics::num_waiting),
               std::pair("waiting_tokens", &EngineMetrics::waiting_tokens),
               std::pair("num_running", &EngineMetrics::num_running),
               std::pair("blocks_total", &EngineMetrics::blocks_total),
               std::pair("blocks_used", &EngineMetrics::blocks_used),
               std::pair("blocks_cached", &EngineMetrics::blocks_cached),
               std::pair("host_blocks_total", &EngineMetrics::host_blocks_total),
               std::pair("host_blocks_used", &EngineMetrics::host_blocks_used),
               std::pair("encoder_entries", &EngineMetrics::encoder_entries),
               std::pair("encoder_entries_pinned", &EngineMetrics::encoder_entries_pinned),
               std::pair("encoder_rows", &EngineMetrics::encoder_rows),
               std::pair("steps", &EngineMetrics::steps),
               std::pair("steps_failed", &EngineMetrics::steps_failed),
               std::pair("requests_submitted", &EngineMetrics::requests_submitted),
               std::pair("requests_rejected", &EngineMetrics::requests_rejected),
               std::pair("requests_finished", &EngineMetrics::requests_finished),
               std::pair("requests_aborted", &EngineMetrics::requests_aborted),
               std::pair("requests_failed", &EngineMetrics::requests_failed),
               std::pair("requests_timed_out", &EngineMetrics::requests_timed_out),
               std::pair("tokens_planned", &EngineMetrics::tokens_planned),
               std::pair("tokens_generated", &EngineMetrics::tokens_generated),
               std::pair("prefix_tokens_queried", &EngineMetrics::prefix_tokens_queried),
               std::pair("prefix_tokens_hit", &EngineMetrics::prefix_tokens_hit),
               std::pair("prefix_tokens_copied", &EngineMetrics::prefix_tokens_copied),
               std::pair("prefix_tokens_shared", &EngineMetrics::prefix_tokens_shared),
               std::pair("tokens_forked", &EngineMetrics::tokens_forked),
               std::pair("prefix_tokens_loaded", &EngineMetrics::prefix_tokens_loaded),
               std::pair("blocks_evicted", &EngineMetrics::blocks_evicted),
               std::pair("blocks_offloaded", &EngineMetrics::blocks_offloaded),
               std::pair("blocks_loaded", &EngineMetrics::blocks_loaded),
               std::pair("host_blocks_evicted", &EngineMetrics::host_blocks_evicted),
               std::pair("block_copies", &EngineMetrics::block_copies),
               std::pair("items_encoded", &EngineMetrics::items_encoded),
               std::pair("items_skipped", &EngineMetrics::items_skipped),
               std::pair("preemptions", &EngineMetrics::preemptions),
               std::pair("steps_ahead", &EngineMetrics::steps_ahead),
               std::pair("rows_surplus", &EngineMetrics::rows_surplus),
               std::pair("steps_slow", &EngineMetrics::steps_slow),
               std::pair("slowest_step_us", &EngineMetrics::slowest_step_us));

template <class Fields, class Visit>
void for_each(const Fields& fields, Visit&& visit) {
  std::apply([&](const auto&... field) { (visit(field.first, field.second), ...); }, fields);
}

void bind_config(py::module_& m) {
  py::native_enum<SchedulingPolicy>(m, "SchedulingPolicy", "enum.IntEnum", "Who runs first.")
      .value("FCFS", SchedulingPolicy::kFcfs)
      .value("PRIORITY", SchedulingPolicy::kPriority)
      .value("LONGEST_PREFIX", SchedulingPolicy::kLongestPrefix)
      .finalize();
  py::class_<EngineConfig> config(m, "EngineConfig", "Limits and policies of an engine.");
  config.def(py::init<>());
  for_each(kConfigFields,
           [&](const char* name, auto member) { config.def_readwrite(name, member); });
}

void bind_outputs(py::module_& m) {
  py::class_<EngineMetrics> metrics(m, "EngineMetrics",
                                    "Counters since the engine was made, and gauges of now.");
  for_each(kMetricFields,
           [&](const char* name, auto member) { metrics.def_readonly(name, member); });
  metrics.def("as_dict", [](const EngineMetrics& self) {
    py::typing::Dict<py::str, py::int_> out;
    for_each(kMetricFields, [&](const char* name, auto member) { out[name] = self.*member; });
    return out;
  });

  py::class_<StepOutcome>(m, "StepOutcome", "What one step did.")
      .def_readonly("num_sequences", &StepOutcome::num_sequences)
      .def_readonly("num_tokens", &StepOutcome::num_tokens)
      .def_readonly("committed", &StepOutcome::committed);

  py::class_<Output>(m, "EngineOutput", "What changed for one sequence of a request in one step.")
      .def_property_readonly("id", [](const Output& o) { return o.core.id; })
      .def_property_readonly("sequence", [](const Output& o) { return o.core.sequence; })
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
cannot go on, and release(request_id); and num_host_blocks, if it keeps evicted blocks. A runner
whose `overlaps` is true has begin(plan), which launches a step, and end(plan), which waits for it,
too. One thread at a time may use an engine.)")
      .def(py::init<const EngineConfig&, py::object>(), py::arg("config"), py::arg("runner"))
      .def("submit", &PyEngine::submit, py::arg("request"))
      .def(
          "abort", [](PyEngine& e, RequestId id) { throw_if_error(e.idle().abort(id)); },
          py::arg("request_id"))
      .def(
          "finish",
          [](PyEngine& e, RequestId id, int32_t sequence) {
            throw_if_error(e.idle().finish(id, sequence));
          },
          py::arg("request_id"), py::arg("sequence") = 0)
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
