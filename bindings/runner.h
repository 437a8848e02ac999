// The ModelRunner that calls a Python object.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstddef>
#include <unordered_map>

#include "mmcore/model_runner.h"
#include "step.h"

namespace mmcore::python {

/// Forwards the engine's calls to `runner.execute(plan)` and `runner.release(request_id)`, and, if
/// `runner.overlaps` is there and true, to `runner.begin(plan)` and `runner.end(plan)`; reads
/// `runner.num_host_blocks` (0 if it has none).
///
/// execute(), begin() and end() return None, or a sequence of (request id, exception) for requests
/// that cannot go on. What it raises fails the step; the engine then finds the request at fault by
/// running its sequences alone. Threads: called without the GIL, takes it for each call.
class PyModelRunner final : public ModelRunner {
 public:
  explicit PyModelRunner(pybind11::object runner);
  ~PyModelRunner() override;

  Status execute(const StepPlan& plan, StepResult& result) override;
  bool overlaps() const override { return overlaps_; }
  Status begin(StepPlan& plan, StepResult& result) override;
  Status end() override;
  void release(RequestId request) override;
  int32_t num_host_blocks() const override;  // with the GIL

  /// Takes the exception that made `request` fail; none when the core itself refused it.
  pybind11::object take_exception(RequestId request);

  /// Raises a KeyboardInterrupt or the like that came while a step ran. It must pass through, but
  /// only once the step is rolled back.
  void rethrow_interrupt();

 private:
  struct Slot {  // a step as Python sees it
    pybind11::object object;
    Step* step = nullptr;
  };

  Status call(const char* method, const Slot& slot);
  Status fail(pybind11::error_already_set& error, const StepPlan& plan);
  void forget_exceptions(const StepPlan& plan);

  pybind11::object runner_;
  bool overlaps_;
  std::array<Slot, 2> slots_;  // in turn: two steps may be begun
  size_t oldest_ = 0;
  size_t num_begun_ = 0;
  pybind11::object interrupt_;
  std::unordered_map<RequestId, pybind11::object> exceptions_;
};

}  // namespace mmcore::python
