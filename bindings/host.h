// What a C++ program that embeds the interpreter takes from Python, to drive an engine itself.
//
// Objects cross in capsules, since the host is another module. It must use the shared libraries of
// the same installation (python -m mmcore --cmake-dir), so that both mean the same types. Each
// capsule is named by what its pointer points to:
//
//   "std::shared_ptr<mmcore::ModelRunner>"   copy it; destroying the last copy takes the GIL
//   "mmcore::EngineConfig"                   copy it
//   "mmcore::Request"                        move out of it; its items keep Python objects alive
//
// Threads: the runner and the items may be used and dropped by threads without the GIL, as long as
// the interpreter lives.
#pragma once

#include <pybind11/pybind11.h>

#include "mmcore/model_runner.h"
#include "runner.h"

namespace mmcore::python {

/// Calls a Python object with execute(plan) and release(request_id), as PyModelRunner does, and
/// accept(request_id, items) for requests that have items.
class HostRunner final : public ModelRunner {
 public:
  explicit HostRunner(pybind11::object runner);
  ~HostRunner() override;

  Status accept(RequestId request, const Request& content) override;
  Status execute(const StepPlan& plan, StepResult& result) override;
  void release(RequestId request) override;

 private:
  pybind11::object runner_;
  PyModelRunner inner_;
};

}  // namespace mmcore::python
