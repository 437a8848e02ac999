// The ModelRunner that calls a Python object.
#pragma once

#include <pybind11/pybind11.h>

#include <unordered_map>

#include "mmcore/model_runner.h"
#include "step.h"

namespace mmcore::python {

/// Forwards the engine's calls to `runner.execute(plan)` and `runner.release(request_id)`, and
/// reads `runner.num_host_blocks` (0 if it has none).
///
/// execute() returns None, or a sequence of (request id, exception) for requests that cannot go on.
/// What it raises fails the step; the engine then finds the request at fault by running its
/// sequences alone. Threads: called without the GIL, takes it for each call.
class PyModelRunner final : public ModelRunner {
 public:
  explicit PyModelRunner(pybind11::object runner);
  ~PyModelRunner() override;

  Status execute(const StepPlan& plan, StepResult& result) override;
  void release(RequestId request) override;
  int32_t num_host_blocks() const override;  // with the GIL

  /// Takes the exception that made `request` fail; none when the core itself refused it.
  pybind11::object take_exception(RequestId request);

  /// Raises a KeyboardInterrupt or the like that came while a step ran. It must pass through, but
  /// only once the step is rolled back.
  void rethrow_interrupt();

 private:
  Status call_execute(StepResult& result);
  Status fail(pybind11::error_already_set& error, const StepPlan& plan);

  pybind11::object runner_;
  pybind11::object step_object_;
  Step* step_;
  pybind11::object interrupt_;
  std::unordered_map<RequestId, pybind11::object> exceptions_;
};

}  // namespace mmcore::python
